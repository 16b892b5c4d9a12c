"""Parts of train that stand in for the test: rolling windows in time, or pairs by hash."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from recsys.config import Config, TuneSettings
from recsys.data.hashing import pair_hash
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.features.encoding import encode_features
from recsys.ranking.rank import recommend
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Features, IdMap, Interactions, Recommender, Split

Fold = tuple[Split, Features | None]


def folds(train: pd.DataFrame, wanted: TuneSettings, items: pd.DataFrame | None = None, seed: int = 0) -> list[Fold]:
    """Return the folds of a train part, each with the items' features where there is an items table.

    ``time``: window f of F holds the ``share`` of events before the last F - f windows; its train is all that is
    earlier, and equal times never straddle. ``pairs``: the hash of (user, item) names the fold that tests it.

    Raises:
        InputError: no times for windows, or a fold without train or test pairs.
    """
    timed = bool((train[TIME] >= 0).all())
    if wanted.rule == "time" and not timed:
        raise InputError("[tune] rule = 'time' needs events with timestamps: use 'pairs'.")
    by_time = wanted.rule == "time" or (wanted.rule is None and timed)
    sides = _windows(train, wanted) if by_time else _pairs(train, wanted, seed)
    return [_fold(train, known, tested, items, "time" if by_time else "pairs") for known, tested in sides]


def per_user(model: Recommender, fold: Fold, config: Config, metric: str) -> pd.Series:
    """Return user -> value of a model, fitted on the fold's train; NaN for a user without anything relevant."""
    split, known = fold
    return judged(model.fit(split.train, known), split, config, metric)


def judged(model: Recommender, split: Split, config: Config, metric: str) -> pd.Series:
    """Return user -> value of a fitted model."""
    settings = {"exclude_seen": config.recommend.exclude_seen, "memory_mb": config.recommend.memory_mb}
    topk = recommend(model, split.histories(), config.recommend.k, **settings)  # type: ignore[arg-type]
    judging = config.judge.model_copy(update={"metrics": (metric,), "segments": ()})
    found = evaluate(topk, split, judging, name="trial", exclude_seen=config.recommend.exclude_seen)
    return found.per_user.set_index(USER)[metric]


def _windows(train: pd.DataFrame, wanted: TuneSettings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    times, ordered = train[TIME].to_numpy(), np.sort(train[TIME].to_numpy())
    n = len(times)
    starts = [ordered[max(0, n - round((wanted.folds - f) * wanted.share * n))] for f in range(wanted.folds)]
    for start, end in zip(starts, [*starts[1:], np.inf], strict=True):
        yield times < start, (times >= start) & (times < end)


def _pairs(train: pd.DataFrame, wanted: TuneSettings, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    place = (pair_hash(train[USER], train[ITEM], seed) * wanted.folds).astype(int)
    for fold in range(wanted.folds):
        yield place != fold, place == fold


def _fold(train: pd.DataFrame, known: np.ndarray, tested: np.ndarray, items: pd.DataFrame | None, rule: str) -> Fold:
    relevant = tested & (train[VALUE].to_numpy() > 0)
    if not known.any() or not relevant.any():
        part = "train" if not known.any() else "liked test"
        raise InputError(f"[tune]: a fold by {rule} has no {part} pairs: use fewer folds, or another share or rule.")
    candidates = IdMap.of(train.loc[known, ITEM], [] if items is None else items[ITEM])
    kept: Interactions = interactions_from_table(train[known], items=candidates)
    split = Split(train=kept, history=kept, test=interactions_from_table(train[tested]), rule=rule)
    return split, None if items is None else encode_features(items, ITEM, candidates)
