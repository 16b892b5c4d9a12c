"""The Spark engine: the steps of a run on a cluster.

The executors hold the log. The driver holds only tables and arrays with one row per item.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from recsys import run_files
from recsys.config import Config
from recsys.data.reading.sources import no_such_file
from recsys.engine import Engine, Library, Progress
from recsys.errors import ConfigError, InputError
from recsys.evaluation import pooling
from recsys.evaluation.beyond import Catalogue
from recsys.evaluation.groups import HISTORY
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.settings import EvaluationSettings, RunEvaluationSettings, baselines_of, describe_ranked
from recsys.evaluation.summary import Facts, Layout, document
from recsys.features.segment_popularity import Segments, describe_users, popularity_below_zero
from recsys.locations import Location, is_remote, local_path
from recsys.meter import Meter
from recsys.parameters import build_each
from recsys.recommender import FitsFromSums
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, RANK, SCORE, SOURCE, TIME, USER
from recsys.spark.costs import count_tasks
from recsys.spark.data import audit
from recsys.spark.data.read import SparkTables, read_tables
from recsys.spark.data.split import SparkSplit, fold_starts, split, write_and_read
from recsys.spark.errors import spark_errors_explained
from recsys.spark.evaluation import beyond, evaluate
from recsys.spark.evaluation.truth import Truth
from recsys.spark.features import attributes, segment_popularity
from recsys.spark.hadoop_folder import read_runs_through
from recsys.spark.item_blocks import FactorTable, factors_frame, pack_rows
from recsys.spark.ranking.business_rules import (
    RulesInRows,
    compile_rules_in_rows,
    exclude_denied_items,
    shortfall_reasons,
)
from recsys.spark.ranking.popularity import count_likes, count_likes_and_days, count_recent_likes
from recsys.spark.ranking.recommend import (
    ListSettings,
    add_histories,
    collect_seen_items,
    keep_long_histories,
    top_k,
)
from recsys.spark.ranking.scorers import (
    ModelScorer,
    RandomScorer,
    RepeatScorer,
    Scorer,
    SegmentScores,
    SharedScorer,
    factor_scorer,
)
from recsys.spark.session import SMALL_INPUT_BYTES, require_classic, session, small_input_settings
from recsys.spark.shipped import has_times
from recsys.spark.training.parameters import (
    SparkALSParameters,
    TrainingData,
    kind_module,
    model_parameters,
    summed_models,
)
from recsys.spark.training.sums import fit_from_sums
from recsys.spark.training.trainer import FittedALS
from recsys.spark.training.training_curve import TrainingCurve


@dataclass(frozen=True)
class FittedModel:
    """A trained model on Spark: its scorer, and the columns of users that the scorer reads.

    Attributes:
        scorer: computes the scores of all items for a user.
        users: columns (user int, features array<float>), the factor of each user who is scored by
            it. If the run has segments, also the column ``segment``. A user without a factor or
            without a segment has null there. None for a baseline, which needs no information on
            users.
    """

    scorer: Scorer
    users: DataFrame | None = None


class SparkEngine(Engine):
    """Runs a config on Spark, step by step. :func:`recsys.flow.run` calls the steps in order.

    Attributes:
        work: a folder inside the run folder for tables that later steps read. It is removed at the
            end of the run. Set by :meth:`open`, like ``spark``.
        spark: the session.
        tables: the checked tables. Set by :meth:`read_events`.
        split: the parts of the split. Set by :meth:`split_events`, like all attributes below,
            except the last two.
        items: the candidates in row order, with the columns of the items table.
        compiled_rules: the business rules, or None.
        truth: the relevant items and histories of the tested users.
        likes: float32[candidates], the number of users who like each candidate.
        recent_likes: float32[candidates], the same among the newest likes. None without times.
        segments: the popularity by segment of users, or None.
        catalogue: what the measures beyond accuracy need of the candidates.
        layout: the models, metrics and groups of metrics.json.
        user_groups: the groups of each user (:func:`recsys.spark.evaluation.beyond.user_groups`).
        lists: the lists of the model for which :meth:`recommend` was called last.
        shortfall: the reasons why these lists are short, with rules; otherwise None.
    """

    work: Location
    spark: SparkSession
    tables: SparkTables
    split: SparkSplit
    items: pd.DataFrame
    compiled_rules: RulesInRows | None
    truth: Truth
    likes: np.ndarray
    recent_likes: np.ndarray | None
    segments: Segments | None
    catalogue: Catalogue
    layout: Layout
    user_groups: DataFrame | None
    lists: DataFrame
    shortfall: DataFrame | None

    def __init__(
        self,
        config: Config,
        spark: SparkSession | None = None,
        library: Library | None = None,
    ) -> None:
        """Check the models and the rules of a config, before Spark starts.

        Args:
            config: the config of the run.
            spark: the session to use. None: :meth:`open` creates one from the config.
            library: makes and saves the models that are fitted from sums over users. Without it
                such models are refused.

        Raises:
            ConfigError: a model or a setting of ``[judge]`` does not run on Spark, a parameter of a
                model is not valid, or the rules cannot be read.
        """
        super().__init__(config)
        self.library = library
        problems = list(_judge_problems(config.judge))
        try:
            self.als_parameters = model_parameters(config)
        except ConfigError as error:
            problems.append(str(error))
        try:
            self.summed_models = _build_summed_models(config, library)
        except ConfigError as error:
            problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        self._given_session = spark
        self._seen_of_everyone: DataFrame | None = None
        self.trained: dict[tuple[Any, ...], Any] = {}
        self.fitted: dict[str, FittedModel] = {}
        self.judged: dict[str, DataFrame] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.exposures: dict[str, Any] = {}
        self.curves: dict[str, TrainingCurve] = {}

    @contextmanager
    def started(self, meter: Meter) -> Iterator[None]:
        """Start Spark, or use the given session.

        This comes before the run folder is made, which may be on a file system that only Spark
        reaches.

        Args:
            meter: measures the time and memory of the start.

        Raises:
            InputError: a table on this machine does not exist.
            MissingExtra, ConfigError: as for :func:`recsys.spark.session.session`.
        """
        self._require_inputs()
        small = self._given_session is None and _is_small_input(self.config.tables)
        with spark_errors_explained(self.config.out), meter.hop("start"):
            self.spark = self._given_session or session(self.config.spark, small=small)
            require_classic(self.spark)
            read_runs_through(self.spark)
            meter.further_costs = partial(count_tasks, self.spark)
            if self.config.spark.checkpoint_dir:
                self.spark.sparkContext.setCheckpointDir(self.config.spark.checkpoint_dir)
        with small_input_settings(self.spark) if small else nullcontext():
            yield

    @contextmanager
    def open(self, folder: RunFolder, meter: Meter, progress: Progress | None = None) -> Iterator[None]:
        """Prepare the folder of intermediate tables for the steps of one run.

        If Spark fails for a cause such as a full disk, an error of this package is raised, which
        says what to do (:mod:`recsys.spark.errors`).

        Args:
            folder: the run folder, where the steps write their files.
            meter: measures the time and memory of each step.
            progress: a function that is called with the progress of a step, or None.

        Raises:
            RunFolderError, InputError, ConfigError: Spark failed in the block for a cause that
                ``spark_errors_explained`` knows.
        """
        with super().open(folder, meter, progress), spark_errors_explained(self.config.out):
            self.work = folder.uri_of(run_files.WORK)
            yield
            folder.remove_work()

    def _require_inputs(self) -> None:
        """Raise InputError if a table of this machine does not exist, before Spark starts."""
        for location in self.config.tables:
            if not is_remote(location) and not local_path(location).exists():
                raise InputError(no_such_file(location))

    def read_events(self) -> None:
        """Read and check the tables, and write the refused rows and the data card."""
        data = self.config.data
        self.tables = read_tables(self.spark, data, self.work, self.config.events)
        attributes.require_items(self.als_parameters.values(), self.tables.item_table)
        self.tables.refusals.write_csv(self.folder.path / run_files.REFUSED_ROWS)
        card = audit.card(self.tables)
        self.folder.write_json(run_files.DATA_CARD, card | {"source": " + ".join(self.config.event_files)})

    def split_events(self) -> None:
        """Split the events, write the parts, and prepare what all models use.

        This includes the candidates, the rules, the relevant items, the counts of likes and the
        segments.

        Raises:
            InputError, ConfigError: the events cannot be split as the config says, or a rank, a
                rule or a column of segments is not valid.
        """
        config = self.config
        # A wrong column of segments is refused before the events are divided.
        described_users = None
        if config.recommend.segment:
            described_users = describe_users(self.tables.user_table, config.recommend.segment)
        rule = config.rule(timed=TIME in self.tables.events.columns)
        self.fold_starts = fold_starts(self.tables.events, rule)
        self.split = split(
            self.tables.events,
            rule,
            weighting=config.weigh,
            filters=config.filter,
            items=self.tables.items,
            work=self.work,
        )
        self.items = _candidates(self.split, self.tables.item_table)
        self.compiled_rules = None
        if self.rules is not None:
            self.compiled_rules = compile_rules_in_rows(self.rules, self.split.users, self.items)
            self.folder.write_json(run_files.RULES_CARD, self.compiled_rules.compiled.about)
        counts = self.split.about["train"]
        self.check_ranks(counts["users"], counts["items"])
        self.truth = Truth.from_split(
            self.split, config.judge, exclude_seen=config.recommend.exclude_seen, work=self.work
        )
        candidates = config.judge.candidates_for(rule.rule)
        ranked = describe_ranked(candidates, self.split.candidates, self.truth.ranked_items)
        self.split.about["ranked"] = ranked
        self._write_split()
        if self.split.timed:
            self.likes, days = count_likes_and_days(self.split.train, self.split.candidates)
            self.recent_likes = count_recent_likes(self.split.train, self.split.candidates, days=days)
        else:
            self.likes = count_likes(self.split.train, self.split.candidates)
            self.recent_likes = None
        self.catalogue = beyond.catalogue(self.split, self.tables, self.items[ITEM], self.likes, config.judge)
        self.segments = segment_popularity.fit_segments(self.split, described_users, config.recommend)
        if self.segments is not None:
            self.segments.save(self.folder.path)
        self._lay_out_metrics()

    @property
    def model_names(self) -> list[str]:
        """The names of all models of the run: first the baselines, then those of ``[models]``."""
        baselines = baselines_of(
            timed=self.recent_likes is not None,
            exclude_seen=self.config.recommend.exclude_seen,
            candidates=self.config.candidates,
        )
        return [*baselines, *(name for name in self.config.models if name not in baselines)]

    def fit(self, name: str) -> None:
        """Train one model and write it to the run folder.

        For ALS and ``attributes`` the factors are written, for other models the fitted arrays. A
        baseline needs no training here, because :meth:`split_events` has counted the likes, and
        nothing is written for it.

        Args:
            name: one of :attr:`model_names`.
        """
        if name in self.als_parameters:
            self.fitted[name] = self._fit_als(name, self.als_parameters[name])
        elif name in self.summed_models:
            self.fitted[name] = self._fit_summed(name, self.summed_models[name])
        elif name == "repeat":
            self.fitted[name] = FittedModel(RepeatScorer(name, popularity_below_zero(self.likes)))
        elif name == "random":
            self.fitted[name] = FittedModel(RandomScorer("random", seed=0, size=self.split.candidates))
        else:
            self.fitted[name] = FittedModel(SharedScorer(name, self._baseline_scores(name)))

    def recommend(self, name: str) -> None:
        """Compute and write the lists of a model for the tested users.

        With ``[recommend] everyone``, the lists of a model that is not a baseline are made for all
        users.

        Args:
            name: one of :attr:`model_names`, which has been fitted.
        """
        settings = self.config.recommend
        model = self.fitted[name]
        scorer = model.scorer
        tested = self.truth.tested.select("user")
        users = self._users_with_seen_items(all_users=self._lists_everyone(name))
        list_settings = ListSettings(settings.k, memory_mb=settings.memory_mb)
        self.shortfall = None
        allowed = self._allowed_items()
        if allowed is not None:
            judged_users = _join_factors(users.join(tested, "user", "left_semi"), model.users)
            judged_users = add_histories(judged_users, self.split.history, scorer.columns)
            self.shortfall = shortfall_reasons(judged_users, scorer, settings.k)
            scorer = scorer.restricted_to(allowed)
        if self.compiled_rules is not None:
            rules = self.compiled_rules.compiled
            list_settings = replace(list_settings, quotas=tuple(rules.quotas))
            users = exclude_denied_items(users, rules.denied, self.compiled_rules.users)
        users = add_histories(_join_factors(users, model.users), self.split.history, scorer.columns)
        lists = top_k(users, scorer, list_settings)
        self.lists = write_and_read(lists, self.work / f"lists-{name}")
        with_ids = _with_ids(self.lists, self.split).sortWithinPartitions(USER, RANK)
        with_ids.write.parquet(_uri(self.folder, run_files.topk(name)))

    def _lists_everyone(self, name: str) -> bool:
        """Return whether a model makes lists for all users, and not only for the tested ones."""
        return self.config.recommend.everyone and self.fitted[name].users is not None

    def _allowed_items(self) -> np.ndarray | None:
        """Return bool[candidates], the items that lists may name; None: all."""
        ranked_items = self.truth.ranked_items
        if self.compiled_rules is None:
            return ranked_items
        allowed = self.compiled_rules.compiled.candidates
        if ranked_items is None:
            return allowed
        return allowed & ranked_items

    def judge(self, name: str) -> None:
        """Compute the metrics of the tested users' lists, and store one row per user and model.

        These are the metrics of the config and the measures beyond accuracy.

        Args:
            name: the model for which :meth:`recommend` was called just before.
        """
        k = self.config.recommend.k
        columns = self.layout.columns[len(self.layout.metrics) :]
        further = (beyond.columns_of(self.catalogue, self.truth, k), columns)
        per_user = evaluate.per_user(self.lists, self.truth, k, further=further)
        listed = F.col("n_listed")
        reason = evaluate.shortfall(listed, k, self.split.candidates)
        if self.shortfall is not None:
            per_user = per_user.join(self.shortfall, "user")
            reason = F.when(listed >= k, "none").otherwise(F.col("shortfall"))
        per_user = per_user.withColumn("shortfall", reason).drop("user")
        # Spark counts while it writes.
        counts = Observation()
        per_user = per_user.observe(counts, *evaluate.count_columns(self.config.judge, k))
        self.judged[name] = write_and_read(per_user, self.work / f"judged-{name}")
        lists = self.lists
        if self._lists_everyone(name):
            lists = lists.join(self.truth.tested.select("user"), "user", "left_semi")
        self.exposures[name] = beyond.exposure(lists, self.split.candidates, self.truth.ranked_items)
        self.counts[name] = evaluate.counts_of_sums(counts.get) | self.truth.counts

    def summarise(self) -> dict[str, Any]:
        """Write the results per user, metrics.json and the training curves, and return the metrics.

        The result is the content of metrics.json, a dict.
        """
        config = self.config
        _write_per_user(self.judged, self.layout, self.folder)
        _write_curves(self.curves, self.folder)
        sums = evaluate.sums(
            self.judged, self.layout, resamples=config.judge.resamples, seed=config.seed, membership=self.user_groups
        )
        definitions = {str(metric): metric.definition for metric in parse_all(config.judge.metrics)}
        metrics = document(self.layout, sums, Facts("spark", definitions, self.counts, self.exposures))
        self.folder.write_json(run_files.METRICS, metrics)
        return metrics

    def pool_folds(self, folders: list[RunFolder]) -> dict[str, Any]:
        """Write the mean of each user's values over the folds of a backtest, and return the summary.

        The summary is a dict with the number of folds, the means and intervals of each model, and
        the differences from the baseline (:func:`recsys.evaluation.pooling.describe_pooled`).

        Args:
            folders: the run folder of each fold.
        """
        judging = self.config.judge
        layout = pooling.pooled_layout(self.model_names, judging)
        tables = [self.spark.read.parquet(_uri(folder, run_files.PER_USER)) for folder in folders]
        # An undefined value is NaN in the tables, and a mean leaves out what is null.
        means = [F.avg(F.nanvl(F.col(f"`{metric}`"), F.lit(None))).alias(metric) for metric in layout.metrics]
        columns = [pooling.MODEL, USER, *(f"`{metric}`" for metric in layout.metrics)]
        every_fold = reduce(DataFrame.unionByName, [table.select(columns) for table in tables])
        every_fold.groupBy(pooling.MODEL, USER).agg(*means).write.parquet(_uri(self.folder, run_files.POOLED_PER_USER))
        pooled = self.spark.read.parquet(_uri(self.folder, run_files.POOLED_PER_USER))
        by_model = {name: pooled.where(F.col(pooling.MODEL) == name) for name in layout.models}
        sums = evaluate.sums(by_model, layout, resamples=judging.resamples, seed=self.config.seed)
        return pooling.describe_pooled(layout, sums, "spark", len(folders))

    def _fit_als(self, name: str, parameters: SparkALSParameters) -> FittedModel:
        """Train one model and write it.

        A user is scored by the user's factor. A user without a factor is scored by the segment, and
        a user without both is scored by the fallback.
        """
        data = TrainingData(
            self.split.train,
            self.split.candidates,
            self.items,
            self.likes,
            self.work / name,
            self.config.spark.item_block_mb,
            self.trained,
        )
        als = kind_module(parameters.kind).fit_model(parameters, data)
        if als.curve:
            self.curves[name] = als.curve
        _write_factors(als, self.split, self.folder, name)
        min_history = self._min_history_of(als)
        card = {"model": parameters.kind, "min_history": min_history} | asdict(parameters)
        self.folder.write_json(run_files.spark_params(name), card)
        users = keep_long_histories(als.users, self.split.history, min_history)
        segment_scores = None
        if self.segments is not None:
            users = users.join(segment_popularity.segments_of_users(self.split, self.segments), "user", "full")
            segment_scores = SegmentScores(self.segments.scores, self.segments.row_sources)
        scorer = factor_scorer(name, als.items, self._fallback_scorer(), segment_scores)
        return FittedModel(scorer, users)

    def _fallback_scorer(self) -> SharedScorer | None:
        """Return the scores for users whom a model cannot score and who have no segment."""
        fallback = self.config.recommend.fallback_model
        if fallback == "none":
            return None
        return SharedScorer(fallback, self._baseline_scores(fallback))

    def _fit_summed(self, name: str, model: FitsFromSums) -> FittedModel:
        """Fit a model from sums over users, and write it as the local engine does.

        No trial chooses ``min_history``: unless it is a number, the model scores all users it can.
        """
        timed = has_times(self.split.train)
        fit_from_sums(model, self.split.train, self.likes, timed=timed)
        settings = self.config.recommend
        min_history = 0
        if settings.fallback != "none" and isinstance(settings.min_history, int):
            min_history = settings.min_history
        fallback = self._fallback_scorer()
        saved_fallback = None
        if fallback is not None:
            saved_fallback = (fallback.name, fallback.scores)
        if self.library is not None:
            path = self.folder.path / run_files.model_folder(name)
            self.library.save(name, model, saved_fallback, min_history, path)
        users = self.split.users.select(F.col("row").alias("user"))
        segment_scores = None
        if self.segments is not None:
            users = segment_popularity.segments_of_users(self.split, self.segments)
            segment_scores = SegmentScores(self.segments.scores, self.segments.row_sources)
        scorer = ModelScorer(
            name,
            model,
            self.likes > 0,
            has_times(self.split.history),
            min_history,
            fallback,
            segment_scores,
        )
        return FittedModel(scorer, users)

    def _min_history_of(self, als: FittedALS) -> int:
        """Return the smallest number of liked items with which a user is scored by the factor.

        It is ``[recommend] min_history`` if that is a number. Otherwise it is the number that was
        chosen during training, or 0 if none was. It is 0 without a fallback. It is also 0 if lists
        rank new items, of which training says nothing.
        """
        settings = self.config.recommend
        if settings.fallback == "none":
            return 0
        if isinstance(settings.min_history, int):
            return settings.min_history
        if self.config.candidates == "cold" or als.curve is None or als.curve.short_histories is None:
            return 0
        return int(als.curve.short_histories["min_history"])

    def _baseline_scores(self, name: str) -> np.ndarray:
        """Return the number of likes of each candidate, or of recent likes for "recent".

        Without times, "recent" has the same numbers as "popular".
        """
        if name == "recent" and self.recent_likes is not None:
            return self.recent_likes
        return self.likes

    def _users_with_seen_items(self, *, all_users: bool) -> DataFrame:
        """Return (user, user_id, seen), the items that the lists of each user leave out.

        The table is computed and written once, and then read for every model.

        Args:
            all_users: whether to return all users, or only the tested users.
        """
        if not all_users:
            seen = F.sort_array(F.transform("history", lambda entry: entry["item"]))
            if not self.config.recommend.exclude_seen:
                seen = F.lit(None)
            return self.truth.tested.select("user", USER, F.coalesce(seen, F.array().cast("array<int>")).alias("seen"))
        if self._seen_of_everyone is None:
            history = self.split.history
            if not self.config.recommend.exclude_seen:
                history = history.limit(0)
            users = self.split.users.select(F.col("row").alias("user"), USER)
            seen = collect_seen_items(history, users)
            self._seen_of_everyone = write_and_read(seen, self.work / "seen-of-everyone")
        return self._seen_of_everyone

    def _lay_out_metrics(self) -> None:
        """Set the layout of metrics.json, and the group of each user.

        The layout is the list of models, metrics and groups.
        """
        groups, self.user_groups = beyond.user_groups(self.spark, self.tables, self.config.judge)
        self.layout = Layout(
            tuple(self.model_names),
            tuple(map(str, parse_all(self.config.judge.metrics))),
            self.config.judge.baseline_among(self.model_names),
            (HISTORY, *(group.grouping for group in groups)),
            tuple(group.grouping for group in self.catalogue.groups),
            self.catalogue.measures,
        )

    def _write_split(self) -> None:
        """Write the parts of the split, and the candidates with the columns of the items table."""
        self.folder.write_json(run_files.SPLIT_CARD, self.split.about)
        self.folder.write_table(run_files.ITEMS, self.items)
        for name, pairs in self.split.by_id.items():
            pairs.write.parquet(_uri(self.folder, run_files.split_part(name)))
        if "history" not in self.split.by_id:
            self._copy_train()

    def _copy_train(self) -> None:
        """Write the table of train a second time, as the history, without computing it again."""
        train = self.folder.uri_of(run_files.TRAIN)
        history = self.folder.uri_of(run_files.HISTORY)
        if isinstance(train, Path) and isinstance(history, Path):
            _link(train, history)
        else:
            self.spark.read.parquet(str(train)).write.parquet(str(history))


def _is_small_input(locations: list[str]) -> bool:
    """Return whether all tables are on this machine, and together are small."""
    if any(map(is_remote, locations)):
        return False
    paths = map(local_path, locations)
    files = (file for path in paths for file in [path, *path.rglob("*")] if file.is_file())
    return sum(file.stat().st_size for file in files) <= SMALL_INPUT_BYTES


def _judge_problems(judge: RunEvaluationSettings) -> Iterator[str]:
    """Yield what ``[judge]`` has that does not run on Spark, one message each."""
    if judge.sampled is not None:
        yield "[judge] sampled ranks sampled candidates on the local engine only: remove it, or set engine = 'local'."
    if judge.score_metrics:
        yield (
            f"[judge] metrics: {judge.score_metrics[0]} needs the scores of all candidates, which the local engine"
            " alone computes: remove it, or set engine = 'local'."
        )
    if judge.cold_start and judge.cold_start != EvaluationSettings().cold_start:
        yield "[judge] cold_start is a curve of the local engine only: remove it, or set engine = 'local'."


def _build_summed_models(config: Config, library: Library | None) -> dict[str, FitsFromSums]:
    """Return a dict: name -> unfitted model of each configured model that is fitted from sums.

    Raises:
        ConfigError: a parameter is not valid, or there is no library. The message names all models.
    """
    settings = summed_models(config)

    def build(name: str) -> FitsFromSums:
        if library is None:
            raise ConfigError(f"model '{name}': this engine was made without a library of models.")
        model = library.build(*settings[name])
        # Parameters with which no log can be summed are refused before Spark starts.
        model.prepare_sums(np.zeros(0, dtype=np.int64))
        return model

    return build_each(build, settings)


def _join_factors(users: DataFrame, factors: DataFrame | None) -> DataFrame:
    """Return the users with the columns of ``factors``, null for a user who is not in it.

    Without ``factors`` the users are returned unchanged.
    """
    if factors is None:
        return users
    return users.join(factors, "user", "left")


def _write_per_user(judged: dict[str, DataFrame], layout: Layout, folder: RunFolder) -> None:
    metrics = [f"`{column}`" for column in layout.columns]
    columns = [USER, "n_relevant", "n_history", "shortfall", *metrics]
    tables = [frame.select(F.lit(name).alias("model"), *columns) for name, frame in judged.items()]
    reduce(DataFrame.unionByName, tables).write.parquet(_uri(folder, run_files.PER_USER))


def _write_factors(model: FittedALS, parts: SparkSplit, folder: RunFolder, name: str) -> None:
    """Write user_factors.parquet and item_factors.parquet: (external id, features)."""
    spark = model.users.sparkSession
    users = model.users.join(parts.users.withColumnRenamed("row", "user"), "user").select(USER, "features")
    users.write.parquet(_uri(folder, run_files.user_factors(name)))
    if isinstance(model.items, FactorTable):
        factors = model.items.table
    else:
        rows_with_factor = np.flatnonzero(~np.isnan(model.items).all(axis=1))
        packed = pack_rows(rows_with_factor, model.items[rows_with_factor])
        factors = factors_frame(packed, spark, model.items.shape[1], "item")
    items = factors.withColumnRenamed("item", "row").join(parts.items, "row")
    items.select(ITEM, "features").write.parquet(_uri(folder, run_files.item_factors(name)))


def _write_curves(curves: dict[str, TrainingCurve], folder: RunFolder) -> None:
    """Write training.json and watched.json.

    training.json has the objective of each model after each sweep, as in a local run. watched.json
    has the results on the validation users, and is written if there are any.
    """
    if curves:
        folder.write_json(run_files.TRAINING, {name: curve.losses for name, curve in curves.items()})
    validation = {
        name: {
            "measure": curve.measure,
            "users": curve.validation_users,
            "quality": curve.quality,
            "short_histories": curve.short_histories,
        }
        for name, curve in curves.items()
        if curve.validation_users
    }
    if validation:
        folder.write_json(run_files.WATCHED, validation)


def _with_ids(frame: DataFrame, parts: SparkSplit) -> DataFrame:
    users = parts.users.withColumnRenamed("row", "user")
    items = F.broadcast(parts.items.withColumnRenamed("row", "item"))
    return frame.join(users, "user").join(items, "item").select(USER, ITEM, RANK, SCORE, SOURCE)


def _candidates(parts: SparkSplit, table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the ids of the candidates in row order, with the columns of the items table."""
    candidates = pd.DataFrame({ITEM: parts.item_ids[: parts.candidates]})
    if table is None:
        return candidates
    return candidates.merge(table, on=ITEM, how="left")


def _link(source: Path, target: Path) -> None:
    """Make the folder ``target`` with hard links to the files of ``source``.

    Files are copied if the file system has no hard links.
    """

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copyfile(a, b)

    shutil.copytree(source, target, copy_function=link)


def _uri(folder: RunFolder, name: str) -> str:
    return str(folder.uri_of(name))
