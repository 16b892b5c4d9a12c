"""The only reader of a saved model, from a run of either engine or from a bundle, with one rule for the default model.

run of the local engine    model/NAME/model.json and its arrays
run on Spark               model/NAME/params.json, item_factors.parquet, user_factors.parquet
bundle                     model/NAME/model.json, and user_factors.npy where the run was one on Spark
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from recsys import models, run_files
from recsys.config import Config, load_config
from recsys.data.weigh import interactions_from_table
from recsys.engine import BASELINES
from recsys.errors import RunFolderError
from recsys.features.segment_popularity import Segments
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Popular
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import with_segment_rows, with_stored_factors
from recsys.models.content_collaborative import Attributes
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder, fingerprint
from recsys.schema import ITEM, USER
from recsys.types import Histories, IdMap, Interactions

FORMAT = 1
"""Version of the layout of a bundle."""


@dataclass(frozen=True)
class SavedModel:
    """A trained model with all that it needs to score users.

    ``history``: the interactions of users with the candidates. ``items``: the candidates, row by
    row, with the columns
    of the items table. ``user_factors``: float32[users of ``history``, rank], NaN rows without one;
    None where the
    model has none stored. ``segments``: of a run with the fallback "segment".
    """

    name: str
    model: Recommender
    history: Interactions
    items: pd.DataFrame
    config: Config
    user_factors: np.ndarray | None = None
    segments: Segments | None = None

    def histories(self, user_ids: Any) -> Histories:
        """Return the histories of users by id; that of an unknown user is empty."""
        return self.history.histories().select(self.history.users.rows(user_ids))

    def recommender(self, users: pd.DataFrame) -> Recommender:
        """Return the model for these users, in this order: with their stored factors and with their segments.

        Args:
            users: ``user_id``, and perhaps columns that put a user into a segment, which take
            precedence over the
                users table.
        """
        model = self.model
        if self.user_factors is not None:
            rows = self.history.users.rows(users[USER])
            stored = np.where((rows >= 0)[:, None], self.user_factors[rows], np.float32(np.nan))
            model = with_stored_factors(model, stored)
        if self.segments is None:
            return model
        rows_by_column = self.segments.rows(users)
        rows_by_id = self.segments.of_users(users[USER])
        segment_rows = np.where(rows_by_column >= 0, rows_by_column, rows_by_id)
        return with_segment_rows(model, self.segments, segment_rows)


def open_model(folder: str | Path, name: str | None = None) -> SavedModel:
    """Open a model of a run folder or the model of a bundle.

    Args:
        name: which model; unset: :func:`default_model`.

    Raises:
        RunFolderError: not a whole run or bundle, no such model in it, or a model that cannot be
        read here.
    """
    folder = Path(folder)
    if is_bundle(folder):
        saved = _open_bundle(folder)
        if name and name != saved.name:
            raise RunFolderError(f"{folder}: this is a bundle of model {saved.name}, not of {name}.")
        return saved
    run = RunFolder.open(folder)
    names = saved_models(run)
    if not names or (name and name not in names):
        raise RunFolderError(f"{folder}: no model {name or 'at all'} in it; it has {', '.join(names) or 'none'}.")
    name = name or default_model(run.read_json(run_files.METRICS), names)
    history, items = read_history_and_items(run)
    model = open_item_side(run, name, history.items)
    user_factors = None
    if _is_spark_model(run, name):
        user_factors, has_factor = _read_factors(run, name, USER, history.users)
        user_factors[~has_factor] = np.nan
        popular = Popular().fit(interactions_from_table(run.read_table(run_files.TRAIN), items=history.items))
        min_history = read_min_history(run, name)["min_history"]
        model = Cascade({name: model, "popular": popular}, min_history)
    config = load_config(run.path / run_files.CONFIG)
    return SavedModel(name, model, history, items, config, user_factors, Segments.load(run.path))


def open_item_side(run: RunFolder, name: str, items: IdMap) -> Recommender:
    """Return a run's model without its user factors and its users: it scores by fold-in.

    A model of the local engine comes with its fallback, one of Spark without.

    Args:
        items: the candidates of the run.
    """
    if not _is_spark_model(run, name):
        return models.load(run.path / run_files.model_folder(name))
    params = run.read_json(run_files.spark_params(name))
    if not params["implicit"]:
        raise RunFolderError(
            f"{run.path}: model {name} predicts ratings (implicit = false), which cannot be ranked by yet."
        )
    item_factors, has_factor = _read_factors(run, name, ITEM, items)
    kind: type[ALS] = ALS
    names = ["alpha", "reg", "nu", "beta"]
    if params.get("model") == "attributes":
        kind = Attributes
        names += ["ridge", "scheme", "fields"]
    return kind.from_factors(item_factors, has_factor, **{key: params[key] for key in names})


def read_min_history(run: RunFolder, name: str) -> dict[str, Any]:
    """Return from how many likes on a run's model scores users itself (``min_history``), and how that was chosen.

    ``groups``, the results of the trial, are there only where a trial chose it.
    """
    if _is_spark_model(run, name):
        return {"min_history": run.read_json(run_files.spark_params(name)).get("min_history", 0)}
    card = run.read_json(run_files.model_card(name))
    trial = card["record"] if card["kind"] == "cascade" else None
    return (trial or {}) | {"min_history": card.get("min_history", 0)}


def saved_models(run: RunFolder) -> list[str]:
    """Return the names of the models that a run has kept, in the order of its results."""
    names = run.read_json(run_files.METRICS)["models"]
    return [name for name in names if (run.path / run_files.model_folder(name)).is_dir()]


def default_model(metrics: dict[str, Any], names: Sequence[str]) -> str:
    """Return the model that is used when none is named: the best of ``names`` by the run's first metric.

    Baselines count only where there is nothing else. A model without a mean comes last; ties go to
    the first.

    Args:
        metrics: the contents of metrics.json.
    """
    primary = metrics["about"]["primary"]
    means = {name: metrics["models"][name][primary]["mean"] for name in names}
    candidates = [name for name in names if name not in BASELINES] or list(names)
    return max(candidates, key=lambda name: -np.inf if means[name] is None else means[name])


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has the card of a bundle."""
    return (folder / run_files.BUNDLE_CARD).exists()


def read_history_and_items(folder: RunFolder) -> tuple[Interactions, pd.DataFrame]:
    """Return the history in a run or a bundle, and its candidates with the columns of the items table."""
    items = folder.read_table(run_files.ITEMS)
    return interactions_from_table(folder.read_table(run_files.HISTORY), items=IdMap.of(items[ITEM])), items


def _open_bundle(path: str | Path) -> SavedModel:
    """Check every file of a bundle, and open it.

    Raises:
        RunFolderError: not a bundle, of an unknown format, or a file is missing or has changed.
    """
    folder = RunFolder.open(path)
    about = folder.read_json(run_files.BUNDLE_CARD)
    if about.get("format") != FORMAT:
        raise RunFolderError(
            f"{path}: bundle format {about.get('format')}, but this recsys reads {FORMAT}. Bundle the run again."
        )
    for name, expected in about["files"].items():
        if not (folder.path / name).is_file():
            raise RunFolderError(f"{path}: {name} is missing. Copy the bundle again, or bundle the run again.")
        if fingerprint(folder.path / name) != expected:
            raise RunFolderError(f"{path}: {name} was cut short or changed. Copy the bundle again.")
    history, items = read_history_and_items(folder)
    factors = None
    if (folder.path / run_files.BUNDLE_USER_FACTORS).exists():
        factors = np.load(folder.path / run_files.BUNDLE_USER_FACTORS, allow_pickle=False)
    config = load_config(folder.path / run_files.CONFIG)
    fitted = models.load(folder.path / run_files.model_folder(about["model"]))
    return SavedModel(about["model"], fitted, history, items, config, factors, Segments.load(folder.path))


def _is_spark_model(run: RunFolder, name: str) -> bool:
    return (run.path / run_files.spark_params(name)).exists()


def _read_factors(run: RunFolder, name: str, column: str, ids: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[ids, rank], zeros where there is no factor, and bool[ids]: there is one."""
    rank = run.read_json(run_files.spark_params(name))["rank"]
    file_name = run_files.item_factors(name) if column == ITEM else run_files.user_factors(name)
    table = pq.read_table(run.path / file_name, columns=[column, "features"]).combine_chunks()
    vectors = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, rank)
    rows = ids.rows(table[column].to_pandas().to_numpy())
    factors = np.zeros((len(ids), rank), dtype=np.float32)
    factors[rows] = vectors
    has_factor = np.zeros(len(ids), dtype=bool)
    has_factor[rows] = True
    return factors, has_factor
