"""The reviews that models of one train part may learn from, and ratings filled in from their texts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys.data.weigh import aggregate_events, interactions_to_table
from recsys.errors import InputError
from recsys.features.review_scores import LEAST_REVIEWS, ReviewScores, scores_of_items
from recsys.features.terms import compute_once
from recsys.schema import ITEM, SCORE, TEXT, TIME, USER, VALUE
from recsys.types import Features, IdMap, Interactions, Reviews

REVIEW_COLUMNS = ("review_words", "review_score")
"""The columns that :func:`add_review_columns` adds."""


def reviews_of_train(
    table: pd.DataFrame, train: Interactions, test: Interactions | None = None, *, has_ratings: bool = True
) -> Reviews:
    """Return the reviews that models of a train part may learn from.

    A review by a tested user of the tested item is left out, for it says what is to be predicted.
    So are reviews of items that are no candidates of train. A review without a score gets the
    rating of its user and item in train, if the values of train are ratings.

    Args:
        table: the table of reviews, see :class:`recsys.data.reading.read.Tables`.
        train: the ratings of the train part.
        test: the ratings of the test part. None: no pair is tested.
        has_ratings: whether the values of train are on the scale of the scores. False for logs of
            likes, where a value says how often.
    """
    keep = train.items.rows(table[ITEM]) >= 0
    if test is not None:
        keep &= find_entries(test, test.users.rows(table[USER]), test.items.rows(table[ITEM])) < 0
    table = table[keep]
    user = train.users.rows(table[USER])
    item = train.items.rows(table[ITEM])
    score = table[SCORE].to_numpy(dtype=np.float64, copy=True)
    if has_ratings:
        entry = find_entries(train, user, item)
        is_rated = np.isnan(score) & (entry >= 0)
        score[is_rated] = train.value[entry[is_rated]]
    return Reviews(
        user=user,
        item=item,
        text=table[TEXT].to_numpy(dtype=object),
        score=score,
        is_filled=np.zeros(len(table), dtype=bool),
        user_ids=table[USER],
    )


def hide_unknown_pairs(table: pd.DataFrame, train: Interactions) -> pd.DataFrame:
    """Return a table of reviews without those by a user of train of an item that this user has no entry for.

    Such a review can be of a pair of the test part, which a search for settings may not read.

    Args:
        table: the table of reviews.
        train: the whole train part of a run.
    """
    user = train.users.rows(table[USER])
    entry = find_entries(train, user, train.items.rows(table[ITEM]))
    return table[(user < 0) | (entry >= 0)]


def add_reviewed_items(items: pd.DataFrame | None, reviews: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the items table with a row for every item of the table of reviews, so that it is a candidate.

    Args:
        items, reviews: the tables, or None. The result is None if both are.
    """
    if reviews is None:
        return items
    reviewed = pd.DataFrame({ITEM: reviews[ITEM].drop_duplicates()})
    if items is None:
        return reviewed.reset_index(drop=True)
    return pd.concat([items, reviewed[~reviewed[ITEM].isin(items[ITEM])]], ignore_index=True)


def score_items(reviews: Reviews, items: IdMap) -> tuple[ReviewScores, np.ndarray]:
    """Return what words say, and the text score of each item, float64[items], NaN without a known word.

    Each text is scored by words that were learned from the reviews of other items, so that the text
    scores of old items are as far from the truth as those of new ones. The score of an item is the mean
    of its texts, drawn towards the mean of all items by its variance
    (:func:`recsys.features.review_scores.scores_of_items`).

    Args:
        reviews: the reviews of a train part.
        items: the id map of its items.

    Raises:
        InputError: there are too few reviews with a score to learn what words say.
    """
    scores = ReviewScores().fit(reviews.text, reviews.score, groups=items.ids_of(reviews.item))
    has_words = np.isfinite(scores.held_out)
    of_items = scores_of_items(reviews.item[has_words], scores.held_out[has_words])
    text_score = np.full(len(items), np.nan)
    text_score[of_items[ITEM].to_numpy(dtype=np.int64)] = of_items[SCORE]
    return scores, text_score


def text_scores(features: Features, items: IdMap) -> tuple[ReviewScores, np.ndarray]:
    """Return :func:`score_items` of the reviews of some features, which is computed only once for them.

    Raises:
        InputError: there are no reviews, or too few with a score.
    """
    reviews = features.reviews
    if reviews is None:
        raise InputError("there are no reviews to learn from: give [data] reviews a table.")
    return compute_once(features, ("text scores",), lambda: score_items(reviews, items))


def add_review_columns(items: pd.DataFrame, reviews: Reviews, item_map: IdMap) -> pd.DataFrame:
    """Return the items table with what people wrote, so that models of lists can use it as features.

    The column ``review_words`` has all texts of an item, and ``review_score`` its text score
    (:func:`score_items`). The second one is left out where no score can be learned: with fewer than
    ``LEAST_REVIEWS`` scores, or if all are equal.

    Args:
        items: the items table.
        reviews: the reviews of the train part.
        item_map: the id map of its items.

    Raises:
        InputError: the table has a column of one of these names.
    """
    if taken := [name for name in REVIEW_COLUMNS if name in items]:
        raise InputError(f"the items table has a column '{taken[0]}', which [data] reviews gives: rename it.")
    # A bar would make the column one of lists.
    texts = pd.Series(reviews.text, dtype=object).str.replace("|", " ", regex=False)
    item_texts = texts.groupby(reviews.item).agg(" ".join)
    added = pd.DataFrame({ITEM: item_map.ids_of(item_texts.index.to_numpy()), REVIEW_COLUMNS[0]: item_texts.to_numpy()})
    known_scores = reviews.score[np.isfinite(reviews.score)]
    if len(known_scores) >= LEAST_REVIEWS and np.ptp(known_scores) > 0:
        _, text_score = score_items(reviews, item_map)
        added[REVIEW_COLUMNS[1]] = text_score[item_texts.index]
    return items.merge(added, on=ITEM, how="left")


def fill_ratings(train: Interactions, reviews: Reviews) -> tuple[Interactions, Reviews]:
    """Return train with the ratings that texts without a score say, and the reviews with these marked.

    A review gives a rating if it says who wrote it and has no score. Its user becomes a user of
    train. If several texts of one user are about one item, the rating is the mean of what they say.

    Args:
        train: the ratings.
        reviews: the reviews that :func:`reviews_of_train` returned for them.

    Raises:
        InputError: there are too few reviews with a score to learn what words say.
    """
    is_textual = np.isnan(reviews.score) & reviews.user_ids.notna().to_numpy()
    value = np.full(len(reviews), np.nan)
    if is_textual.any():
        model = ReviewScores().fit(reviews.text, reviews.score)
        value[is_textual] = model.predict(reviews.text[is_textual])
    is_filled = np.isfinite(value)
    filled = pd.DataFrame(
        {
            USER: reviews.user_ids[is_filled].astype(object),
            ITEM: train.items.ids_of(reviews.item[is_filled]),
            VALUE: value[is_filled],
        }
    )
    filled = filled.groupby([USER, ITEM], as_index=False)[VALUE].mean().assign(**{TIME: -1})
    filled = filled.astype({USER: train.users.dtype if train.users.dtype.kind in "iu" else object})
    users = IdMap.of(train.users.ids, filled[USER])
    all_ratings = pd.concat([interactions_to_table(train), filled], ignore_index=True)
    with_filled = aggregate_events(all_ratings, "max", users, train.items)
    marked = Reviews(
        user=users.rows(reviews.user_ids),
        item=reviews.item,
        text=reviews.text,
        score=reviews.score,
        is_filled=is_filled,
        user_ids=reviews.user_ids,
    )
    return with_filled, marked


def find_entries(interactions: Interactions, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the position of the entry of each pair in ``interactions``, int64[m], -1 without one.

    Args:
        users, items: int[m], rows of the users and items of ``interactions``, -1 where unknown.
    """
    columns = len(interactions.items)
    # Entries are sorted by user and item, so their keys ascend.
    keys = interactions.user.astype(np.int64) * columns + interactions.item
    pair_keys = users.astype(np.int64) * columns + items
    position = np.searchsorted(keys, pair_keys).clip(max=max(len(keys) - 1, 0))
    is_entry = (users >= 0) & (items >= 0)
    if len(keys):
        is_entry &= keys[position] == pair_keys
    return np.where(is_entry & (len(keys) > 0), position, -1)
