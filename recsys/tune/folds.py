"""Folds of the train part, each of which replaces the test part in a search: time windows, or pairs
or items by hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.config import Config, RecommendSettings, TuneSettings
from recsys.data.hashing import id_hash, pair_hash
from recsys.data.reading.reviews import read_reviews, with_text_ids
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.features.reviews import REVIEW_COLUMNS, add_review_columns, hide_unknown_pairs, reviews_of_train
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Features, IdMap, Split

ADVICE = "use fewer folds, or another share or rule"
"""What to do if a fold is empty, for error messages."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A split of the train part of a run into its own train and test.

    Attributes:
        split: the train and test pairs of the fold.
        item_features: the features of the items of ``split.train``, or None without an items table.
        truth: the relevant items of the test pairs, and the metric by which lists are judged.
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
    """Return the folds of a train part, as many as ``config.tune.folds`` says.

    ``config.fold_rule`` says by which rule the pairs are divided:

    * ``time``: the latest pairs are divided into one window of time per fold, earliest first. Each
      window has the share ``config.tune.share`` of all pairs. A fold tests on the pairs of its
      window, and trains on all earlier pairs. Pairs with equal times are on the same side.
    * ``pairs``: a hash of (item, user) decides which fold tests on a pair. All other folds train on
      the pair.
    * ``items``: a hash divides the items among the folds; their numbers of items differ by at most
      one. A fold tests on all pairs of its items, and trains on all other pairs.

    Args:
        train: the train pairs of a run: user_id, item_id, value, timestamp (-1 where unknown).
        config: the config of the run.
        metric: the name of the metric by which the folds are judged.
        items: the items table of the run, or None. Its items are candidates too. If the run has
            reviews, the columns from the reviews are computed again for each fold, without the
            reviews of tested pairs.

    Raises:
        InputError: the rule is ``time`` and not every pair has a time, or a fold has no train pairs
            or no relevant test pairs.
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
    reviews = None
    if items is not None and config.data.reviews is not None:
        table = with_text_ids(read_reviews(config.data.reviews, config.data.reading))
        reviews = hide_unknown_pairs(table, interactions_from_table(train))
        items = items.drop(columns=list(REVIEW_COLUMNS), errors="ignore")
    folds = []
    for is_train, is_test in masks:
        split = _split_by_masks(train, is_train, is_test, items, rule)
        item_features = None
        if items is not None:
            described = items
            if reviews is not None:
                of_fold = reviews_of_train(reviews, split.train, split.test, has_ratings=False)
                described = add_review_columns(items, of_fold, split.train.items)
            item_features = encode_features(described, ITEM, split.train.items)
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

    The lists of a fold rank the same kind of items as those of the run: all candidates of the fold,
    only those with an event in its train part, or only those without (``config.candidates``).

    Args:
        split: the train and test pairs of the fold.
        config: the config of the run.
        metric: the name of the metric.
    """
    settings = config.judge.model_copy(update={"metrics": (metric,), "segments": (), "candidates": config.candidates})
    return Truth.from_split(split, settings, exclude_seen=config.recommend.exclude_seen)


def fit_and_judge(model: Recommender, fold: Fold, settings: RecommendSettings) -> pd.Series:
    """Fit a model on the train pairs of a fold, and judge its lists by the test pairs.

    The result is a Series of the metric of the fold by user id, NaN for a user without a relevant
    test pair.

    Args:
        model: the model, which this function fits.
        fold: the fold.
        settings: the settings of the lists.
    """
    fitted = model.fit(fold.split.train, fold.item_features)
    return judge_fitted(fitted, fold.truth, settings)


def judge_fitted(model: Recommender, truth: Truth, settings: RecommendSettings) -> pd.Series:
    """Judge the lists of a fitted model, and return a Series of the first metric by user id.

    The metric is the first one of ``truth.settings``, NaN for a user without a relevant item. The
    lists rank the items that the truth names, and leave out seen items if the truth does.

    Args:
        model: a fitted model.
        truth: the histories and the relevant items of the tested users.
        settings: the length of the lists, and the memory that may be used.
    """
    options = RecommendOptions(
        exclude_seen=truth.exclude_seen, candidates=truth.ranked_items, memory_mb=settings.memory_mb
    )
    topk = recommend(model, truth.histories, settings.k, options=options)
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
    items = IdMap.from_ids(train[ITEM])
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
    candidates = IdMap.from_ids(train.loc[is_train, ITEM], [] if items is None else items[ITEM])
    interactions = interactions_from_table(train[is_train], items=candidates)
    test = interactions_from_table(train[is_test])
    return Split(train=interactions, history=interactions, test=test, rule=rule)
