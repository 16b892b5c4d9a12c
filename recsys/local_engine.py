"""The local engine: it runs everything in this process, with pandas, NumPy and compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from recsys import models, run_files
from recsys.config import Config
from recsys.data import weigh
from recsys.data.card import data_card
from recsys.data.reading.read import Tables, read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import fold_starts
from recsys.engine import Engine
from recsys.evaluation import cold_start, pooling
from recsys.evaluation.beyond import Catalogue, extend
from recsys.evaluation.cold_start import ColdStart
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.groups import assign_columns
from recsys.evaluation.judging.full_ranking import FullRanking, evaluate_scores
from recsys.evaluation.settings import BASELINES, baselines_of, describe_ranked
from recsys.evaluation.summary import summarise, summarise_sampled
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.features.reviews import add_review_columns, add_reviewed_items, reviews_of_train
from recsys.features.segment_popularity import Segments, fit_segments
from recsys.logging import running_step
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.short_histories import try_short_histories
from recsys.models.combining.wrappers import insert_segment_fallback, with_user_ids
from recsys.parameters import build_each
from recsys.ranking.business_rules import CompiledRules, compile_rules
from recsys.ranking.rank import RecommendOptions, recommend, topk_table
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME, USER
from recsys.types import Evaluation, Features, Histories, IdMap, Interactions, Split, TopK

BLENDS = ("blend", "hybrid")
"""Kinds of model that weigh their members by the length of a history. They need no
``min_history``.
"""


HOLD_OUT = {
    "time": "latest",
    "last": "newest",
    "files": "newest",
    "fraction": "random",
    "users": "random",
    "items": "random",
}
"""Split rule -> the default of a hybrid's parameter ``hold_out``.

A hybrid hides some likes of train and chooses its members by them. The hidden likes should resemble
the test: the latest in the log, the newest of each user, or random ones.
"""


@dataclass(frozen=True, eq=False)
class Audience:
    """The users for whom lists are made together.

    Attributes:
        users: an id map that contains these users, and maybe others.
        rows: int64[m], the row of each of these users in ``users``.
        histories: the histories of the m users, in the order of ``rows``.
        rules: the business rules, compiled for ``users``. None if the run has none.
    """

    users: IdMap
    rows: np.ndarray
    histories: Histories
    rules: CompiledRules | None


class LocalEngine(Engine):
    """The engine that runs a config in this process.

    Attributes:
        tables: the checked tables. Set by :meth:`read_events`.
        split: the parts of the log. Set by :meth:`split_events`, like all that follow up to
            ``models``.
        item_features: the features of the candidates, or None without an items table.
        truth: what lists are judged against.
        segments: the popularity by segment of users. None unless it is the fallback.
        catalogue: what the metrics beyond accuracy need to know of the items.
        tested: the users of the test.
        untested: the other users with a history. None unless the config asks for their lists.
        cold_start_curve: the users and the shortened histories of the cold-start curve.
        models: name -> model, in the order of the run.
        lists: the lists of the tested users by the last model. Set by :meth:`recommend`.
        evaluations: one per model so far. :meth:`judge` adds one.
        sampled_evaluations: the same among sampled candidates, if the config asks for it.
        cold_start_values: model name -> its values on the cold-start curve.
        losses: model name -> its objective after each sweep, for models with sweeps.
    """

    tables: Tables
    split: Split
    item_features: Features | None
    truth: Truth
    segments: Segments | None
    catalogue: Catalogue
    tested: Audience
    untested: Audience | None
    cold_start_curve: ColdStart
    models: dict[str, Recommender]
    lists: TopK

    def __init__(self, config: Config) -> None:
        """Check the configured models before anything is read.

        Raises:
            ConfigError: a kind of model does not exist, or a parameter is unknown or not valid. The
                message names all of them.
        """
        super().__init__(config)
        build_each(lambda name: configured_model(name, config), config.models)
        self._described_items: pd.DataFrame | None = None
        self.evaluations: list[Evaluation] = []
        self.cold_start_values: dict[str, dict[int, np.ndarray]] = {}
        self.losses: dict[str, list[float]] = {}
        self.sampled_evaluations: list[Evaluation] = []

    def read_events(self) -> None:
        """Read and check the tables, and write refused.csv and the data card (data.json).

        Raises:
            InputError: a table cannot be read, or too many of its rows are refused.
        """
        self.tables = read_tables_of_run(self.config, self.folder)

    def split_events(self) -> None:
        """Split the events, write the parts, and prepare what all models use.

        That is the truth, the rules, the catalogue, the segments, the two groups of users who get
        lists, and the unfitted models.

        Raises:
            InputError, ConfigError: the events cannot be split as the config says.
        """
        config = self.config
        items = add_reviewed_items(self.tables.items, self.tables.reviews)
        rule = config.rule(timed=TIME in self.tables.log)
        self.fold_starts = fold_starts(self.tables.log, rule)
        self.split = split(self.tables.take_log(), rule, weighting=config.weigh, filters=config.filter, items=items)
        counts = self.split.about["train"]
        self.check_ranks(counts["users"], counts["items"])
        train = self.split.train
        self.item_features = None
        if items is not None and self.tables.reviews is not None:
            reviews = reviews_of_train(self.tables.reviews, train, self.split.test, has_ratings=False)
            items = add_review_columns(items, reviews, train.items)
        self._described_items = items
        if items is not None:
            self.item_features = encode_features(items, ITEM, train.items)
        self.truth = Truth.from_split(self.split, config.judge.for_lists(), exclude_seen=config.recommend.exclude_seen)
        self.split.about["ranked"] = describe_ranked(
            config.judge.candidates_for(rule.rule), len(train.items), self.truth.ranked_items
        )
        self._write_split()
        self.catalogue = self._make_catalogue()
        self.segments = self._fit_segments()
        self._find_audiences()
        self.cold_start_curve = ColdStart(self.truth, config.recommend.k)
        self.models = lineup(config, train)

    @property
    def model_names(self) -> list[str]:
        """The names of the baselines and of the configured models, in the order of the run."""
        return list(self.models)

    def fit(self, name: str) -> None:
        """Train the model ``name`` and save it in the run folder.

        If ``min_history`` is "auto", a trial on a part of train first chooses which users the
        fallback serves. If the model reports its objective after each sweep, these values are kept
        for the report.
        """
        model = self.models[name]
        if isinstance(model, Cascade) and self._chooses_min_history(name):
            with running_step(f"fit {name}: choose min_history by a trial"):
                self._choose_min_history(model)
        model.fit(self.split.train, self.item_features)
        models.save(model, self.folder.path / run_files.model_folder(name))
        trained = model
        if isinstance(model, Cascade):
            trained = model.members[name]
        if trained.losses_ is not None:
            self.losses[name] = trained.losses_.tolist()

    def recommend(self, name: str) -> None:
        """Make and write the lists of the model ``name``.

        Lists are made for the tested users. If the config sets ``everyone``, they are also made for
        all other users with a history, unless the model is a baseline.
        """
        self.lists = self._lists_of(self.tested, name)
        tables = [topk_table(self.lists, self.tested.users, self.truth.candidates)]
        if self.untested is not None and name not in BASELINES:
            further_lists = self._lists_of(self.untested, name)
            tables.append(topk_table(further_lists, self.untested.users, self.truth.candidates))
        self.folder.write_table(run_files.topk(name), pd.concat(tables, ignore_index=True))

    def judge(self, name: str) -> None:
        """Compute all metrics of the tested users' lists by the model ``name``, and store them.

        Some metrics need the scores of all candidates. These are computed from the model, not from
        the lists.
        """
        evaluation = evaluate(self.lists, self.truth, name=name)
        if self.config.judge.score_metrics:
            evaluation = self._with_score_metrics(evaluation)
        self.evaluations.append(extend(evaluation, self.lists, self.truth, self.catalogue))
        if self.config.judge.sampled is not None:
            self.sampled_evaluations.append(self._judge_sampled(name))

    @property
    def has_cold_start_curve(self) -> bool:
        """Whether the run evaluates each model on shortened histories: True if enough users have
        enough events.
        """
        return bool(self.cold_start_curve.cuts)

    def judge_cold_start(self, name: str) -> None:
        """Evaluate the model ``name`` on histories that are cut to their first events.

        The values are stored for :meth:`summarise`.
        """
        self.cold_start_values[name] = self.cold_start_curve.values(self._model_for(self.tested, name))

    def summarise(self) -> dict[str, Any]:
        """Write the values per user, the mean metrics and the curves, and return the content of
        metrics.json.

        :func:`recsys.evaluation.summary.summarise` describes this content.
        """
        config = self.config
        per_user = [evaluation.per_user.assign(model=evaluation.name) for evaluation in self.evaluations]
        self.folder.write_table(run_files.PER_USER, pd.concat(per_user, ignore_index=True))
        metrics = summarise(
            self.evaluations,
            config.judge,
            seed=config.seed,
            users=self.tables.users,
            catalogue=self.catalogue,
        )
        self.folder.write_json(run_files.METRICS, metrics)
        if self.cold_start_values:
            curve = cold_start.summary(self.cold_start_values, config.judge.metrics[0])
            self.folder.write_json(run_files.COLD_START, curve)
        if self.losses:
            self.folder.write_json(run_files.TRAINING, self.losses)
        if self.sampled_evaluations:
            sampled = summarise_sampled(self.sampled_evaluations, config.judge, seed=config.seed)
            self.folder.write_json(run_files.SAMPLED, sampled)
        return metrics

    def pool_folds(self, folders: list[RunFolder]) -> dict[str, Any]:
        """Average the values of each user over the folds of a backtest, and summarise them.

        The averages are written to backtest_per_user.parquet. The result is that of
        :func:`recsys.evaluation.pooling.describe_pooled`.

        Args:
            folders: the run folders of all folds, with the values per user of each.
        """
        judging = self.config.judge
        columns = [pooling.MODEL, USER, *judging.metrics]
        tables = [folder.read_table(run_files.PER_USER, columns) for folder in folders]
        pooled = pooling.pool_folds(tables, judging.metrics)
        self.folder.write_table(run_files.POOLED_PER_USER, pooled)
        layout = pooling.pooled_layout(self.model_names, judging)
        sums = pooling.sum_users(pooled, layout, resamples=judging.resamples, seed=self.config.seed)
        return pooling.describe_pooled(layout, sums, "local", len(folders))

    def _with_score_metrics(self, evaluation: Evaluation) -> Evaluation:
        """Return the evaluation with the metrics that need the scores of all candidates.

        The candidates are the items that lists rank, without those that the model does not score and
        without seen items if lists leave them out. Business rules are about lists, and leave nothing
        out here.
        """
        judging = self.config.judge
        model = self._model_for(self.tested, evaluation.name)
        ranking = FullRanking(memory_mb=self.config.recommend.memory_mb)
        of_scores = evaluate_scores(model, self.truth, judging.score_metrics, name=evaluation.name, ranking=ranking)
        values = of_scores.per_user[list(judging.score_metrics)]
        definitions = evaluation.about["definitions"] | of_scores.about["definitions"]
        in_order = {metric: definitions[metric] for metric in judging.metrics}
        return replace(
            evaluation,
            per_user=pd.concat([evaluation.per_user, values], axis=1),
            about=evaluation.about | {"definitions": in_order},
        )

    def _judge_sampled(self, name: str) -> Evaluation:
        """Evaluate how one model ranks the relevant items among sampled candidates, without
        business rules."""
        judging = self.config.judge
        ranking = FullRanking(judging.ties, judging.sampled, self.config.seed, self.config.recommend.memory_mb)
        model = self._model_for(self.tested, name)
        return evaluate_scores(model, self.truth, judging.metrics, name=name, ranking=ranking)

    def _chooses_min_history(self, name: str) -> bool:
        """Return whether a trial chooses the number of likes from which on the model serves a user.

        A trial hides likes of trained items, so it says nothing of lists of new items.
        """
        kind = self.config.models[name].get("model", name)
        is_useful = kind not in BLENDS and self.config.candidates != "cold"
        return self.config.recommend.min_history == "auto" and is_useful

    def _choose_min_history(self, model: Cascade) -> None:
        """Set the model's ``min_history`` to the result of a trial against its fallback on a part
        of train."""
        members = list(model.members.values())
        record = try_short_histories(
            members[0],
            members[-1],
            self.split.train,
            self.item_features,
            by_time=self.split.rule == "time",
            seed=self.config.seed,
        )
        if record is not None:
            model.min_history = record["min_history"]
            model.record = record

    def _model_for(self, audience: Audience, name: str) -> Recommender:
        """Return a fitted model that can make the lists of an audience.

        If the run has segments, the segment recommender of these users is put between a cascade's
        model and its fallback.
        """
        model = with_user_ids(self.models[name], audience.users.ids)
        return insert_segment_fallback(model, self.segments, audience.users.ids)

    def _lists_of(self, audience: Audience, name: str) -> TopK:
        settings = self.config.recommend
        options = RecommendOptions(
            exclude_seen=settings.exclude_seen,
            candidates=self.truth.ranked_items,
            rules=audience.rules,
            memory_mb=settings.memory_mb,
        )
        return recommend(
            self._model_for(audience, name),
            audience.histories,
            settings.k,
            users=audience.rows,
            options=options,
            progress=partial(self.report_progress, f"recommend {name}"),
        )

    def _find_audiences(self) -> None:
        """Set ``tested`` to the tested users and, if lists for everyone are wanted, ``untested`` to
        the rest."""
        tested_users = self.split.test.users
        self.tested = Audience(
            tested_users,
            np.arange(len(tested_users)),
            self.truth.histories,
            self._compile_rules(tested_users),
        )
        self.untested = None
        if self.config.recommend.everyone:
            users = self.split.history.users
            rows = np.flatnonzero(tested_users.rows(users.ids) < 0)
            histories = self.split.history.histories()[rows]
            self.untested = Audience(users, rows, histories, self._compile_rules(users))
        all_users = IdMap.from_ids(tested_users.ids, self.split.history.users.ids)
        if rules := self._compile_rules(all_users):
            self.folder.write_json(run_files.RULES_CARD, rules.about)

    def _compile_rules(self, users: IdMap) -> CompiledRules | None:
        if self.rules is None:
            return None
        return compile_rules(self.rules, users, self.split.train.items, self.tables.items)

    def _fit_segments(self) -> Segments | None:
        """Fit and write the segments of train, or return None if the fallback is not by segment."""
        settings = self.config.recommend
        if settings.fallback != "segment":
            return None
        segments = fit_segments(
            self.split.train,
            self.tables.users,
            settings.segment,
            prior=settings.segment_prior,
            memory_mb=settings.memory_mb,
        )
        segments.save(self.folder.path)
        return segments

    def _make_catalogue(self) -> Catalogue:
        train = self.split.train
        columns = [() if table is None else tuple(table.columns) for table in (self.tables.users, self.tables.items)]
        likes = np.bincount(train.item[train.value > 0], minlength=len(train.items))
        # A name in [judge] segments that is not a column of either table is refused here.
        assign_columns(self.config.judge.segments, *columns)
        return Catalogue.from_items(likes, len(train.users), self.config.judge, train.items, self.tables.items)

    def _write_split(self) -> None:
        """Write the parts of the split, and the candidates with the columns of the items table."""
        self.folder.write_json(run_files.SPLIT_CARD, self.split.about)
        candidates = pd.DataFrame({ITEM: self.split.train.items.all_ids})
        if self._described_items is not None:
            candidates = candidates.merge(self._described_items, on=ITEM, how="left")
        self.folder.write_table(run_files.ITEMS, candidates)
        for name in ("train", "history", "test"):
            part = weigh.interactions_to_table(getattr(self.split, name))
            self.folder.write_table(run_files.split_part(name), part)


def read_tables_of_run(config: Config, folder: RunFolder) -> Tables:
    """Read and check the tables of a config, and return them.

    The refused rows (refused.csv) and the data card (data.json) are written into ``folder``.

    Args:
        config: names the tables.
        folder: the run folder.

    Raises:
        InputError: as for :func:`recsys.data.reading.read.read_tables`.
    """
    data = config.data
    tables = read_tables(config.events, data.items, data.users, data.reading, data.reviews)
    tables.refusals.write_csv(folder.path / run_files.REFUSED_ROWS)
    folder.write_json(run_files.DATA_CARD, data_card(tables) | {"source": " + ".join(config.event_files)})
    return tables


def lineup(config: Config, train: Interactions) -> dict[str, Recommender]:
    """Return the unfitted models of a run as a dict: name -> model.

    The baselines come first, then each configured model, combined with its fallback. A configured
    model with the name of a baseline replaces it.

    Args:
        config: the config of the run.
        train: the train part. Without a known time, the baseline ``recent`` is left out.
    """
    has_times = bool((train.time >= 0).any())
    baselines = baselines_of(timed=has_times, exclude_seen=config.recommend.exclude_seen, candidates=config.candidates)
    chosen = {name: models.build(name, {}) for name in baselines}
    return chosen | {name: configured_model(name, config) for name in config.models}


def configured_model(name: str, config: Config) -> Recommender:
    """Return the unfitted model ``name`` of the config, combined with its fallback.

    A model that has a seed gets the seed of the run, unless the config sets it. A hybrid gets
    ``hold_out`` by :data:`HOLD_OUT`, unless the config sets it. With ``min_history = "auto"`` the
    threshold is 0 at first: the model serves every user that it can score. With ``fallback =
    "segment"`` the fallback is ``popular`` at first; segments are inserted when the users are
    known.

    Raises:
        ConfigError: the kind of model does not exist, or a parameter is unknown or not valid.
    """
    settings: dict[str, Any] = dict(config.models[name])
    kind = settings.pop("model", name)
    if "seed" in models.parameters(kind):
        settings.setdefault("seed", config.seed)
    if "hold_out" in models.parameters(kind):
        settings.setdefault("hold_out", HOLD_OUT[config.rule(timed=True).rule])
    model = models.build(kind, settings)
    # Segments come between the model and its fallback once it is known who is asked about.
    fallback = config.recommend.fallback_model
    if fallback == "none" or kind in BASELINES:
        return model
    min_history = 0
    if isinstance(config.recommend.min_history, int):
        min_history = config.recommend.min_history
    return Cascade({name: model, fallback: models.build(fallback, {})}, min_history)
