"""Parts of train that stand in for the test: rolling windows in time, or pairs by hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.config import Config, RecommendSettings, TuneSettings
from recsys.data.hashing import pair_hash
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.ranking.rank import recommend
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Features, IdMap, Interactions, Recommender, Split


@dataclass(frozen=True, eq=False)
class Fold:
    """A part of train that stands in for the test: its split, the items' features if any, and its truth."""

    split: Split
    features: Features | None
    truth: Truth


def folds(train: pd.DataFrame, config: Config, metric: str, items: pd.DataFrame | None = None) -> list[Fold]:
    """Return the folds of a train part, by ``config.tune``, each with the truth by which ``metric`` is computed.

    ``time``: window f of F holds the ``share`` of events before the last F - f windows; its train is all that is
    earlier, and equal times never straddle. ``pairs``: the hash of (user, item) names the fold that tests it.

    Raises:
        InputError: no times for windows, or a fold without train or test pairs.
    """
    wanted = config.tune
    timed = bool((train[TIME] >= 0).all())
    if wanted.rule == "time" and not timed:
        raise InputError("[tune] rule = 'time' needs events with timestamps: use 'pairs'.")
    by_time = wanted.rule == "time" or (wanted.rule is None and timed)
    sides = _windows(train, wanted) if by_time else _pairs(train, wanted, config.seed)
    rule = "time" if by_time else "pairs"
    splits = [_split(train, in_train, in_test, items, rule) for in_train, in_test in sides]
    return [
        Fold(
            split,
            None if items is None else encode_features(items, ITEM, split.train.items),
            fold_truth(split, config, metric),
        )
        for split in splits
    ]


def fold_truth(split: Split, config: Config, metric: str) -> Truth:
    """Return the truth of a split's tested users, for one metric and no groups of users."""
    settings = config.judge.model_copy(update={"metrics": (metric,), "segments": ()})
    return Truth.of(split, settings, exclude_seen=config.recommend.exclude_seen)


def per_user(model: Recommender, fold: Fold, recommending: RecommendSettings) -> pd.Series:
    """Return user -> value of a model, fitted on the fold's train; NaN for a user without anything relevant."""
    return judged(model.fit(fold.split.train, fold.features), fold.truth, recommending)


def judged(model: Recommender, truth: Truth, recommending: RecommendSettings) -> pd.Series:
    """Return user -> value of a fitted model by the primary metric of ``truth``.

    Lists leave out seen items where the truth leaves them out.
    """
    topk = recommend(
        model, truth.histories, recommending.k, exclude_seen=truth.exclude_seen, memory_mb=recommending.memory_mb
    )
    return evaluate(topk, truth, name="trial").per_user.set_index(USER)[truth.settings.metrics[0]]


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


def _split(
    train: pd.DataFrame, in_train: np.ndarray, in_test: np.ndarray, items: pd.DataFrame | None, rule: str
) -> Split:
    relevant = in_test & (train[VALUE].to_numpy() > 0)
    if not in_train.any() or not relevant.any():
        part = "liked test" if in_train.any() else "train"
        raise InputError(f"[tune]: a fold by {rule} has no {part} pairs: use fewer folds, or another share or rule.")
    candidates = IdMap.of(train.loc[in_train, ITEM], [] if items is None else items[ITEM])
    kept: Interactions = interactions_from_table(train[in_train], items=candidates)
    return Split(train=kept, history=kept, test=interactions_from_table(train[in_test]), rule=rule)
