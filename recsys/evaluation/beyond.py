"""Beyond accuracy: how lists use the catalogue, and how novel,
diverse and surprising they are for a user.

There are two kinds of number. Those of all lists together (coverage, Gini, entropy,
personalisation) follow from how often each item is listed. The others are one number per user,
averaged with an interval like any metric. Both engines call these functions: with counts per item,
and with batches of users. Formulas and edge cases: docs/deciding.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, diags_array

from recsys.data.card import gini_coefficient
from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.groups import (
    POPULARITY,
    Groups,
    by_item_group,
    popularity_codes,
    table_groups,
)
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.schema import ITEM
from recsys.types import Evaluation, IdMap, TopK

OF_ALL_LISTS = {
    "coverage": "share of the candidates that are in at least one list",
    "gini": "inequality of how often candidates are listed: 0 all alike, near 1 a few take everything",
    "entropy": "of the listed items, in bits: 2^entropy equally frequent items would be as varied",
    "personalisation": "1 - mean overlap of two users' lists: 0 everyone sees the same, 1 nobody shares an item",
}
OF_A_LIST = {
    "novelty": "mean of -log2(share of train users who like the item), in bits",
    "popularity_lift": "mean likes of the listed items over those of the user's liked items, minus 1",
    "tail_share": "share of the listed items that are in the tail: the last third of all likes",
    "serendipity": "share of the places with a relevant item that a list of the most popular items would not show",
}
OF_FEATURES = {
    "diversity": "1 - mean cosine between the attributes of two listed items",
    "calibration": "KL divergence of the attribute shares of the list from those of the user's history; 0 is best",
}
DEFINITIONS = OF_ALL_LISTS | OF_A_LIST | OF_FEATURES

KEEP = 0.01
"""Calibration compares the user's shares with (1 - KEEP) · the list's + KEEP · the user's,
so that it is finite."""


@dataclass(frozen=True)
class Catalogue:
    """The candidates' popularity in train, and their groups and attributes from the items table.

    ``likes``: int64[items], train users who like each (value > 0). ``users``: train users.
    ``attributes``: csr (items, values) of 0 and 1, or None. ``groups``: item groupings, popularity
    first.
    """

    likes: np.ndarray
    users: int
    attributes: csr_array | None
    groups: tuple[Groups, ...]

    @classmethod
    def from_items(
        cls,
        likes: np.ndarray,
        users: int,
        settings: EvaluationSettings,
        ids: IdMap,
        table: pd.DataFrame | None = None,
    ) -> Catalogue:
        """Read groups and attributes off the items ``table``:
        the columns that ``settings`` names and it has.

        Raises:
            ConfigError: ``[judge] attribute`` names no column of the items table.
        """
        names = []
        if table is not None:
            names = [name for name in settings.segments if name in table]
        groups = [
            Groups.from_codes(POPULARITY, popularity_codes(likes)),
            *table_groups(names, table, ITEM, ids.ids),
        ]
        return cls(likes, users, attributes(settings.attribute, ids, table), tuple(groups))

    @property
    def measures(self) -> tuple[str, ...]:
        """The numbers that each user gets."""
        return (*OF_A_LIST, *(OF_FEATURES if self.attributes is not None else ()))


def attributes(column: str | None, ids: IdMap, table: pd.DataFrame | None) -> csr_array | None:
    """Return float64 csr (items, values) of 0 and 1; None without a table,
    a column that holds lists, or any value.

    ``column``: of the items table; default: the first that holds lists.

    Raises:
        ConfigError: the table has no such column.
    """
    columns = []
    if table is not None:
        columns = [name for name in table.columns if name != ITEM]
    if column is not None and column not in columns:
        raise ConfigError(
            f"[judge] attribute, or --by: the items table has no '{column}'.{suggest_nearest(column, columns)}"
        )
    if table is None:
        return None
    name = column or next((name for name in columns if table[name].map(_is_list).any()), None)
    if name is None:
        return None
    matrix = encode_features(table[[ITEM, name]], ITEM, ids).matrix.astype(np.float64)
    matrix.data[:] = 1.0
    if matrix.nnz:
        return matrix
    return None


def _is_list(cell: Any) -> bool:
    if isinstance(cell, str):
        return "|" in cell
    return isinstance(cell, list | tuple | np.ndarray)


def extend(evaluation: Evaluation, topk: TopK, truth: Truth, catalogue: Catalogue) -> Evaluation:
    """Return the evaluation with further columns per user (the primary metric within each item
    group, then novelty, diversity and the like) and, in ``about["beyond"]``, what all lists have
    together (coverage, Gini, …).

    ``topk``: the lists that were evaluated, row by row.
    """
    columns = per_user(topk, truth, catalogue)
    all_lists = of_all_lists(*exposure(topk.items, len(catalogue.likes)))
    per_row = pd.concat([evaluation.per_user, pd.DataFrame(columns, index=evaluation.per_user.index)], axis=1)
    return Evaluation(evaluation.name, per_row, evaluation.about | {"beyond": all_lists})


def per_user(topk: TopK, truth: Truth, catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Return column -> float64[m]: the primary metric within each item group,
    then the catalogue's measures.

    Args:
        topk: one list per user of ``truth``, in its order; items are rows of the catalogue.
        truth: what its histories store is seen, what is > 0 there is liked. Where lists leave out
            seen items, so do the most popular items that serendipity compares with.
    """
    settings = truth.settings
    histories = truth.histories.values
    primary = parse_all(settings.metrics)[0]
    columns: dict[str, np.ndarray] = {}
    for groups in catalogue.groups:
        columns |= by_item_group(topk, truth, groups, primary)
    if settings.missing_users == "skip":
        skip = topk.items[:, 0] < 0
        columns = {name: np.where(skip, np.nan, values) for name, values in columns.items()}
    liked = csr_array(histories > 0).astype(np.float64)
    columns["novelty"] = _list_mean(topk.items, -np.log2(np.maximum(catalogue.likes, 1) / catalogue.users))
    liked_popularity = _ratio(liked @ catalogue.likes.astype(np.float64), liked.sum(axis=1))
    columns["popularity_lift"] = _ratio(_list_mean(topk.items, catalogue.likes), liked_popularity) - 1
    columns["tail_share"] = _list_mean(topk.items, catalogue.groups[0].membership[:, -1])
    columns["serendipity"] = serendipity(
        topk, truth.relevant, catalogue.likes, histories if truth.exclude_seen else None
    )
    if catalogue.attributes is not None:
        listed = _listed(topk.items, len(catalogue.likes))
        columns["diversity"] = diversity(listed, catalogue.attributes)
        columns["calibration"] = calibration(listed, liked, catalogue.attributes)
    return columns


def serendipity(topk: TopK, relevant: csr_array, likes: np.ndarray, seen: csr_array | None) -> np.ndarray:
    """Return float64[m] in [0, 1]: places with a relevant item that the popular list
    of k does not have, over k.

    That list holds the k most liked items that the user has not ``seen`` (the lower row first among
    equals), so the model ``popular`` scores exactly 0. NaN without anything relevant.

    Differs from: definitions that multiply by a similarity to the history. Reference: Ge,
    Delgado-Battenfeld and Jannach, RecSys 2010 (a primitive model stands for what is expected).
    """
    m, k = topk.items.shape
    rank = np.empty(len(likes), dtype=np.int64)
    rank[np.argsort(-likes, kind="stable")] = np.arange(len(likes))
    last = np.full(m, k - 1)
    if seen is not None:
        # The k-th unseen item has rank k - 1 + the number of seen items that rank above it. A seen
        # item ranks above it when fewer than k unseen items rank above that seen item.
        row = np.repeat(np.arange(m), np.diff(seen.indptr))
        seen_rank = np.sort(row * len(likes) + rank[seen.indices]) - row * len(likes)
        unseen_above = seen_rank - (np.arange(len(row)) - np.repeat(seen.indptr[:-1], np.diff(seen.indptr)))
        last += np.bincount(row[unseen_above < k], minlength=m)
    hits = csr_array(_listed(topk.items, len(likes)).multiply(relevant[:, : len(likes)] > 0))
    row = np.repeat(np.arange(m), np.diff(hits.indptr))
    surprising = np.bincount(row[rank[hits.indices] > last[row]], minlength=m) / k
    return np.where(np.diff(relevant.indptr) == 0, np.nan, surprising)


def diversity(listed: csr_array, attributes: csr_array) -> np.ndarray:
    """Return float64[m] in [0, 1]: 1 - mean cosine over all pairs of items
    in a list (intra-list diversity).

    Items without attributes are left out of the pairs; NaN with fewer than two left. The sum over
    pairs is (|Σ f|² - n) / 2 for unit vectors f, so that no pair is visited.
    Reference: Smyth and McClave, ICCBR 2001; Ziegler et al., WWW 2005.
    """
    lengths = np.sqrt(attributes.multiply(attributes).sum(axis=1))
    unit = diags_array(_ratio(np.ones(len(lengths)), lengths, empty=0.0)) @ attributes
    total = csr_array(listed @ unit)
    n = listed @ (lengths > 0).astype(np.float64)
    cosines = (total.multiply(total).sum(axis=1) - n) / 2
    return 1 - _ratio(cosines, n * (n - 1) / 2)


def calibration(listed: csr_array, liked: csr_array, attributes: csr_array) -> np.ndarray:
    """Return float64[m] ≥ 0: Σ_g p(g) ln(p(g) / ((1 - KEEP) q(g) + KEEP p(g))),
    0 when the shares are the same.

    p and q are the shares of each attribute g among liked and listed items, where an item splits
    one vote evenly between its attributes. At most -ln KEEP = 4.6, when list and history share
    nothing. NaN without any on either side.

    Differs from: Steck weighs recent history more if told so; every item weighs the same here.
    Reference: Steck, RecSys 2018, equations 3-6.
    """
    votes = diags_array(_ratio(np.ones(attributes.shape[0]), attributes.sum(axis=1), empty=0.0)) @ attributes
    p = _shares(liked @ votes)
    q = _shares(listed @ votes)
    mixed = csr_array((1 - KEEP) * q + KEEP * p).multiply(p.sign())
    over = csr_array(mixed)
    over.sort_indices()
    terms = csr_array((p.data * np.log(p.data / over.data), p.indices, p.indptr), shape=p.shape)
    undefined = (np.diff(p.indptr) == 0) | (np.diff(q.indptr) == 0)
    return np.where(undefined, np.nan, np.maximum(terms.sum(axis=1), 0.0))


def exposure(items: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return (int64[n] times that each item is listed, float64[n] Σ 1/√length of those lists, lists
    that hold any).

    ``items``: int[m, k], -1 padding. Parts of the users add up.
    """
    lengths = (items >= 0).sum(axis=1)
    row, position = np.nonzero(items >= 0)
    listed = items[row, position]
    weight = np.bincount(listed, weights=1 / np.sqrt(lengths[row]), minlength=n)
    return np.bincount(listed, minlength=n), weight, int((lengths > 0).sum())


def of_all_lists(times: np.ndarray, weight: np.ndarray, lists: int) -> dict[str, dict[str, float]]:
    """Return measure -> {"value": x} from what :func:`exposure` returns; NaN without lists.

    The overlap of two lists is the number of shared items over the geometric mean of their lengths
    (shared / k for equal ones). Its mean over all pairs is (Σ_i weight_i² - lists) / (lists (lists
    - 1)): exact, without the pairs.
    """
    total = times.sum()
    share = times[times > 0] / max(total, 1)
    overlap = np.nan
    if lists > 1:
        overlap = (float(weight @ weight) - lists) / (lists * (lists - 1))
    values = {
        "coverage": float((times > 0).mean()) if len(times) else np.nan,
        "gini": gini_coefficient(np.sort(times)),
        "entropy": float(-(share * np.log2(share)).sum()) if total else np.nan,
        "personalisation": 1 - overlap,
    }
    return {name: {"value": value} for name, value in values.items()}


def _list_mean(items: np.ndarray, of_item: np.ndarray) -> np.ndarray:
    """Return float64[m], the mean of a number over the items of each list; NaN for an empty one."""
    present = items >= 0
    total = np.where(present, np.asarray(of_item, dtype=np.float64)[np.maximum(items, 0)], 0.0).sum(axis=1)
    return _ratio(total, present.sum(axis=1))


def _listed(items: np.ndarray, n: int) -> csr_array:
    """Return float64 csr (m, n), 1 where an item is listed."""
    row, position = np.nonzero(items >= 0)
    return csr_array((np.ones(len(row)), (row, items[row, position])), shape=(len(items), n))


def _shares(counts: Any) -> csr_array:
    """Return csr rows divided by their sums; empty rows stay empty."""
    shares = csr_array(diags_array(_ratio(np.ones(counts.shape[0]), counts.sum(axis=1), empty=0.0)) @ counts)
    shares.eliminate_zeros()
    shares.sort_indices()
    return shares


def _ratio(over: np.ndarray, under: np.ndarray, empty: float = np.nan) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.shape(over), empty), where=np.asarray(under) > 0)
