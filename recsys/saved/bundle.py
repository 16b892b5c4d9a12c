"""Write a bundle: a portable folder of one model that scores users without Spark and without Java.

    bundle.json        format version, the model's name, SHA-256 of every other file
    model/NAME/        the fitted model, as ``models.save`` writes it: JSON and .npy
    user_factors.npy   float32[users of the history, rank], NaN rows for users without a factor;
                       only if the run was on Spark
    split/             items.parquet, history.parquet
    segment/           the lists for users without a history, if the run has segments
    config.toml  metrics.json  manifest.json

Nothing is pickled. ``open_model`` opens a bundle only if every file is there and unchanged, and if
this version can read the format.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from recsys import models, run_files
from recsys.data.weigh import interactions_to_table
from recsys.fingerprint import fingerprint
from recsys.locations import Location
from recsys.replacing import KIND
from recsys.runfolder import RunFolder, damage_explained
from recsys.saved.open_model import FORMAT, SavedModel, open_model
from recsys.saved.rating_predictions import fallback_of_run, is_of_ratings, rating_model_name


def bundle_run(run: str | Location, out: str | Path, model: str | None = None) -> str:
    """Write the bundle of a run's model to ``out``, and return the name of the model.

    An older bundle at ``out`` is replaced.

    Args:
        run: the path or URI of a complete run of either engine.
        out: the folder of the bundle.
        model: the name of the model. None: the pick of the run (``open_model``).

    Raises:
        RunFolderError: the run is not complete, has no such model, or has one that cannot be
            bundled, or ``out`` may not be replaced.
    """
    RunFolder.require_writable(out, "bundle", [run])
    source = RunFolder.open(run)
    with damage_explained(source.location):
        predicts_ratings = is_of_ratings(source)
    if predicts_ratings:
        return bundle_rating_model(source, Path(out), model)
    saved = open_model(source, model)
    write_bundle(saved, Path(out), source, sources=[run])
    return saved.name


def bundle_rating_model(source: RunFolder, out: Path, model: str | None) -> str:
    """Write the bundle of a model that predicts ratings, and of its fallback, and return its name.

    A bundle that is already at ``out`` is replaced. The history is the train part, whose users the
    models know.

    Args:
        source: the run, or a bundle of it.
        out: the folder of the bundle.
        model: the name of the model. None: the best one of the run.

    Raises:
        RunFolderError: the run has no such model, or ``out`` may not be replaced or written.
    """
    with damage_explained(source.location):
        model = rating_model_name(source, model)
        names = dict.fromkeys([model, fallback_of_run(source)])
    with RunFolder.writing(out, "bundle", [source.location]) as folder:
        for name in names:
            path = run_files.model_folder(name)
            shutil.copytree(source.local(path), folder.path / path)
        for file in (run_files.ITEMS, run_files.HISTORY):
            folder.write_table(file, source.read_table(file))
        _finish_bundle(folder, source, model)
    return model


def write_bundle(saved: SavedModel, out: Path, source: RunFolder, *, sources: Iterable[str | Location]) -> None:
    """Write a bundle of a saved model. Its config, metrics and manifest are copied from ``source``.

    A bundle that is already at ``out`` is replaced.

    Args:
        saved: the model with all that it needs to score.
        out: the folder of the bundle.
        source: the run or bundle from which ``saved`` was read.
        sources: files and folders that must not be inside ``out``, because they would be lost.

    Raises:
        RunFolderError: ``out`` may not be replaced, or cannot be written.
    """
    with RunFolder.writing(out, "bundle", sources) as folder:
        folder.write_table(run_files.ITEMS, saved.items)
        folder.write_table(run_files.HISTORY, interactions_to_table(saved.history))
        models.save(saved.model, folder.path / run_files.model_folder(saved.name))
        if saved.user_factors is not None:
            np.save(folder.path / run_files.BUNDLE_USER_FACTORS, saved.user_factors, allow_pickle=False)
        if saved.segments is not None:
            saved.segments.save(folder.path)
        _finish_bundle(folder, source, saved.name)


def _finish_bundle(folder: RunFolder, source: RunFolder, name: str) -> None:
    """Copy the config, the metrics and the manifest of ``source``, and write the list of all files."""
    for file in (run_files.CONFIG, run_files.METRICS):
        shutil.copyfile(source.local(file), folder.path / file)
    folder.write_json(run_files.MANIFEST, source.read_manifest() | {KIND: "bundle"})
    files = sorted(path for path in folder.path.rglob("*") if path.is_file())
    sums = {path.relative_to(folder.path).as_posix(): fingerprint(path) for path in files}
    folder.write_json(run_files.BUNDLE_CARD, {"format": FORMAT, "model": name, "files": sums})
