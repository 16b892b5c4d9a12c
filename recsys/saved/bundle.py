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
from recsys.runfolder import RunFolder
from recsys.saved.open_model import FORMAT, SavedModel, open_model


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
    saved = open_model(source, model)
    write_bundle(saved, Path(out), source, sources=[run])
    return saved.name


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
        for name in (run_files.CONFIG, run_files.METRICS):
            shutil.copyfile(source.local(name), folder.path / name)
        folder.write_json(run_files.MANIFEST, source.read_manifest() | {KIND: "bundle"})
        files = sorted(path for path in folder.path.rglob("*") if path.is_file())
        sums = {path.relative_to(folder.path).as_posix(): fingerprint(path) for path in files}
        folder.write_json(run_files.BUNDLE_CARD, {"format": FORMAT, "model": saved.name, "files": sums})
