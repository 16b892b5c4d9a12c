"""Compare the lists of several recommenders: every two tables of lists, user by user."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from recsys.evaluation.agreement.measures import compute_measures, parse_measures
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.schema import ITEM, RANK, USER, unify_ids

DEFAULT_MEASURES = ("overlap", "rbo", "tau_b")
"""The names of the measures of :func:`pairwise_agreement` if none are named."""


def pairwise_agreement(
    tables: dict[str, pd.DataFrame],
    measures: Iterable[str] = DEFAULT_MEASURES,
) -> pd.DataFrame:
    """Return how much the lists of every two tables agree, one row per pair of tables and user.

    The columns of the result are ``a`` and ``b`` (the names of the two tables), ``user_id``, and one
    column per measure, NaN where it is undefined. Only users with a list in both tables have a row.
    With fewer than two tables, the result has no rows. In correlations, the items that a list lacks
    are tied below its end (``missing="bottom"``), unless the name of the measure says otherwise.

    Args:
        tables: name -> table of lists (user_id, item_id, rank), with an item at most once per user.
        measures: names of measures of ``agreement.measures``, such as "rbo" or "overlap@10".

    Raises:
        ConfigError: the name of a measure is not valid.
        InputError: a list has an item twice.

    >>> one = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    >>> two = pd.DataFrame({"user_id": [1, 1], "item_id": [7, 9], "rank": [1, 2]})
    >>> pairwise_agreement({"one": one, "two": two}, ["overlap"]).values.tolist()
    [['one', 'two', 1, 0.5]]
    """
    parsed = parse_measures(measures)
    rankings = dict(zip(tables, _encode_tables(list(tables.values())), strict=True))
    frames = []
    for a, b in combinations(tables, 2):
        users_a, lists_a = rankings[a]
        users_b, lists_b = rankings[b]
        users = users_a.intersection(users_b, sort=False)
        pairs = Pairs(
            lists_a,
            lists_b,
            users_a.get_indexer(users),
            users_b.get_indexer(users),
            "bottom",
        )
        values = compute_measures(pairs, parsed)
        frames.append(pd.DataFrame({"a": a, "b": b, USER: users, **values}))
    if not frames:
        return pd.DataFrame(columns=["a", "b", USER, *map(str, parsed)])
    return pd.concat(frames, ignore_index=True)


def _encode_tables(tables: list[pd.DataFrame]) -> list[tuple[pd.Index, Rankings]]:
    """Return, for each table, the ids of its users and their lists, in the same order.

    Items are coded as integers. An item has the same code in all tables.
    """
    user_columns = unify_ids(*(table[USER] for table in tables))
    item_columns = unify_ids(*(table[ITEM] for table in tables))
    codes, _ = pd.factorize(np.concatenate([column.to_numpy(dtype=object) for column in item_columns]))
    codes_by_table = np.split(codes, np.cumsum([len(table) for table in tables])[:-1])
    encoded = []
    for table, user_column, item_codes in zip(tables, user_columns, codes_by_table, strict=True):
        user_codes, user_ids = pd.factorize(user_column)
        order = np.lexsort((table[RANK].to_numpy(), user_codes))
        offsets = np.append(0, np.cumsum(np.bincount(user_codes, minlength=len(user_ids))))
        encoded.append((pd.Index(user_ids), Rankings.from_flat(item_codes[order], offsets)))
    return encoded
