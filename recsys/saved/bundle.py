"""Run folder -> a portable folder that answers without Spark and without Java, and back.

    bundle.json        format version, the model's name, SHA-256 of every other file
    model/NAME/        the fitted model, as ``models.save`` writes it: JSON and .npy
    user_factors.npy   float32[users of the history, rank], NaN rows without one; of Spark runs only
    split/             items.parquet, history.parquet
    segment/           what users without a history are shown, where the run has segments
    config.toml  metrics.json  manifest.json

Nothing is pickled. A bundle is opened only when every file is there, unchanged, and of a format this version reads.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from recsys import models, run_files
from recsys.config import Config, load_config
from recsys.data.weigh import interactions_from_table, interactions_to_table
from recsys.errors import RunFolderError
from recsys.features.segment_popularity import Segments
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Popular
from recsys.models.combining.cascade import Cascade
from recsys.models.content_collaborative import Attributes
from recsys.replacing import KIND
from recsys.runfolder import RunFolder, fingerprint
from recsys.schema import ITEM, USER
from recsys.types import IdMap, Interactions, Recommender

FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """An open bundle: ``factors`` float32[users of ``history``, rank], NaN rows without one, or None; ``segments`` of a
    run that falls back on them."""

    name: str
    model: Recommender
    history: Interactions
    items: pd.DataFrame
    config: Config
    factors: np.ndarray | None
    segments: Segments | None = None


class StoredFactors:
    """A factor model that asks stored user factors first, and folds in whoever has none.

    ``factors``: float32[m, rank], the factor of the m-th user asked about, NaN where none is stored.
    """

    def __init__(self, model: Recommender, factors: np.ndarray) -> None:
        self.model, self.factors = model, factors
        self.als: ALS = next(iter(model.models.values())) if isinstance(model, Cascade) else model  # type: ignore
        self.sources = model.sources  # type: ignore[attr-defined]

    def fit(self, train: Interactions, features: Any = None) -> StoredFactors:
        """Refuse: what is stored was trained elsewhere."""
        raise RunFolderError("a bundle is not trained: train a run, and bundle that.")

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]."""
        users = np.arange(histories.shape[0]) if users is None else users
        own = self.factors[users]
        known = ~np.isnan(own).any(axis=1)
        scores = np.empty(histories.shape, dtype=np.float32)
        scores[known] = own[known] @ self.als.item_factors_.T
        scores[:, ~self.als.known_] = np.nan
        if not known.all():
            scores[~known] = self.model.score(histories[np.flatnonzero(~known)], users[~known])
        return scores

    def leads(self, histories: csr_array, users: np.ndarray) -> np.ndarray:
        """Return bool[m]: the factor model speaks, by a stored factor or by folding in."""
        known = ~np.isnan(self.factors[users]).any(axis=1)
        return known | self.als.knows(histories)

    def source(self, histories: csr_array, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return int8[m, k]: who spoke."""
        found: np.ndarray = np.zeros(items.shape, np.int8)
        return self.model.source(histories, items) if hasattr(self.model, "source") else found


def write(run: str | Path, out: str | Path, model: str | None = None) -> str:
    """Write the bundle of a run's model to ``out``, and return the model's name; an older bundle there is replaced.

    Raises:
        RunFolderError: not a whole run, no such model in it, a model that cannot be carried, or an
            ``out`` that may not be replaced.
    """
    folder = RunFolder.open(run)
    names = [
        name
        for name in folder.read_json(run_files.METRICS)["models"]
        if (folder.path / run_files.model_folder(name)).is_dir()
    ]
    if not names or (model and model not in names):
        raise RunFolderError(f"{run}: no model {model or ''} to bundle; it has {', '.join(names) or 'none'}.")
    name = model or names[-1]
    history, items = known(folder)
    factors = None
    if (folder.path / run_files.spark_params(name)).exists():
        fitted, factors = _from_spark(folder, name, history)
    else:
        fitted = models.load(folder.path / run_files.model_folder(name))
    config = load_config(folder.path / run_files.CONFIG)
    bundle = Bundle(name, fitted, history, items, config, factors, Segments.load(folder.path))
    write_bundle(bundle, Path(out), folder, sources=[run])
    return name


def write_bundle(bundle: Bundle, out: Path, source: RunFolder, *, sources: Iterable[str | Path]) -> None:
    """Write a bundle; its config, metrics and manifest are those of ``source``.

    Args:
        sources: files and folders that ``out`` must not hold, because they would be lost.

    Raises:
        RunFolderError: ``out`` may not be replaced, or cannot be written.
    """
    with RunFolder.writing(out, "bundle", sources) as folder:
        folder.write_table(run_files.ITEMS, bundle.items)
        folder.write_table(run_files.HISTORY, interactions_to_table(bundle.history))
        models.save(bundle.model, folder.path / run_files.model_folder(bundle.name))
        if bundle.factors is not None:
            np.save(folder.path / run_files.BUNDLE_USER_FACTORS, bundle.factors, allow_pickle=False)
        if bundle.segments is not None:
            bundle.segments.save(folder.path)
        for name in (run_files.CONFIG, run_files.METRICS):
            shutil.copyfile(source.path / name, folder.path / name)
        folder.write_json(run_files.MANIFEST, source.read_json(run_files.MANIFEST) | {KIND: "bundle"})
        files = sorted(path for path in folder.path.rglob("*") if path.is_file())
        sums = {path.relative_to(folder.path).as_posix(): fingerprint(path) for path in files}
        folder.write_json(run_files.BUNDLE_CARD, {"format": FORMAT, "model": bundle.name, "files": sums})


def open_bundle(path: str | Path) -> Bundle:
    """Check every file of a bundle, and open it.

    Raises:
        RunFolderError: not a bundle, of an unknown format, or a file is missing or is not what was written.
    """
    folder = RunFolder.open(path)
    about = folder.read_json(run_files.BUNDLE_CARD)
    if about.get("format") != FORMAT:
        raise RunFolderError(
            f"{path}: bundle format {about.get('format')}, but this recsys reads {FORMAT}. Bundle the run again."
        )
    for name, wanted in about["files"].items():
        if not (folder.path / name).is_file():
            raise RunFolderError(f"{path}: {name} is missing. Copy the bundle again, or bundle the run again.")
        if fingerprint(folder.path / name) != wanted:
            raise RunFolderError(f"{path}: {name} was cut short or changed. Copy the bundle again.")
    history, items = known(folder)
    stored = folder.path / run_files.BUNDLE_USER_FACTORS
    factors = np.load(stored, allow_pickle=False) if stored.exists() else None
    fitted = models.load(folder.path / run_files.model_folder(about["model"]))
    config, segments = load_config(folder.path / run_files.CONFIG), Segments.load(folder.path)
    return Bundle(about["model"], fitted, history, items, config, factors, segments)


def known(folder: RunFolder) -> tuple[Interactions, pd.DataFrame]:
    """Return what a run or a bundle knows of users, and its candidates with what the items table says of them."""
    items = folder.read_table(run_files.ITEMS)
    return interactions_from_table(folder.read_table(run_files.HISTORY), items=IdMap.of(items[ITEM])), items


def is_bundle(path: Path) -> bool:
    """Return whether a folder says that it is a bundle."""
    return (path / run_files.BUNDLE_CARD).exists()


def _from_spark(folder: RunFolder, name: str, history: Interactions) -> tuple[Recommender, np.ndarray]:
    """Return the model of Spark's item factors with popular behind it, and the user factors."""
    params = json.loads((folder.path / run_files.spark_params(name)).read_text(encoding="utf-8"))
    if not params["implicit"]:
        raise RunFolderError(
            f"{folder.path}: model {name} predicts ratings (implicit = false): nothing here asks that."
        )
    rank = params["rank"]
    ids, found = _vectors(folder.path / run_files.item_factors(name), ITEM, rank)
    items = np.zeros((len(history.items), rank), dtype=np.float32)
    has_factor = np.zeros(len(items), dtype=bool)
    at = history.items.rows(ids)
    items[at], has_factor[at] = found, True
    kind, extra = (Attributes, ("ridge", "scheme", "fields")) if params.get("model") == "attributes" else (ALS, ())
    als = kind.from_factors(items, has_factor, **{key: params[key] for key in ("alpha", "reg", "nu", "beta", *extra)})
    ids, found = _vectors(folder.path / run_files.user_factors(name), USER, rank)
    factors = np.full((len(history.users), rank), np.nan, dtype=np.float32)
    factors[history.users.rows(ids)] = found
    popular = Popular().fit(interactions_from_table(folder.read_table(run_files.TRAIN), items=history.items))
    return Cascade({name: als, "popular": popular}), factors


def _vectors(place: Path, column: str, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, float32[n, rank]) of a table of factors."""
    found = pq.read_table(place, columns=[column, "features"]).combine_chunks()
    features = found["features"].combine_chunks().flatten().to_numpy()
    return found[column].to_pandas().to_numpy(), features.reshape(-1, rank)
