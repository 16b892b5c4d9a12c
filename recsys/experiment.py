"""The local path on one screen: read, split, fit, recommend, judge, write. ``recsys.spark.run`` has the same hops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys import models, run_files
from recsys.config import Config, RecommendSettings
from recsys.data import weigh
from recsys.data.card import data_card
from recsys.data.reading.read import Tables, read_tables
from recsys.data.splitting.split import split
from recsys.evaluation import cold_start
from recsys.evaluation.beyond import Catalogue, extend
from recsys.evaluation.cold_start import ColdStart
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.groups import assign_columns
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.summary import summarise
from recsys.evaluation.truth import Truth
from recsys.features import segment_popularity
from recsys.features.encoding import encode_features
from recsys.features.segment_popularity import Segments
from recsys.meter import Meter
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import insert_segment_fallback
from recsys.ranking.business_rules import CompiledRules, compile_rules, load
from recsys.ranking.rank import recommend, topk_table
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, TIME
from recsys.types import Evaluation, Histories, IdMap, Interactions, Split, TopK

Steps = Callable[[str, int, int], None]
"""Called with (step, done, total)."""

BASELINES = ("random", "popular", "recent")
"""They stand beside every model; ``recent`` only where events have times."""


def run(config: Config, *, progress: Steps | None = None) -> dict[str, Evaluation]:
    """Do everything that ``config`` says, write its run folder, and return each model's evaluation.

    Raises:
        InputError, ConfigError, RunFolderError: with what, where and what to do; nothing half-written stays.
    """
    step = progress or (lambda name, done, total: None)
    started = datetime.now(UTC)
    data = config.data
    with Meter() as meter, RunFolder.writing(config.out, "run", config.sources) as folder:
        with meter.hop("read"):
            tables = read_tables(data.events, data.items, data.users, data.reading)
            tables.refusals.write_csv(folder.path / run_files.REFUSED_ROWS)
            folder.write_json(run_files.DATA_CARD, data_card(tables) | {"source": data.events})
        with meter.hop("split"):
            rule = config.rule(timed=TIME in tables.log)
            parts = split(tables.take_log(), rule, weighting=config.weigh, filters=config.filter, items=tables.items)
            _write_split(folder, parts, tables.items)
            known = None if tables.items is None else encode_features(tables.items, ITEM, parts.train.items)
            truth = Truth.of(parts, config.judge, exclude_seen=config.recommend.exclude_seen)
            untested = _untested_users(parts) if config.recommend.everyone else None
            catalogue = _catalogue(parts.train, tables, config.judge)
            tested, known_users = parts.test.users, parts.history.users
            everyone = IdMap.of(tested.ids, known_users.ids)
            rules = [_rules(config.recommend, ids, parts, tables) for ids in (tested, known_users, everyone)]
            if rules[2]:
                folder.write_json(run_files.RULES_CARD, rules[2].about)
            segments = _segments(config.recommend, parts.train, tables)
            if segments is not None:
                segments.save(folder.path)
        evaluations, by_cut, losses = [], {}, {}
        newcomers = ColdStart(truth, config.recommend.k)
        for name, model in lineup(config, parts.train).items():
            with meter.hop(f"fit {name}"):
                model.fit(parts.train, known)
                models.save(model, folder.path / run_files.model_folder(name))
                trained = model.members[name] if isinstance(model, Cascade) else model
                if hasattr(trained, "losses_"):
                    losses[name] = trained.losses_.tolist()
            with meter.hop(f"recommend {name}"):
                told = partial(step, f"recommend {name}")
                audiences = (parts.test.users.ids, parts.history.users.ids)
                asked = [insert_segment_fallback(model, segments, user_ids) for user_ids in audiences]
                topk, table = _recommend(name, asked, truth, untested, config.recommend, rules, told)
                folder.write_table(run_files.topk(name), table)
            with meter.hop(f"judge {name}"):
                evaluations.append(extend(evaluate(topk, truth, name=name), topk, truth, catalogue))
            if newcomers.cuts:
                with meter.hop(f"cold start {name}"):
                    by_cut[name] = newcomers.values(asked[0])
        with meter.hop("summarise"):
            folder.write_table(run_files.PER_USER, _per_user(evaluations))
            settings: dict[str, Any] = {"seed": config.seed, "users": tables.users, "catalogue": catalogue}
            folder.write_json(run_files.METRICS, summarise(evaluations, config.judge, **settings))
            if by_cut:
                folder.write_json(run_files.COLD_START, cold_start.summary(by_cut, config.judge.metrics[0]))
            if losses:
                folder.write_json(run_files.TRAINING, losses)
        folder.write_text(run_files.CONFIG, config.to_toml())
        inputs = [Path(path) for path in (data.events, data.items, data.users) if path]
        folder.write_manifest(seed=config.seed, inputs=inputs, hops=meter.hops, started=started)
    return {evaluation.name: evaluation for evaluation in evaluations}


def lineup(config: Config, train: Interactions) -> dict[str, Recommender]:
    """Return name -> unfitted model: the baselines, then the configured models with their fallback behind them.

    A configured model may replace a baseline of its name. Models that take a seed get the run's unless they have one.
    """
    baselines = [name for name in BASELINES if name != "recent" or (train.time >= 0).any()]
    chosen: dict[str, Recommender] = {name: models.build(name, {}) for name in baselines}
    return chosen | {name: configured(name, config) for name in config.models}


def configured(name: str, config: Config) -> Recommender:
    """Return one of ``config.models``, unfitted, its fallback behind it."""
    settings: dict[str, Any] = dict(config.models[name])
    kind = settings.pop("model", name)
    if "seed" in models.parameters(kind):
        settings.setdefault("seed", config.seed)
    model, fallback = models.build(kind, settings), config.recommend.fallback
    if fallback == "none" or kind in BASELINES:
        return model
    fallback = "popular" if fallback == "segment" else fallback  # segments come between: they need the user, see behind
    return Cascade({name: model, fallback: models.build(fallback, {})})


@dataclass(frozen=True, eq=False)
class Audience:
    """Users who get lists: ``rows`` of the map ``users``, and ``histories``, one row per entry of ``rows``."""

    users: IdMap
    rows: np.ndarray
    histories: Histories


def _untested_users(parts: Split) -> Audience:
    """Return the users with a history who are not in the test."""
    users = parts.history.users
    rows = np.flatnonzero(parts.test.users.rows(users.ids) < 0)
    return Audience(users, rows, parts.history.histories()[rows])


def _recommend(
    name: str,
    model: list[Recommender],
    truth: Truth,
    untested: Audience | None,
    wanted: RecommendSettings,
    rules: list[CompiledRules | None],
    progress: Callable[[int, int], None],
) -> tuple[TopK, pd.DataFrame]:
    """Return the lists of the tested users, and the table of all lists (``recommend.everyone``).

    ``model``, ``rules``: for rows of the tested users, and for rows of those with a history; more is not looked at.
    """
    settings: dict[str, Any] = {
        "exclude_seen": wanted.exclude_seen,
        "memory_mb": wanted.memory_mb,
        "progress": progress,
    }
    topk = recommend(model[0], truth.histories, wanted.k, rules=rules[0], **settings)
    table = topk_table(topk, truth.users, truth.candidates)
    if untested is not None and name not in BASELINES:
        rest = recommend(model[1], untested.histories, wanted.k, users=untested.rows, rules=rules[1], **settings)
        table = pd.concat([table, topk_table(rest, untested.users, truth.candidates)], ignore_index=True)
    return topk, table


def _rules(wanted: RecommendSettings, users: IdMap, parts: Split, tables: Tables) -> CompiledRules | None:
    return compile_rules(load(wanted.rules), users, parts.train.items, tables.items) if wanted.rules else None


def _segments(wanted: RecommendSettings, train: Interactions, tables: Tables) -> Segments | None:
    if wanted.fallback != "segment":
        return None
    columns, prior, memory_mb = wanted.segment, wanted.segment_prior, wanted.memory_mb
    return segment_popularity.fit_segments(train, tables.users, columns, prior=prior, memory_mb=memory_mb)


def _catalogue(train: Interactions, tables: Tables, judging: EvaluationSettings) -> Catalogue:
    columns = [() if table is None else tuple(table.columns) for table in (tables.users, tables.items)]
    likes = np.bincount(train.item[train.value > 0], minlength=len(train.items))
    assign_columns(judging.segments, *columns)
    return Catalogue.from_items(likes, len(train.users), judging, train.items, tables.items)


def _write_split(folder: RunFolder, parts: Split, items: pd.DataFrame | None) -> None:
    """Write the parts, and the candidates with what the items table says of them."""
    folder.write_json(run_files.SPLIT_CARD, parts.about)
    candidates = pd.DataFrame({ITEM: parts.train.items.all_ids})
    told = candidates if items is None else candidates.merge(items, on=ITEM, how="left")
    folder.write_table(run_files.ITEMS, told)
    for name in ("train", "history", "test"):
        folder.write_table(run_files.split_part(name), weigh.interactions_to_table(getattr(parts, name)))


def _per_user(evaluations: list[Evaluation]) -> pd.DataFrame:
    return pd.concat([e.per_user.assign(model=e.name) for e in evaluations], ignore_index=True)
