"""Measures beyond accuracy: how much of the catalogue the lists use, and how novel, diverse and
surprising the list of a user is.

There are two kinds of measures. Coverage, Gini, entropy and personalisation are one number for all
lists together, computed from the number of lists that have each item. The others are one number per
user, and are averaged with an interval like any metric. The local engine and the Spark engine both
call the functions of this module. Formulas and edge cases: docs/deciding.md.
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
from recsys.features.encoding import encode_features, is_list_field
from recsys.schema import ITEM
from recsys.types import Evaluation, IdMap, TopK

OF_ALL_LISTS = {
    "coverage": "share of the candidates that are in at least one list",
    "gini": "inequality of how often candidates are listed: 0 all alike, near 1 a few take everything",
    "entropy": "of the listed items, in bits: 2^entropy equally frequent items would be as varied",
    "personalisation": "1 - mean overlap of two users' lists: 0 everyone sees the same, 1 nobody shares an item",
}
"""Measures that are one number for all lists together: name -> definition."""
OF_A_LIST = {
    "novelty": "mean of -log2(share of train users who like the item), in bits",
    "popularity_lift": "mean likes of the listed items over those of the user's liked items, minus 1",
    "tail_share": "share of the listed items that are in the tail: the last third of all likes",
    "serendipity": "share of the places with a relevant item that a list of the most popular items would not show",
}
"""Measures that are one number per user and need no attributes of items: name -> definition."""
OF_FEATURES = {
    "diversity": "1 - mean cosine between the attributes of two listed items",
    "calibration": "KL divergence of the attribute shares of the list from those of the user's history; 0 is best",
}
"""Measures that are one number per user and need attributes of items: name -> definition."""
DEFINITIONS = OF_ALL_LISTS | OF_A_LIST | OF_FEATURES
"""All measures of this module: name -> definition."""

KEEP = 0.01
"""The weight of the history in :func:`calibration`, which compares a list with a user's history.

The function replaces the attribute shares of the list by (1 - KEEP) · shares of the list + KEEP ·
shares of the history. Without this, the divergence would be infinite for an attribute that the
history has and the list does not have.
"""


@dataclass(frozen=True)
class Catalogue:
    """The popularity of the candidates in train, and their groups and attributes.

    Attributes:
        likes: int64[items], the number of train users who like each item (value > 0).
        users: the number of train users.
        attributes: float64 csr (items, attribute values), 1 where an item has a value. None if no
            attributes are known, see :func:`attributes`.
        groups: the groupings of items. The first one is by popularity, the others are by columns of
            the items table.
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
        """Return the catalogue of the items with the given ids.

        Its groupings are popularity, and the columns of ``table`` that ``settings.segments`` names.
        Names that are not columns of the table are left out.

        Args:
            likes: int64[items], the number of train users who like each item.
            users: the number of train users.
            settings: ``segments`` names the columns to group by, ``attribute`` the column with
                attributes.
            ids: the ids of the items.
            table: the items table. None: there is none.

        Raises:
            ConfigError: ``settings.attribute`` is not a column of the items table.
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
        """The names of the measures that are one number per user.

        They are those of :data:`OF_A_LIST`, and with attributes those of :data:`OF_FEATURES`.
        """
        return (*OF_A_LIST, *(OF_FEATURES if self.attributes is not None else ()))


def attributes(column: str | None, ids: IdMap, table: pd.DataFrame | None) -> csr_array | None:
    """Return the attributes of items: float64 csr (items, values), 1 where an item has a value.

    The values are those of one column of the items table, such as genres. The result is None if
    there is no such column to use, or if it has no values.

    Args:
        column: the name of the column. None: the first column of lists, or of texts with ``|`` such
            as "drama|war" (``encoding.is_list_field``).
        ids: the ids of the items, one per row of the result.
        table: the items table. None: there is none.

    Raises:
        ConfigError: ``column`` is given, but the table does not have it, or there is no table.
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
    name = column or next((name for name in columns if is_list_field(table[name])), None)
    if name is None:
        return None
    matrix = encode_features(table[[ITEM, name]], ITEM, ids).matrix.astype(np.float64)
    matrix.data[:] = 1.0
    if matrix.nnz:
        return matrix
    return None


def extend(evaluation: Evaluation, topk: TopK, truth: Truth, catalogue: Catalogue) -> Evaluation:
    """Return an evaluation with further columns and counts: the measures of this module.

    ``per_user`` gets the columns of the function :func:`per_user`. ``about["beyond"]`` gets the
    result of :func:`of_all_lists`.

    Args:
        evaluation: the metrics of the lists.
        topk: the lists that were evaluated, one per row of ``evaluation.per_user``.
        truth: the relevant items and the histories of the same users.
        catalogue: the popularity, the groups and the attributes of the candidates.
    """
    columns = per_user(topk, truth, catalogue)
    all_lists = of_all_lists(*exposure(topk.items, len(catalogue.likes)), truth.ranked_items)
    per_row = pd.concat([evaluation.per_user, pd.DataFrame(columns, index=evaluation.per_user.index)], axis=1)
    return Evaluation(evaluation.name, per_row, evaluation.about | {"beyond": all_lists})


def per_user(topk: TopK, truth: Truth, catalogue: Catalogue) -> dict[str, np.ndarray]:
    """Return the measures of each user's list as a dict of columns: name -> float64[m].

    The first columns are the primary metric for each group of items
    (:func:`.groups.by_item_group`). With ``missing_users = "skip"``, they are NaN for a user with
    an empty list. The other columns are ``catalogue.measures``:

    * ``novelty``: mean of −log2(share of train users who like the item). An item without likes
      counts as an item with one like.
    * ``popularity_lift``: mean number of likes of the listed items, divided by that of the liked
      items of the history, minus 1.
    * ``tail_share``: the share of listed items in the popularity group "tail".
    * ``serendipity``, ``diversity``, ``calibration``: see the functions of these names.

    The first three are NaN for an empty list. ``popularity_lift`` is also NaN for a user whose
    history has no liked item.

    Args:
        topk: one list per user of ``truth``, in the same order. Items are rows of the catalogue.
        truth: the relevant items and the histories. The user has seen every item with a stored
            entry in the history, and likes those with a value > 0. If lists leave out seen items
            (``exclude_seen``), the popular lists of :func:`serendipity` leave them out too.
        catalogue: the popularity, the groups and the attributes of the items.
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
    """Return the share of relevant and unexpected items in each list, float64[m] in [0, 1].

    It is the number of listed items that are relevant and not in the user's popular list, divided
    by k. The popular list of a user has the k items with the most likes among those that the user
    has not seen. Of items with equally many likes, the lower row comes first. So the lists of the
    model ``popular`` have the value 0, if they rank all items and follow no business rules. The
    value is NaN for a user without relevant items, and 0 for an empty list.

    Some other definitions multiply by a similarity to the history. Reference: Ge,
    Delgado-Battenfeld and Jannach, RecSys 2010, where a primitive model defines which items are
    expected.

    Args:
        topk: the lists of m users, with k places each.
        relevant: csr (m, items or more), > 0 for the relevant items of each user.
        likes: int64[items], the number of train users who like each item.
        seen: csr (m, items), the seen items of each user. None: seen items may also be in the lists
            and in the popular lists.
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
    """Return the diversity of each list, float64[m] in [0, 1]: 1 - mean cosine of two items.

    The cosine is that of the attribute vectors of the two items. The mean is over all pairs of
    listed items that have attributes. The value is NaN for a list with fewer than two such items.
    The sum of the cosines is computed as (|Σ f|² - n) / 2, where f are the n attribute vectors
    divided by their lengths.

    Also called intra-list diversity. References: Smyth and McClave, ICCBR 2001; Ziegler et al., WWW
    2005.

    Args:
        listed: csr (m, items), 1 where an item is listed.
        attributes: csr (items, values) of 0 and 1.
    """
    lengths = np.sqrt(attributes.multiply(attributes).sum(axis=1))
    unit = diags_array(_ratio(np.ones(len(lengths)), lengths, empty=0.0)) @ attributes
    total = csr_array(listed @ unit)
    n = listed @ (lengths > 0).astype(np.float64)
    cosines = (total.multiply(total).sum(axis=1) - n) / 2
    return 1 - _ratio(cosines, n * (n - 1) / 2)


def calibration(listed: csr_array, liked: csr_array, attributes: csr_array) -> np.ndarray:
    """Return how much the attributes of each user's list and history differ, float64[m] ≥ 0.

    The value is the Kullback-Leibler divergence Σ_g p(g) ln(p(g) / ((1 - KEEP) q(g) + KEEP p(g))).
    p(g) is the share of the attribute g in the liked items of the history, and q(g) its share in
    the listed items. An item with n attributes adds 1/n to the count of each of them. The value is
    0 if all shares are the same. It is largest, -ln KEEP = 4.6, if list and history have no
    attribute in common. It is NaN if no listed item or no liked item has an attribute.

    Every liked item has the same weight. Steck optionally gives recent items more weight.
    Reference: Steck, RecSys 2018, equations 3-6.

    Args:
        listed, liked: csr (m, items), 1 where an item is listed or liked.
        attributes: csr (items, values) of 0 and 1.
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
    """Return three sums over lists, (times, weight, lists), for :func:`of_all_lists`.

    * ``times``: for each item, the number of lists that have the item, int64[n].
    * ``weight``: for each item, the sum of 1/√length over the lists that have the item, float64[n].
    * ``lists``: the number of lists that are not empty.

    If users are divided into parts, the sums of the parts add up to the sums of all users.

    Args:
        items: int[m, k], the rows of the items in the lists of m users, -1 where a list has no
            item.
        n: the number of candidates.
    """
    lengths = (items >= 0).sum(axis=1)
    row, position = np.nonzero(items >= 0)
    listed = items[row, position]
    weight = np.bincount(listed, weights=1 / np.sqrt(lengths[row]), minlength=n)
    return np.bincount(listed, minlength=n), weight, int((lengths > 0).sum())


def of_all_lists(
    times: np.ndarray, weight: np.ndarray, lists: int, ranked_items: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Return the measures of all lists together as a dict: measure -> {"value": number}.

    * ``coverage``: the share of the items that are in at least one list. NaN without items.
    * ``gini``: the Gini coefficient of ``times``, 0 if all items are listed equally often. NaN
      without lists.
    * ``entropy``: the entropy of the shares of the items in all listed places, in bits. NaN without
      lists.
    * ``personalisation``: 1 minus the mean overlap of two lists. NaN for fewer than two lists.

    The overlap of two lists is the number of common items, divided by the geometric mean of the
    lengths of the lists. Its exact mean over all pairs of lists is
    (Σ_i weight_i² - lists) / (lists (lists - 1)).

    Args:
        times, weight, lists: the results of :func:`exposure`.
        ranked_items: bool[n], the items that lists may have; only these count. None: all items.

    >>> of_all_lists(*exposure(np.array([[0, 1], [0, 2]]), 4))["coverage"]
    {'value': 0.75}
    """
    if ranked_items is not None:
        times = times[ranked_items]
        weight = weight[ranked_items]
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
    """Return the mean of a number over the items of each list, float64[m], NaN for an empty list.

    Args:
        items: int[m, k], -1 where a list has no item.
        of_item: one number per candidate.
    """
    present = items >= 0
    total = np.where(present, np.asarray(of_item, dtype=np.float64)[np.maximum(items, 0)], 0.0).sum(axis=1)
    return _ratio(total, present.sum(axis=1))


def _listed(items: np.ndarray, n: int) -> csr_array:
    """Return float64 csr (m lists, n candidates), 1 where a list has an item.

    Args:
        items: int[m, k], -1 where a list has no item.
        n: the number of candidates.
    """
    row, position = np.nonzero(items >= 0)
    return csr_array((np.ones(len(row)), (row, items[row, position])), shape=(len(items), n))


def _shares(counts: Any) -> csr_array:
    """Return a csr matrix with each row divided by its sum. Empty rows stay empty."""
    shares = csr_array(diags_array(_ratio(np.ones(counts.shape[0]), counts.sum(axis=1), empty=0.0)) @ counts)
    shares.eliminate_zeros()
    shares.sort_indices()
    return shares


def _ratio(over: np.ndarray, under: np.ndarray, empty: float = np.nan) -> np.ndarray:
    """Return over / under for each element, and ``empty`` where ``under`` is not positive."""
    return np.divide(over, under, out=np.full(np.shape(over), empty), where=np.asarray(under) > 0)
