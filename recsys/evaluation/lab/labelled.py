"""Test agreement measures on real ratings: do they prefer a ranking that was made for the right user?

The events of each user are split by time into two halves. A model is fitted on the first halves of
all users. It ranks the items of a user's second half twice: once from the first half of this user,
and once from the first half of another user. A measure then compares both rankings with the user's
ratings of these items. A good measure gives more agreement to the first ranking for most users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.lab.studies import MeasureFunction
from recsys.evaluation.testing.significance import mean_ci
from recsys.recommender import Recommender
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Histories, IdMap, Interactions

MIN_HALF_EVENTS = 8
"""Smallest number of events in each half. Users with fewer are left out, and counted."""
MIN_USERS = 20
"""The smallest number of users with which :func:`discrimination_auc` works."""


def discrimination_auc(
    events: pd.DataFrame,
    model: Recommender,
    measures: Mapping[str, MeasureFunction],
    *,
    max_users: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return for each measure how often it prefers a ranking for the right user to one for another user.

    The events of a user are split by time into two halves. The items of the second half are ranked
    in three ways: by the user's ratings, by the model from the first half of this user, and by the
    model from the first half of another user, chosen at random. The AUC of a measure is the share
    of users for whom the ranking from the own half agrees more with the ratings than the other one.
    Equal agreement counts half. Users for whom the measure is undefined are left out.

    The result is a dict: ``users``, the number of compared users; ``left_out``, the number of users
    with too few events; and ``measures``, name -> a dict of ``auc``, ``ci95`` (its 95 % interval)
    and ``users`` (the number of users for whom the measure is defined).

    Args:
        events: a table of user_id, item_id, value (the rating), and optionally timestamp. Without
            timestamps, the rows must be in order of time. Of several rows of one (user, item) pair,
            the last one in the table counts.
        model: the model, which this function fits on the first halves. From each value, the mean of
            the user's first half is subtracted. So items above this mean are liked, and items below
            are disliked.
        measures: name -> measure. A measure for which smaller values mean more agreement is
            recognised as a distance.
        max_users: the largest number of users to compare. If more have enough events, this number
            is drawn at random.
        seed: the seed of the random draw and of the intervals.

    Raises:
        InputError: there are no values, all values are equal, or fewer than :data:`MIN_USERS` users
            have :data:`MIN_HALF_EVENTS` events in each half.
    """
    if VALUE not in events or events[VALUE].nunique() < 2:
        raise InputError(
            "the lab compares lists with ratings: it needs events with a column 'value' of at least two values",
        )
    table = events.drop_duplicates([USER, ITEM], keep="last")
    if TIME in table:
        table = table.sort_values(TIME, kind="stable")
    users = IdMap.from_ids(table[USER])
    items = IdMap.from_ids(table[ITEM])
    user = users.rows(table[USER])
    item = items.rows(table[ITEM])
    value = table[VALUE].to_numpy(dtype=np.float64)
    position = table.groupby(USER).cumcount().to_numpy()
    event_counts = np.bincount(user, minlength=len(users))
    is_first_half = position < (event_counts // 2)[user]
    train = _centred_interactions(
        users,
        items,
        user[is_first_half],
        item[is_first_half],
        value[is_first_half],
    )
    is_second_half = ~is_first_half
    second_half_cells = (user[is_second_half], item[is_second_half])
    ratings = csr_array((value[is_second_half], second_half_cells), shape=(len(users), len(items)))
    is_eligible = event_counts >= 2 * MIN_HALF_EVENTS
    eligible = np.flatnonzero(is_eligible)
    if len(eligible) < MIN_USERS:
        raise InputError(
            f"{len(eligible)} users have {2 * MIN_HALF_EVENTS} events or more: the lab needs {MIN_USERS} of them",
        )
    sample = np.random.default_rng(seed).permutation(eligible)[:max_users]
    model.fit(train)
    own_lists, other_lists, rated_lists = _rank_second_halves(
        model,
        train.histories(),
        ratings,
        sample,
    )
    results = {}
    for name, measure in measures.items():
        own_user = measure(Pairs.row_by_row(rated_lists, own_lists))
        other_user = measure(Pairs.row_by_row(rated_lists, other_lists))
        advantage = (own_user - other_user) * _direction(measure)
        wins = np.where(np.isnan(advantage), np.nan, (np.sign(advantage) + 1) / 2)
        auc, low, high = mean_ci(wins, seed=seed)
        results[name] = {"auc": auc, "ci95": [low, high], "users": int((~np.isnan(wins)).sum())}
    return {"users": len(sample), "left_out": int((~is_eligible).sum()), "measures": results}


def _direction(measure: MeasureFunction) -> int:
    """Return 1 for a measure that is larger for more agreement, −1 for a distance."""
    truth = Rankings.from_padded(np.array([[0, 1, 2], [0, 1, 2]]))
    identical, reversed_order = measure(
        Pairs.row_by_row(truth, Rankings.from_padded(np.array([[0, 1, 2], [2, 1, 0]]))),
    )
    if reversed_order > identical:
        return -1
    return 1


def _centred_interactions(
    users: IdMap,
    items: IdMap,
    user: np.ndarray,
    item: np.ndarray,
    value: np.ndarray,
) -> Interactions:
    """Return Interactions with the value of each event minus the mean value of its user.

    The Interactions have no times.

    Args:
        users, items: the ids of the users and of the items.
        user, item, value: int[n], int[n] and float64[n], the row of the user, the row of the item,
            and the value of each event.
    """
    count = np.maximum(np.bincount(user, minlength=len(users)), 1)
    mean = np.bincount(user, weights=value, minlength=len(users)) / count
    centred = value - mean[user]
    order = np.lexsort((item, user))
    return Interactions(
        users,
        items,
        user[order].astype(np.int32),
        item[order].astype(np.int32),
        centred[order].astype(np.float32),
        np.full(len(user), -1, dtype=np.int64),
    )


def _rank_second_halves(
    model: Recommender,
    histories: Histories,
    ratings: csr_array,
    users: np.ndarray,
    block: int = 256,
) -> tuple[Rankings, Rankings, Rankings]:
    """Rank the items of each user's second half in three ways, and return the three Rankings.

    The first ranking is by the model's scores from the user's own history. The second one is by its
    scores from the history of the next user in ``users``. The third one is by the user's ratings. An
    item that has no score from one of the two histories is left out of all three rankings.

    Args:
        histories: the first halves.
        ratings: csr (users, items), the second halves.
        users: rows of the users, in random order.
        block: number of users that are scored at a time.
    """
    # The users are in random order, so the next one is a random other user.
    other_users = np.roll(users, -1)
    blocks = []
    for start in range(0, len(users), block):
        own_rows = users[start : start + block]
        other_rows = other_users[start : start + block]
        tested = ratings[own_rows]
        row = np.repeat(np.arange(tested.shape[0]), np.diff(tested.indptr))
        cells = (row, tested.indices)
        own_scores = model.score(histories[own_rows], own_rows)[cells]
        other_scores = model.score(histories[other_rows], other_rows)[cells]
        is_scored = ~np.isnan(own_scores) & ~np.isnan(other_scores)
        arrays = (start + row, tested.indices, own_scores, other_scores, tested.data)
        blocks.append([array[is_scored] for array in arrays])
    row, item, *columns = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    shape = (len(users), ratings.shape[1])
    own_lists, other_lists, rated_lists = (
        Rankings.from_scores(csr_array((values, (row, item)), shape=shape)) for values in columns
    )
    return own_lists, other_lists, rated_lists
