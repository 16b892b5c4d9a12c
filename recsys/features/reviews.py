"""Select the reviews that models of a train part may learn from, and predict ratings from texts."""

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

    Two kinds of reviews are left out: those of a tested (user, item) pair, because they would
    reveal the rating that is to be predicted, and those of items that are not in ``train.items``. A
    review without a score gets the rating of its user and item in train, if there is one and
    ``has_ratings`` is True.

    Args:
        table: the table of reviews, see :class:`recsys.data.reading.read.Tables`.
        train: the ratings of the train part.
        test: the ratings of the test part. None: no pair is tested.
        has_ratings: whether the values of train are on the scale of the scores. False for logs
            whose values are counts or weights.
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
    """Leave out the reviews of users of train that are about a pair without an entry in train.

    Such a review can be about a pair of the test part, which a search for settings may not read.
    Reviews of unknown users, and of users who are not in train, are kept.

    Args:
        table: the table of reviews.
        train: the whole train part of a run.
    """
    user = train.users.rows(table[USER])
    entry = find_entries(train, user, train.items.rows(table[ITEM]))
    return table[(user < 0) | (entry >= 0)]


def add_reviewed_items(items: pd.DataFrame | None, reviews: pd.DataFrame | None) -> pd.DataFrame | None:
    """Add to the items table a row for each item that only the reviews have, and return the table.

    So every reviewed item is a candidate.

    Args:
        items, reviews: the tables, or None. The result is None if both are None.
    """
    if reviews is None:
        return items
    reviewed = pd.DataFrame({ITEM: reviews[ITEM].drop_duplicates()})
    if items is None:
        return reviewed.reset_index(drop=True)
    return pd.concat([items, reviewed[~reviewed[ITEM].isin(items[ITEM])]], ignore_index=True)


def score_items(reviews: Reviews, items: IdMap) -> tuple[ReviewScores, np.ndarray]:
    """Fit the weights of words, and return them and the text score of each item, float64[items].

    The score of a text is predicted by word weights that were learned from the reviews of other
    items alone. So the text scores of items with known scores have errors as large as those of new
    items. The text score of an item is the mean over its texts, moved towards the mean of all items
    (:func:`recsys.features.review_scores.scores_of_items`). It is NaN for an item that has no text
    with a known word.

    Args:
        reviews: the reviews of a train part.
        items: the id map of its items.

    Raises:
        InputError: the weights of words cannot be learned, for example because too few reviews have
            a score (:meth:`recsys.features.review_scores.ReviewScores.fit`).
    """
    scores = ReviewScores().fit(reviews.text, reviews.score, groups=items.ids_of(reviews.item))
    has_words = np.isfinite(scores.held_out)
    of_items = scores_of_items(reviews.item[has_words], scores.held_out[has_words])
    text_score = np.full(len(items), np.nan)
    text_score[of_items[ITEM].to_numpy(dtype=np.int64)] = of_items[SCORE]
    return scores, text_score


def text_scores(features: Features, items: IdMap) -> tuple[ReviewScores, np.ndarray]:
    """Return the result of :func:`score_items` for the reviews of ``features``.

    It is computed once per object ``features``, and stored as long as that object exists.

    Args:
        features: the features of the items, with their reviews.
        items: the id map of the items.

    Raises:
        InputError: there are no reviews, or the weights of words cannot be learned from them.
    """
    reviews = features.reviews
    if reviews is None:
        raise InputError("there are no reviews to learn from: give [data] reviews a table.")
    return compute_once(features, ("text scores",), lambda: score_items(reviews, items))


def add_review_columns(items: pd.DataFrame, reviews: Reviews, item_map: IdMap) -> pd.DataFrame:
    """Return the items table with two columns from the reviews, as features for models of lists.

    The column ``review_words`` has all texts of an item, and ``review_score`` its text score
    (:func:`score_items`). Items without a review have missing values. The column ``review_score``
    is left out if there are fewer than ``LEAST_REVIEWS`` reviews with a score, or if all scores are
    equal.

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
    """Add to train a predicted rating for each review that has a user but no score.

    Returns train with these ratings, and the reviews, in which ``is_filled`` marks those whose
    rating was predicted. The user of such a review becomes a user of train. If several texts of one
    user are about one item, the rating is the mean of their predictions. A text without a known
    word gives no rating.

    Args:
        train: the ratings.
        reviews: the reviews that :func:`reviews_of_train` returned for this train part.

    Raises:
        InputError: the weights of words cannot be learned, for example because too few reviews have
            a score.
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
    users = IdMap.from_ids(train.users.ids, filled[USER])
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
    """Return the position of each pair in ``interactions``, int64[m], or -1 if it is not there.

    Args:
        interactions: the entries to search.
        users, items: int[m], the rows of the user and of the item of each pair, -1 where unknown.
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
