"""Lists for any number of users on Spark, from a run of either engine or from a bundle.

Factor models that Spark trained are scored where their factors are (:mod:`recsys.spark.saved`).
Any other model is sent to the executors as files, without its users. Each Python worker opens it
once, with the reader of ``recsys recommend``, and scores batches of users whose histories come with
them.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import run_files
from recsys.array_files import read_npy
from recsys.config import Config, load_config
from recsys.errors import ConfigError
from recsys.features.segment_popularity import Segments
from recsys.locations import Location
from recsys.models.collaborative.popular import Random
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import with_segment_rows, with_stored_factors
from recsys.models.own_model import allow_own_models
from recsys.ranking import rank
from recsys.ranking.business_rules import CompiledRules, compile_rules
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder
from recsys.saved.open_model import SavedModel, choose_saved_model, open_model
from recsys.schema import ITEM, RANK, SCORE, SOURCE, USER
from recsys.spark.ranking.scorers import histories_of_batch
from recsys.types import SHORTFALL, IdMap, select_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Observation, SparkSession

    from recsys.spark.saved import ListRequest, SavedSparkModel


@dataclass(frozen=True)
class ShippedModel:
    """A model that was fitted elsewhere and is sent to the executors of a Spark session.

    Attributes:
        name: name of the model.
        folder: name of the folder with the files of the model on the executors.
        source: the run or bundle.
        history: the columns ``user`` (the id), ``item`` (the row in ``items``), ``value`` and
            ``timestamp``.
        items: the candidates, one per row, with the columns of the items table.
        segments: the segments of the run, or None.
        user_segments: the columns ``key`` (the user id as text) and ``segment`` (a row of
            ``segments``), or None.
        own_models: whether the model may be of a class of the user's own.
    """

    name: str
    folder: str
    source: RunFolder
    history: DataFrame
    items: pd.DataFrame
    segments: Segments | None
    user_segments: DataFrame | None
    own_models: bool

    @property
    def users(self) -> DataFrame:
        """The users with a history, as a DataFrame with the one column ``user`` (the id)."""
        return self.history.select("user").distinct()


@dataclass(frozen=True)
class ExecutorSettings:
    """The settings with which an executor makes lists with a shipped model.

    Attributes:
        name: name of the model.
        lists: the settings of the lists: their length, seen items, the fallback, memory.
        timed: whether any entry of any history has a known time.
        own_models: whether the model may be of a class of the user's own.
        rules: the rules, compiled for the users of ``denied_users``, or None.
        denied_users: the id map of the users to whom rules deny items.
    """

    name: str
    lists: ListRequest
    timed: bool
    own_models: bool
    rules: CompiledRules | None
    denied_users: IdMap


@dataclass(frozen=True)
class SparkLists:
    """Lists as a Spark table, which is computed when it is written.

    Attributes:
        table: the columns user_id, item_id, rank (from 1), score and source.
        rules: what the rules removed, and their unknown ids, as in rules.json; empty without rules.
        observation: counts the users by the reason why their list is short, while the table is
            written. None for a factor model.
    """

    table: DataFrame
    rules: dict[str, Any]
    observation: Observation | None = None

    def shortfall(self) -> dict[str, int]:
        """Return a dict: reason -> number of users whose list is short for this reason.

        The reasons are those of ``types.SHORTFALL``. The dict is empty for a model whose factors
        Spark trained. Otherwise write the table first: the function waits until that is done.
        """
        if self.observation is None:
            return {}
        counts = self.observation.get
        return {reason: counts[reason] for reason in SHORTFALL[1:] if counts[reason]}


def open_on_spark(
    spark: SparkSession, folder: str | Location, name: str | None = None, *, own_models: bool = False
) -> SavedSparkModel | ShippedModel:
    """Open a model of a run or of a bundle on Spark.

    The result is a SavedSparkModel if Spark trained the factors of the model. For any other model
    it is a ShippedModel, whose files have been sent to the executors.

    Args:
        spark: the session.
        folder: the folder of the run or of the bundle.
        name: name of the model. None: as in :func:`recsys.saved.open_model.open_model`.
        own_models: whether the model may be of a class of the user's own, whose code then runs on
            the executors.

    Raises:
        RunFolderError: the folder is not a complete run or bundle, it has no such model, or the
            model cannot be read.
        ConfigError: the model, or one of its members, is ``random``.
    """
    from recsys.spark.saved import open_spark_run, read_history, read_user_segments
    from recsys.spark.shipped import ship_folder

    run = RunFolder.open(folder)
    if not run.has(run_files.BUNDLE_CARD):
        name = choose_saved_model(run, name)
        if run.has(run_files.spark_params(name)):
            return open_spark_run(spark, run, name)
    with own_models_allowed(own_models):
        saved = open_model(run, name, with_users=False)
    if _draws_at_random(saved.model):
        raise ConfigError(
            f"model '{saved.name}' draws at random by the number of a user in one call, which no"
            " executor knows: use `recsys recommend`, or another --model."
        )
    with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
        copy_without_users(run, saved, Path(scratch))
        shipped = ship_folder(spark, Path(scratch))
    return ShippedModel(
        saved.name,
        shipped,
        run,
        history=read_history(spark, run, saved.items),
        items=saved.items,
        segments=saved.segments,
        user_segments=read_user_segments(spark, run, saved.segments),
        own_models=own_models,
    )


def own_models_allowed(is_allowed: bool) -> Any:
    """Return a context manager in which models of the user's own classes may be opened, or may not.

    Args:
        is_allowed: whether they may (:func:`recsys.models.own_model.allow_own_models`).
    """
    return allow_own_models() if is_allowed else nullcontext()


def read_config(folder: str | Location) -> Config:
    """Return the config of the run or bundle in a folder.

    Raises:
        RunFolderError: the folder is not a complete run or bundle.
    """
    return load_config(RunFolder.open(folder).local(run_files.CONFIG))


def copy_without_users(source: RunFolder, saved: SavedModel, target: Path) -> None:
    """Copy the files of one model into a folder that ``open_model(…, with_users=False)`` can read.

    Data of users is not copied: neither histories, nor factors of users, nor their segments.

    Args:
        source: the run or bundle.
        saved: the model, opened from ``source``.
        target: an empty folder.
    """
    (target / run_files.ITEMS).parent.mkdir()
    for name in (run_files.ITEMS, run_files.CONFIG, run_files.METRICS):
        shutil.copyfile(source.local(name), target / name)
    model = run_files.model_folder(saved.name)
    shutil.copytree(source.local(model), target / model)
    if saved.segments is not None:
        replace(saved.segments, users=saved.segments.users.head(0)).save(target)
    (target / run_files.SUCCESS).touch()


def _draws_at_random(model: Recommender) -> bool:
    return isinstance(model, Random) or any(map(_draws_at_random, model.members.values()))


def recommend(
    saved: SavedSparkModel | ShippedModel,
    request: ListRequest,
    *,
    users: DataFrame | None = None,
    late_events: DataFrame | None = None,
) -> SparkLists:
    """Make the lists of users with a saved model, and return them as a Spark table.

    The lists of a ShippedModel are those of ``recsys recommend`` for the same histories.

    Args:
        saved: what :func:`open_on_spark` returns.
        request: the settings of the lists.
        users: a table with the column user_id, the users to make lists for. None: all users with a
            history. Columns that define segments take precedence over the run's users table.
        late_events: a table with the columns user_id, item_id, value and optionally timestamp: events
            that came after the run. They are added to the histories.

    Raises:
        ConfigError: a rule names a field that the items table does not have.
        InputError: a time in the rules is neither an ISO date nor a number.
    """
    from recsys.spark import saved as factor_model
    from recsys.spark.shipped import add_stored_factors, has_times, list_users, observe_shortfall

    if not isinstance(saved, ShippedModel):
        return SparkLists(*factor_model.recommend(saved, request, users=users, late_events=late_events))
    history = saved.history
    changed = None
    if late_events is not None:
        history, changed = factor_model.add_late_events(history, late_events, saved.items)
    listed = history.select("user").distinct()
    if users is not None:
        listed = users.select(users[USER].alias("user")).distinct()
    if request.fallback:
        listed = factor_model.add_segments(listed, saved.segments, saved.user_segments, users)
    stored = _read_stored_factors(saved.source)
    if stored is not None:
        listed = add_stored_factors(listed, *stored, changed)
    rules = None
    denied_users = IdMap.from_ids()
    if request.rules is not None:
        denied_users = IdMap.from_ids(list(request.rules.deny_for))
        rules = compile_rules(request.rules, denied_users, IdMap.from_ids(saved.items[ITEM]), saved.items)
    batch_request = ExecutorSettings(
        saved.name,
        request,
        timed=has_times(history),
        own_models=saved.own_models,
        rules=rules,
        denied_users=denied_users,
    )
    lists = list_users(listed, history, saved.folder, partial(list_batch, batch_request))
    lists, observation = observe_shortfall(lists, SHORTFALL)
    about = {} if rules is None else rules.about
    return SparkLists(factor_model.with_ids(lists, saved.items), about, observation)


def _read_stored_factors(source: RunFolder) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the user ids and the user factors that a bundle of a Spark run stores.

    The result is None for any other model.
    """
    path = source.local(run_files.BUNDLE_USER_FACTORS)
    if not path.exists():
        return None
    return IdMap.from_ids(source.read_table(run_files.HISTORY, [USER])[USER]).all_ids, read_npy(path)


def list_batch(request: ExecutorSettings, folder: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the lists of a batch of users, one row per listed item. Executors call this function.

    The columns are user, item (a row), rank, score, source, and shortfall (the reason why the list
    of the user is short). A user without a list has one row, in which only user and shortfall are
    not null.

    Args:
        request: the settings.
        folder: the folder that :func:`copy_without_users` wrote.
        batch: the columns of :func:`recsys.spark.shipped.list_users`.
    """
    saved = _open_once(folder, request.name, request.own_models)
    histories = histories_of_batch(batch, len(saved.items), request.timed)
    options = rank.RecommendOptions(
        exclude_seen=request.lists.exclude_seen,
        rules=_rules_of_batch(request, batch),
        memory_mb=request.lists.memory_mb,
    )
    model = _model_of_batch(saved, batch, fallback=request.lists.fallback)
    lists = rank.recommend(model, histories, request.lists.k, options=options)
    row, position = np.nonzero(lists.items >= 0)
    # A user without a list has one row, so that the reason is counted.
    without_list = np.flatnonzero((lists.items < 0).all(axis=1))
    is_item = pa.array(np.repeat([True, False], [len(row), len(without_list)]))
    row = np.concatenate([row, without_list])
    position = np.concatenate([position, np.zeros(len(without_list), dtype=np.int64)])
    sources = np.array(lists.sources, dtype=object)[lists.source[row, position]]
    columns = {
        "item": pa.array(lists.items[row, position]),
        RANK: pa.array((position + 1).astype(np.int32)),
        SCORE: pa.array(lists.scores[row, position]),
        SOURCE: pa.array(sources, type=pa.string()),
    }
    arrays = [pc.if_else(is_item, column, None) for column in columns.values()]
    reasons = pa.array(np.array(SHORTFALL, dtype=object)[lists.shortfall[row]], type=pa.string())
    return pa.RecordBatch.from_arrays(
        [batch.column("user").take(pa.array(row)), *arrays, reasons], names=["user", *columns, "shortfall"]
    )


@lru_cache(maxsize=1)
def _open_once(folder: Path, name: str, own_models: bool) -> SavedModel:
    """Open the model in a folder, and keep it for later calls.

    So a Python worker opens the model only for its first batch.
    """
    with own_models_allowed(own_models):
        return open_model(folder, name, with_users=False)


def _model_of_batch(saved: SavedModel, batch: pa.RecordBatch, *, fallback: bool) -> Recommender:
    """Return the model with the stored factors and the segments of the users of a batch.

    The result scores histories of exactly these users, in their order.
    """
    model = saved.model
    if not fallback and isinstance(model, Cascade):
        name, first = next(iter(model.members.items()))
        model = model.with_members({name: first})
    if "features" in batch.schema.names:
        features = batch.column("features")
        is_stored = features.is_valid().to_numpy(zero_copy_only=False)
        vectors = features.flatten().to_numpy(zero_copy_only=False)
        if len(vectors):
            vectors = vectors.reshape(np.count_nonzero(is_stored), -1)
            factors = np.full((batch.num_rows, vectors.shape[1]), np.nan, dtype=np.float32)
            factors[is_stored] = vectors
            model = with_stored_factors(model, factors)
    if saved.segments is not None and fallback:
        segment_rows = pc.fill_null(batch.column("segment"), -1).to_numpy(zero_copy_only=False)
        model = with_segment_rows(model, saved.segments, segment_rows.astype(np.int64))
    return model


def _rules_of_batch(request: ExecutorSettings, batch: pa.RecordBatch) -> CompiledRules | None:
    """Return the rules with the denied items of the users of a batch, in their order."""
    if request.rules is None:
        return None
    rows = request.denied_users.rows(batch.column("user").cast(pa.string()).to_pandas())
    return replace(request.rules, denied=select_rows(request.rules.denied, rows))
