"""The local path on one screen: read, split, fit, recommend, judge, write. ``recsys.spark.run`` has the same hops."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from recsys import models
from recsys.config import Config
from recsys.data import weigh
from recsys.data.card import card
from recsys.data.read import read_tables
from recsys.data.split import default_rule, split
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.summary import summarise
from recsys.meter import Meter
from recsys.models.hybrid import Cascade
from recsys.rank import recommend, topk_table
from recsys.runfolder import RunFolder
from recsys.types import Evaluation, Interactions, Recommender, Split

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
    data, k = config.data, config.recommend.k
    with Meter() as meter, RunFolder.writing(config.out) as folder:
        with meter.hop("read"):
            tables = read_tables(data.events, data.items, data.users, data.reading)
            tables.refusals.write_csv(folder.path / "refused.csv")
            folder.write_json("data.json", card(tables) | {"source": data.events})
        with meter.hop("split"):
            rule = config.split or default_rule(tables.events)
            parts = split(tables.events, rule, weighting=config.weigh, filters=config.filter, items=tables.items)
            _write_split(folder, parts)
        histories = parts.histories()
        evaluations = []
        for name, model in lineup(config, parts.train).items():
            with meter.hop(f"fit {name}"):
                model.fit(parts.train)
                models.save(model, folder.path / "model" / name)
            with meter.hop(f"recommend {name}"):
                topk = recommend(
                    model,
                    histories,
                    k,
                    exclude_seen=config.recommend.exclude_seen,
                    memory_mb=config.recommend.memory_mb,
                    progress=lambda done, total, name=name: step(f"recommend {name}", done, total),
                )
                folder.write_table(f"topk/{name}.parquet", topk_table(topk, parts.test.users, parts.train.items))
            with meter.hop(f"judge {name}"):
                evaluations.append(
                    evaluate(topk, parts, config.judge, name=name, exclude_seen=config.recommend.exclude_seen)
                )
        with meter.hop("summarise"):
            folder.write_table("per_user.parquet", _per_user(evaluations))
            folder.write_json("metrics.json", summarise(evaluations, config.judge, seed=config.seed))
        folder.write_text("config.toml", config.to_toml())
        inputs = [Path(path) for path in (data.events, data.items, data.users) if path]
        folder.write_manifest(seed=config.seed, inputs=inputs, hops=meter.hops, started=started)
    return {evaluation.name: evaluation for evaluation in evaluations}


def lineup(config: Config, train: Interactions) -> dict[str, Recommender]:
    """Return name -> unfitted model: the baselines, then the configured models with their fallback behind them."""
    baselines = [name for name in BASELINES if name != "recent" or (train.time >= 0).any()]
    chosen: dict[str, Recommender] = {name: models.build(name, {}) for name in baselines}
    for name, params in config.models.items():
        settings: dict[str, Any] = dict(params)
        model = models.build(settings.pop("model", name), settings)
        fallback = config.recommend.fallback
        if fallback != "none" and name not in BASELINES:
            model = Cascade({name: model, fallback: models.build(fallback, {})})
        chosen[name] = model
    return chosen


def _write_split(folder: RunFolder, parts: Split) -> None:
    folder.write_json("split.json", parts.about)
    for name in ("train", "history", "test"):
        folder.write_table(f"split/{name}.parquet", weigh.table(getattr(parts, name)))


def _per_user(evaluations: list[Evaluation]) -> pd.DataFrame:
    return pd.concat([e.per_user.assign(model=e.name) for e in evaluations], ignore_index=True)
