"""Folds of the train part, each of which replaces the test part in a search: time windows, or pairs
or items by hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.config import Config, RecommendSettings, TuneSettings
from recsys.data.hashing import id_hash, pair_hash
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.ranking.rank import recommend
from recsys.recommender import Recommender
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Features, IdMap, Split

ADVICE = "use fewer folds, or another share or rule"


@dataclass(frozen=True, eq=False)
class Fold:
    """A split of the train part of a run into its own train and test.

    Attributes:
        split: the train and test pairs of the fold.
        item_features: the features of the items of the fold, or None without an items table.
        truth: the relevant items and the settings by which lists are judged.
    """

    split: Split
    item_features: Features | None
    truth: Truth


def make_folds(
    train: pd.DataFrame,
    config: Config,
    metric: str,
    items: pd.DataFrame | None = None,
) -> list[Fold]:
    """Return the folds of a train part, each with the truth for one metric.

    The rule is that of ``config.fold_rule``. With ``time`` and F folds, fold f tests on the f-th of
    the last F windows, each with the ``share`` of all events, and trains on all earlier events.
    Events with equal times are on the same side. With ``pairs``, the hash of (item, user) decides
    which fold tests on a pair; all other folds train on it. With ``items``, the items are dealt to
    the folds in the order of their hashes, so each fold tests on an equal number of items, and
    trains on all others.

    Raises:
        InputError: the rule is ``time`` and there are no times, or a fold has no train pairs or no
            relevant test pairs.
        ConfigError: the rule does not suit the items that the lists rank.
    """
    settings = config.tune
    rule = config.fold_rule(timed=bool((train[TIME] >= 0).all()))
    if rule == "time":
        masks = _window_masks(train, settings)
    elif rule == "items":
        masks = _item_masks(train, settings, config.seed)
    else:
        masks = _pair_masks(train, settings, config.seed)
    folds = []
    for is_train, is_test in masks:
        split = _split_by_masks(train, is_train, is_test, items, rule)
        item_features = None
        if items is not None:
            item_features = encode_features(items, ITEM, split.train.items)
        truth = fold_truth(split, config, metric)
        if truth.ranked_items is not None and not truth.relevant.nnz:
            raise InputError(
                f"[tune]: a fold by {rule} has no relevant test pairs on the items that lists rank ([judge] candidates"
                f" = '{config.candidates}'): {ADVICE}."
            )
        folds.append(Fold(split, item_features, truth))
    return folds


def fold_truth(split: Split, config: Config, metric: str) -> Truth:
    """Return the truth of the tested users of a split, for one metric and without groups of users.

    The lists of a fold rank what those of the run rank: all candidates of the fold, or only those
    with an event in its train part, or only those without.
    """
    settings = config.judge.model_copy(update={"metrics": (metric,), "segments": (), "candidates": config.candidates})
    return Truth.from_split(split, settings, exclude_seen=config.recommend.exclude_seen)


def fit_and_judge(model: Recommender, fold: Fold, settings: RecommendSettings) -> pd.Series:
    """Fit a model on the train side of a fold, and return user -> metric on the test side.

    The metric is NaN for a user without a relevant item on the test side.
    """
    fitted = model.fit(fold.split.train, fold.item_features)
    return judge_fitted(fitted, fold.truth, settings)


def judge_fitted(model: Recommender, truth: Truth, settings: RecommendSettings) -> pd.Series:
    """Return user -> value of the truth's first metric, for a fitted model.

    The lists rank the items that the truth names, and leave out seen items if the truth does.
    """
    topk = recommend(
        model,
        truth.histories,
        settings.k,
        exclude_seen=truth.exclude_seen,
        candidates=truth.ranked_items,
        memory_mb=settings.memory_mb,
    )
    evaluation = evaluate(topk, truth, name="trial")
    return evaluation.per_user.set_index(USER)[truth.settings.metrics[0]]


def _window_masks(
    train: pd.DataFrame,
    settings: TuneSettings,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two masks bool[n] for each time window, earliest first: the train events, the test
    events.
    """
    times = train[TIME].to_numpy()
    sorted_times = np.sort(times)
    n = len(times)
    starts = []
    for fold in range(settings.folds):
        remaining = round((settings.folds - fold) * settings.share * n)
        starts.append(sorted_times[max(0, n - remaining)])
    for start, end in zip(starts, [*starts[1:], np.inf], strict=True):
        yield times < start, (times >= start) & (times < end)


def _pair_masks(
    train: pd.DataFrame,
    settings: TuneSettings,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two masks bool[n] for each fold: the pairs to train on, and the pairs to test on.

    The hash of a pair decides in which fold it is a test pair.
    """
    # The item comes first, which gives another hash than that of ``[split] rule = "fraction"``. Of
    # that hash, train has no low values left, so the first folds would be small or empty.
    fold_of_pair = (pair_hash(train[ITEM], train[USER], seed) * settings.folds).astype(int)
    for fold in range(settings.folds):
        yield fold_of_pair != fold, fold_of_pair == fold


def _item_masks(
    train: pd.DataFrame,
    settings: TuneSettings,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two masks bool[n] for each fold: the pairs to train on, and the pairs to test on.

    All pairs of an item are on one side.
    """
    items = IdMap.of(train[ITEM])
    # The order of the hashes and not their values, because a run that held out items by the same hash
    # has no train items with low values left.
    order = np.argsort(id_hash(items.ids, seed), kind="stable")
    fold_of_item = np.empty(len(items), dtype=np.int64)
    fold_of_item[order] = np.arange(len(items)) % settings.folds
    fold_of_pair = fold_of_item[items.rows(train[ITEM])]
    for fold in range(settings.folds):
        yield fold_of_pair != fold, fold_of_pair == fold


def _split_by_masks(
    train: pd.DataFrame,
    is_train: np.ndarray,
    is_test: np.ndarray,
    items: pd.DataFrame | None,
    rule: str,
) -> Split:
    """Return the split in which two masks over the rows of train choose its train and its test."""
    is_relevant = is_test & (train[VALUE].to_numpy() > 0)
    if not is_train.any():
        raise InputError(f"[tune]: a fold by {rule} has no train pairs: {ADVICE}.")
    if not is_relevant.any():
        raise InputError(f"[tune]: a fold by {rule} has no liked test pairs: {ADVICE}.")
    # Items that only the items table holds are candidates too, as in a run.
    candidates = IdMap.of(train.loc[is_train, ITEM], [] if items is None else items[ITEM])
    interactions = interactions_from_table(train[is_train], items=candidates)
    test = interactions_from_table(train[is_test])
    return Split(train=interactions, history=interactions, test=test, rule=rule)
