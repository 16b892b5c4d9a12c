"""Read a saved model from a run of either engine or from a bundle, and choose the default model.

All code that reads a saved model uses this module. The files of a model are:

run of the local engine    model/NAME/model.json and its arrays
run on Spark               model/NAME/params.json, item_factors.parquet, user_factors.parquet
bundle                     model/NAME/model.json, and user_factors.npy if the run was on Spark
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import models, run_files
from recsys.array_files import read_factors, read_npy, require_arrays
from recsys.config import Config, check_model_name, load_config
from recsys.data.hashing import id_bits
from recsys.data.weigh import interactions_from_table
from recsys.errors import RunFolderError
from recsys.evaluation.testing.pick import pick_model
from recsys.features.segment_popularity import Segments
from recsys.fingerprint import fingerprint
from recsys.locations import Location
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Random
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import with_segment_rows, with_stored_factors
from recsys.models.content_collaborative import Attributes
from recsys.ranking import rank
from recsys.ranking.business_rules import CompiledRules
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder, damage_explained
from recsys.schema import ITEM, USER, canonical_int64
from recsys.types import Histories, IdMap, Interactions, TopK

FORMAT = 1
"""Version of the layout of a bundle."""


@dataclass(frozen=True)
class SavedModel:
    """A trained model with all that it needs to score users.

    Attributes:
        name: name of the model.
        model: the fitted model, with its fallback if it has one.
        history: the interactions of users with the candidates, from which users are scored.
        items: the candidates, one per row, in the order of ``history.items``, with the columns of
            the items table.
        config: the config of the run.
        user_factors: float32[users of ``history``, rank]. The row of a user without a factor is
            NaN. None if the model has no stored factors of users.
        segments: the segments of a run with the fallback "segment", otherwise None.
    """

    name: str
    model: Recommender
    history: Interactions
    items: pd.DataFrame
    config: Config
    user_factors: np.ndarray | None = None
    segments: Segments | None = None

    def histories(self, user_ids: Any) -> Histories:
        """Return the stored histories of some users, in the given order.

        The history of an unknown user is empty.

        Args:
            user_ids: ids, as an array, a Series or a list.
        """
        return self._all_histories.select(self.history.users.rows(user_ids))

    @cached_property
    def _all_histories(self) -> Histories:
        # A server asks for one user at a time, and the matrix of all users is made only once.
        return self.history.histories()

    def recommend(
        self,
        users: pd.DataFrame | Sequence[str] | np.ndarray,
        k: int,
        *,
        histories: Histories | None = None,
        candidates: np.ndarray | None = None,
        rules: CompiledRules | None = None,
    ) -> TopK:
        """Return the lists of the ``k`` best items of some users, in the order of ``users``.

        Seen items are left out if ``[recommend] exclude_seen`` of the run says so.

        Args:
            users: as for :meth:`recommender`.
            histories: the histories of these users, if they differ from the stored ones. The model
                then scores users by these histories, and stored factors are not used.
            candidates: bool[items], the items that may be listed. None: all.
            rules: rules from :func:`recsys.ranking.business_rules.compile_rules`. User i of the rules
                is row i of ``users``.
        """
        options = rank.RecommendOptions(
            exclude_seen=self.config.recommend.exclude_seen, candidates=candidates, rules=rules
        )
        return rank.recommend(
            self.recommender(users, use_stored_factors=histories is None),
            self.histories(_ids_of(users)) if histories is None else histories,
            k,
            options=options,
        )

    def recommender(
        self, users: pd.DataFrame | Sequence[str] | np.ndarray, *, use_stored_factors: bool = True
    ) -> Recommender:
        """Return the model with the stored factors and the segments of some users.

        The result scores histories of exactly these users, in this order.

        Args:
            users: the ids of the users, or a table with the column ``user_id`` and optionally columns
                that define segments, such as country. A segment from these columns takes precedence
                over that of the users table of the run.
            use_stored_factors: whether to use the stored factors of users, if there are any. If
                False, all factors are computed from the histories.
        """
        model = self.model
        if isinstance(model, Random):
            return model.with_user_ids(_hashed_ids(self.history.users, _ids_of(users)))
        if self.user_factors is not None and use_stored_factors:
            rows = self.history.users.rows(_ids_of(users))
            stored = np.where((rows >= 0)[:, None], self.user_factors[rows], np.float32(np.nan))
            model = with_stored_factors(model, stored)
        if self.segments is None:
            return model
        segment_rows = self.segments.of_users(_ids_of(users))
        if isinstance(users, pd.DataFrame) and not users.columns.intersection(self.segments.columns).empty:
            rows_by_column = self.segments.rows(users)
            segment_rows = np.where(rows_by_column >= 0, rows_by_column, segment_rows)
        return with_segment_rows(model, self.segments, segment_rows)


def _ids_of(users: pd.DataFrame | Sequence[str] | np.ndarray) -> Any:
    """Return the ids of users that are given by their ids or by a table of users."""
    return users[USER].to_numpy(dtype=object) if isinstance(users, pd.DataFrame) else users


def _hashed_ids(users: IdMap, user_ids: Any) -> np.ndarray:
    """Return ids as the run hashed them: as numbers, if the ids of its users are numbers.

    A text that is not a number, which is the id of a new user, is replaced by its hash.
    """
    ids = np.asarray(user_ids)
    if users.ids.dtype == object or ids.dtype.kind in "iu":
        return ids
    numbers, is_number = canonical_int64(ids)
    return np.where(is_number, numbers, id_bits(ids).view(np.int64))


def open_model(
    folder: str | Location | RunFolder,
    name: str | None = None,
    *,
    uses_history: bool = False,
    with_users: bool = True,
) -> SavedModel:
    """Read a model from a run folder or from a bundle, and return it with all that scoring needs.

    Args:
        folder: path or URI of the run folder or of the bundle, or the folder when it is open.
        name: name of the model. None: the model of the bundle, or for a run its pick
            (``recsys.evaluation.testing.pick``) among the models that it has kept.
        uses_history: if no name is given: whether to read the best model that is not a baseline,
            even if a baseline is better. A baseline is read only if the run has no other model.
        with_users: whether to read the histories and the stored factors of users. If False, the
            result has no users, and the caller supplies the histories.

    Raises:
        RunFolderError: the folder is not a complete run or bundle, it has no such model, or the
            model cannot be read here.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
    with damage_explained(run.location):
        if run.has(run_files.BUNDLE_CARD):
            saved = _open_bundle(run, with_users)
            if name and name != saved.name:
                raise RunFolderError(f"{run.location}: this is a bundle of model {saved.name}, not of {name}.")
        else:
            saved = _open_run(run, name, uses_history, with_users)
        if saved.segments is not None and saved.segments.scores.shape[1] != len(saved.history.items):
            raise RunFolderError(f"{run.location}: its segments have scores for other items. Run it again.")
    return saved


def _open_run(run: RunFolder, name: str | None, uses_history: bool, with_users: bool) -> SavedModel:
    """Read a model from a run folder. The other arguments are those of :func:`open_model`."""
    name = choose_saved_model(run, name, uses_history=uses_history)
    history, items = read_history_and_items(run, with_users=with_users)
    model = open_item_side(run, name, history.items)
    config = load_config(run.local(run_files.CONFIG))
    user_factors = None
    if _is_spark_model(run, name):
        user_factors, has_factor = _read_factors(run, name, USER, history.users)
        user_factors[~has_factor] = np.nan
        fallback = config.recommend.fallback_model
        if fallback != "none":
            train = interactions_from_table(run.read_table(run_files.TRAIN), items=history.items)
            min_history = read_min_history(run, name)["min_history"]
            model = Cascade({name: model, fallback: models.build(fallback, {}).fit(train)}, min_history)
    return SavedModel(name, model, history, items, config, user_factors, read_segments(run))


def open_item_side(run: RunFolder, name: str, items: IdMap) -> Recommender:
    """Return a model of a run without its users and their stored factors.

    It computes the factor of a user from the history (fold-in). A model of the local engine
    includes its fallback. A model of the Spark engine does not.

    Args:
        run: the run.
        name: the name of the model.
        items: the id map of the candidates of the run.

    Raises:
        RunFolderError: the model predicts ratings, or its files cannot be read.
    """
    if not _is_spark_model(run, name):
        return models.load(run.local(run_files.model_folder(name)), len(items))
    params = run.read_object(run_files.spark_params(name), implicit=bool, rank=int)
    if not params["implicit"]:
        raise RunFolderError(
            f"{run.location}: model {name} predicts ratings (implicit = false), which cannot be ranked by yet."
        )
    item_factors, has_factor = _read_factors(run, name, ITEM, items)
    kind: type[ALS] = ALS
    names = ["alpha", "reg", "nu", "beta"]
    if params.get("model") == "attributes":
        kind = Attributes
        names += ["ridge", "scheme", "fields"]
    return kind.from_factors(item_factors, has_factor, **{key: params[key] for key in names})


def read_min_history(run: RunFolder, name: str) -> dict[str, Any]:
    """Return a dict with ``min_history`` of a saved model, and with the trial that chose it.

    ``min_history`` is the smallest number of liked items with which a user is scored by the model
    and not by its fallback; 0 if there is no such number. If a trial on the local engine chose it,
    the dict also has ``metric`` and ``groups``, as
    :func:`recsys.evaluation.min_history.choose_min_history` returns them.

    Args:
        run: the run.
        name: the name of the model.

    Raises:
        RunFolderError: a file of the model is missing or damaged.
    """
    if _is_spark_model(run, name):
        return {"min_history": run.read_json(run_files.spark_params(name)).get("min_history", 0)}
    card = run.read_object(run_files.model_card(name), kind=str)
    trial = card["record"] if card["kind"] == "cascade" else None
    return (trial or {}) | {"min_history": card.get("min_history", 0)}


def describe_other_ranking(config: Config) -> str:
    """Return a sentence that says that a saved model ranks other items than the run that judged it.

    A run may judge lists of a part of the items (``[judge] candidates``). Lists from a saved model
    rank all items. The result is the empty string if the run ranked all items too.

    Args:
        config: the config of the run.
    """
    ranked = {"items": "", "train": "the items of train", "cold": "new items"}[config.candidates]
    if not ranked:
        return ""
    return (
        f"the run ranked {ranked} alone ([judge] candidates = '{config.candidates}'), these lists rank all items:"
        " leave some out with a file of rules (--rules)"
    )


def saved_models(run: RunFolder) -> list[str]:
    """Return the names of the models that are saved in a run, in the order of metrics.json.

    A model of metrics.json whose folder was not kept is left out.

    Raises:
        RunFolderError: metrics.json is missing or damaged.
        ValueError: the name of a model is not one that a folder can have.
    """
    names = run.read_object(run_files.METRICS, models=dict, about=dict)["models"]
    # The names become paths: one such as "../x" would lead out of the run.
    for name in names:
        check_model_name(name)
    return [name for name in names if run.has(run_files.model_folder(name))]


def choose_saved_model(run: RunFolder, name: str | None, *, uses_history: bool = False) -> str:
    """Return the name of the saved model to read: ``name``, or the default model of the run.

    Args:
        run: the run.
        name: the name that the user gives. None: the pick of the run, as in :func:`open_model`.
        uses_history: as in :func:`open_model`.

    Raises:
        RunFolderError: the run has no such model, or its models predict ratings.
    """
    require_run_of_lists(run.location, run.read_object(run_files.METRICS, about=dict)["about"].get("task"))
    names = saved_models(run)
    if not names or (name and name not in names):
        raise RunFolderError(f"{run.location}: no model {name or 'at all'} in it; it has {', '.join(names) or 'none'}.")
    return name or _default_model(run, names, uses_history)


def require_run_of_lists(folder: Location, task: str | None) -> None:
    """Check that the models of a run make lists.

    Args:
        folder: the folder of the run, for the message.
        task: ``[judge] task`` of the run.

    Raises:
        RunFolderError: the models of the run predict ratings.
    """
    if task == "ratings":
        raise RunFolderError(
            f"{folder}: its models predict ratings and make no lists ([judge] task = 'ratings'): recsys predict gives"
            " the ratings of a table of pairs."
        )


def _default_model(run: RunFolder, names: list[str], uses_history: bool) -> str:
    """Return the name of the model to use if the caller names none.

    It is the first of ``names`` if no model has a mean of the primary metric.

    Args:
        names: the saved models, in the order of the results.
        uses_history: as in :func:`open_model`.
    """
    pick = pick_model(run.read_json(run_files.METRICS), names)
    name = pick.name
    if uses_history and pick.model is not None:
        name = pick.model
    return name or names[0]


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has a ``bundle.json``, as bundles have and runs have not."""
    return (folder / run_files.BUNDLE_CARD).exists()


def read_history_and_items(
    folder: RunFolder,
    *,
    with_users: bool = True,
) -> tuple[Interactions, pd.DataFrame]:
    """Return the history of a run or a bundle, and the table of its candidates.

    The table has one row per candidate, in the order of ``history.items``, and the columns of the
    items table.

    Args:
        folder: the run or the bundle.
        with_users: whether to read the history. If False, the history has no users.

    Raises:
        RunFolderError: the candidates are not sorted by id, or an id occurs twice.
    """
    items = folder.read_table(run_files.ITEMS)
    item_ids = IdMap.from_ids(items[ITEM])
    if len(item_ids) != len(items) or list(item_ids.all_ids) != items[ITEM].tolist():
        raise RunFolderError(f"{folder.location / run_files.ITEMS}: damaged: its ids are not sorted, or occur twice.")
    if not with_users:
        return interactions_of_nobody(item_ids), items
    return interactions_from_table(folder.read_table(run_files.HISTORY), items=item_ids), items


def interactions_of_nobody(items: IdMap) -> Interactions:
    """Return interactions with these items, without any user and without any entry."""
    rows = np.empty(0, dtype=np.int32)
    values = np.empty(0, dtype=np.float32)
    return Interactions(IdMap.from_ids(), items, rows, rows, values, np.empty(0, dtype=np.int64))


def _open_bundle(folder: RunFolder, with_users: bool) -> SavedModel:
    """Read the model of a bundle, after a check of every file.

    Raises:
        RunFolderError: the folder is not complete, the format of the bundle is unknown, or a file
            is missing or has changed.
    """
    path = folder.location
    root = folder.local("")
    name = check_bundle(folder)
    about = folder.read_object(run_files.METRICS).get("about", {})
    require_run_of_lists(path, about.get("task"))
    history, items = read_history_and_items(folder, with_users=with_users)
    fitted = models.load(root / run_files.model_folder(name), len(items))
    factors = None
    if with_users and (root / run_files.BUNDLE_USER_FACTORS).exists():
        factors = read_npy(root / run_files.BUNDLE_USER_FACTORS)
        als = fitted.members.get(name)
        if not isinstance(als, ALS):
            raise RunFolderError(f"{path}: it has user factors, but model {name} has no item factors.")
        sizes = {"users": len(history.users), "rank": als.item_factors_.shape[1]}
        require_arrays({"user_factors": factors}, {"user_factors": "float32[users, rank] or NaN"}, sizes)
    config = load_config(root / run_files.CONFIG)
    return SavedModel(name, fitted, history, items, config, factors, Segments.load(root))


def check_bundle(folder: RunFolder) -> str:
    """Check every file of a bundle, and return the name of its model.

    Raises:
        RunFolderError: the format of the bundle is unknown; or a file is missing, has changed, is a
            link, or is not on the list in ``bundle.json``.
    """
    about = folder.read_object(run_files.BUNDLE_CARD)
    if about.get("format") != FORMAT:
        raise RunFolderError(
            f"{folder.location}: bundle format {about.get('format')}, but this recsys reads {FORMAT}. Bundle the run"
            " again."
        )
    about = folder.read_object(run_files.BUNDLE_CARD, model=str, files=dict)
    name = check_model_name(about["model"])
    _require_listed_files(folder.local(""), about["files"])
    return name


def _require_listed_files(folder: Path, sums: dict[str, str]) -> None:
    """Check that a bundle has exactly the files on its list, each with its fingerprint.

    Args:
        sums: file name -> SHA-256 of its content, as in bundle.json.

    Raises:
        RunFolderError: a file is missing, changed, not on the list, or a link.
    """
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    unlisted = sorted(names.keys() - sums.keys() - {run_files.BUNDLE_CARD, run_files.SUCCESS})
    if unlisted:
        raise RunFolderError(
            f"{folder}: holds {unlisted[0]}, which is not on the list of {run_files.BUNDLE_CARD}."
            " Remove it, or bundle the run again."
        )
    for name, expected in sums.items():
        if name not in names:
            raise RunFolderError(f"{folder}: {name} is missing. Copy the bundle again, or bundle the run again.")
        if names[name].is_symlink():
            raise RunFolderError(f"{folder}: {name} is a link. Copy the bundle again, with its files.")
        if fingerprint(names[name]) != expected:
            raise RunFolderError(f"{folder}: {name} was cut short or changed. Copy the bundle again.")


def read_segments(run: RunFolder) -> Segments | None:
    """Return the popularity by segment of a run or a bundle, or None if it has no segments.

    Raises:
        RunFolderError: a file of the segments is missing or damaged.
    """
    return Segments.load(run.local(run_files.SEGMENT_FOLDER).parent)


def _is_spark_model(run: RunFolder, name: str) -> bool:
    return run.has(run_files.spark_params(name))


def _read_factors(run: RunFolder, name: str, column: str, ids: IdMap) -> tuple[np.ndarray, np.ndarray]:
    """Return the stored factors, float32[ids, rank], and bool[ids]: whether each id has a factor.

    Rows of ids without a factor are zeros.

    Args:
        name: name of the model.
        column: the id column, which also says whether to read the factors of users or of items.
    """
    rank = run.read_object(run_files.spark_params(name), rank=int)["rank"]
    file_name = run_files.item_factors(name) if column == ITEM else run_files.user_factors(name)
    return read_factors(run.local(file_name), column, ids, rank)
