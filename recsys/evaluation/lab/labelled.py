"""The lab's labelled data: can a measure tell a user's own model from a stranger's?

Every user's events are halved by time. A model learns from all first halves. It ranks the films of a user's second half
once from that user's first half and once from a stranger's; both are compared with the user's own ratings of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.lab.studies import Score
from recsys.evaluation.testing.significance import mean_ci
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import IdMap, Interactions, Recommender

LEAST = 8
"""Users with fewer events in either half are left out, and counted."""


def tell_apart(
    events: pd.DataFrame, model: Recommender, measures: Mapping[str, Score], *, most: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return, per measure, the chance that own beats stranger, a tie being half a win, with its 95 % interval.

    Args:
        events: user_id, item_id, value, and timestamp if there is one, else the order of the rows is time.
        model: not fitted; it is trained on first halves, values less their user's mean: more is liked, less disliked.
        most: users to look at, chosen at random.

    Raises:
        InputError: no values, or too few users with :data:`LEAST` events in each half.
    """
    if VALUE not in events or events[VALUE].nunique() < 2:
        raise InputError("the lab compares lists with ratings: it needs events with a value, and more than one value")
    table = events.drop_duplicates([USER, ITEM], keep="last")
    table = table.sort_values(TIME, kind="stable") if TIME in table else table
    users, items = IdMap.of(table[USER]), IdMap.of(table[ITEM])
    user, item = users.rows(table[USER]), items.rows(table[ITEM])
    value = table[VALUE].to_numpy(dtype=np.float64)
    place, size = table.groupby(USER).cumcount().to_numpy(), np.bincount(user, minlength=len(users))
    first = place < (size // 2)[user]
    train = _interactions(users, items, user[first], item[first], value[first])
    rated = csr_array((value[~first], (user[~first], item[~first])), shape=(len(users), len(items)))
    chosen = np.flatnonzero(size >= 2 * LEAST)
    if len(chosen) < 20:
        raise InputError(f"{len(chosen)} users have {2 * LEAST} events or more: the lab needs 20 of them")
    chosen = np.random.default_rng(seed).permutation(chosen)[:most]
    model.fit(train)
    own, stranger, truth = _lists(model, train.matrix(), rated, chosen)
    found = {}
    for name, score in measures.items():
        better = (score(Pairs.row_by_row(truth, own)) - score(Pairs.row_by_row(truth, stranger))) * _direction(score)
        wins = np.where(np.isnan(better), np.nan, (np.sign(better) + 1) / 2)
        auc, low, high = mean_ci(wins, seed=seed)
        found[name] = {"auc": auc, "ci95": [low, high], "users": int((~np.isnan(wins)).sum())}
    return {"users": len(chosen), "left_out": int((size < 2 * LEAST).sum()), "measures": found}


def _direction(score: Score) -> int:
    """Return 1 when more is closer, −1 for a distance."""
    two = Rankings.from_padded(np.array([[0, 1, 2], [0, 1, 2]]))
    same, turned = score(Pairs.row_by_row(two, Rankings.from_padded(np.array([[0, 1, 2], [2, 1, 0]]))))
    return -1 if turned > same else 1


def _interactions(users: IdMap, items: IdMap, user: np.ndarray, item: np.ndarray, value: np.ndarray) -> Interactions:
    """Return first halves with each user's mean taken off."""
    count = np.maximum(np.bincount(user, minlength=len(users)), 1)
    mean = np.bincount(user, weights=value, minlength=len(users)) / count
    order = np.lexsort((item, user))
    user, item, value = user[order], item[order], (value - mean[user])[order]
    time = np.full(len(user), -1, dtype=np.int64)
    return Interactions(users, items, user.astype(np.int32), item.astype(np.int32), value.astype(np.float32), time)


def _lists(
    model: Recommender, histories: csr_array, rated: csr_array, chosen: np.ndarray, block: int = 256
) -> tuple[Rankings, Rankings, Rankings]:
    """Return each chosen user's second half ranked by the own model, by the next user's, and by the ratings."""
    strangers, parts = np.roll(chosen, -1), []
    for at in range(0, len(chosen), block):
        rows = slice(at, at + block)
        test = rated[chosen[rows]]
        row = np.repeat(np.arange(test.shape[0]), np.diff(test.indptr))
        scores = [model.score(histories[who], who)[row, test.indices] for who in (chosen[rows], strangers[rows])]
        known = ~np.isnan(scores[0]) & ~np.isnan(scores[1])
        where = (at + row[known], test.indices[known])
        parts.append((*where, scores[0][known], scores[1][known], test.data[known]))
    row, item, *columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    shape = (len(chosen), rated.shape[1])
    own, stranger, truth = (Rankings.from_scores(csr_array((values, (row, item)), shape=shape)) for values in columns)
    return own, stranger, truth
