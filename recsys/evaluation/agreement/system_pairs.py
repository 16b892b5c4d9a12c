"""How alike the lists of several systems are: every pair of topk tables, user by user."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from recsys.evaluation.agreement.measures import parse_all, score
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.schema import ITEM, RANK, USER, one_kind

MEASURES = ("overlap", "rbo", "tau_b")


def alike(tables: dict[str, pd.DataFrame], measures: Iterable[str] = MEASURES) -> pd.DataFrame:
    """Return ``a``, ``b``, ``user_id``, then the measures: a row for each pair of tables and user that both serve.

    What one list holds and the other does not stands below its end (``missing="bottom"``); NaN = undefined.

    Args:
        tables: name -> topk table (user_id, item_id, rank); an item at most once a user.

    >>> one = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> two = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 9], "rank": [1, 2]})
    >>> alike({"one": one, "two": two}, ["overlap"]).values.tolist()
    [['one', 'two', 1, 0.5]]
    """
    chosen = parse_all(measures)
    lists = dict(zip(tables, _lists(list(tables.values())), strict=True))
    found = []
    for a, b in combinations(tables, 2):
        (users, ours), (others, theirs) = lists[a], lists[b]
        both = users.intersection(others, sort=False)
        pairs = Pairs(ours, theirs, users.get_indexer(both), others.get_indexer(both), "bottom")
        values = score(pairs, chosen)
        found.append(pd.DataFrame({"a": a, "b": b, USER: both, **values}))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["a", "b", USER, *map(str, chosen)])


def _lists(tables: list[pd.DataFrame]) -> list[tuple[pd.Index, Rankings]]:
    """Return (users, their lists) of each table, with one code for one item in all of them."""
    users, items = one_kind(*(t[USER] for t in tables)), one_kind(*(t[ITEM] for t in tables))
    codes, _ = pd.factorize(np.concatenate([column.to_numpy(dtype=object) for column in items]))
    parts = np.split(codes, np.cumsum([len(table) for table in tables])[:-1])
    found = []
    for table, user, item in zip(tables, users, parts, strict=True):
        who, names = pd.factorize(user)
        order = np.lexsort((table[RANK].to_numpy(), who))
        offsets = np.append(0, np.cumsum(np.bincount(who, minlength=len(names))))
        found.append((pd.Index(names), Rankings.of_orders(item[order], offsets)))
    return found
