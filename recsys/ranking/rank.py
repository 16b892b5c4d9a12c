"""Make the list of the best items of each user from the scores of a model.

Only this module leaves items out, orders items with equal scores, pads short lists, and gives the
reason why a list is short. The local engine and the Spark engine both make their lists here or with
``kernels.select_top_k``, so their lists follow the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels, schema
from recsys.errors import ConfigError, InputError
from recsys.ranking.business_rules import CompiledRules
from recsys.recommender import Recommender, require_n_items, score_histories
from recsys.types import SHORTFALL, Histories, IdMap, Selection, TopItems, TopK, select_rows

BLOCK_BYTES = 16 * 2**20
"""Target size of a block of scores, in bytes.

A block is the scores of the users who are scored together. Memory of this size is reused for the
next block; larger memory would be requested from the system each time.
"""

MIN_BLOCK_ROWS = 1024
"""Smallest number of users in a block, if ``memory_mb`` allows it.

Every block costs the model a fixed time, so small blocks are slow.
"""

Progress = Callable[[int, int], None]
"""A function that is called with (number of users done, number of all users) after each block."""


@dataclass(frozen=True)
class RecommendOptions:
    """Which items the lists of a call of :func:`recommend` may have, and the memory that it may use.

    Attributes:
        exclude_seen: whether to leave out the items of the history, or those of ``seen``.
        seen: csr (m, items), an entry for each item to leave out, if the histories have only a part
            of them. None: the items of the histories. Not used if ``exclude_seen`` is False.
        candidates: bool[items], the items that may be recommended. None: all.
        rules: rules from :func:`recsys.ranking.business_rules.compile_rules`. The ``users`` of
            :func:`recommend` are rows of the user map of the rules; a number outside of it is a user
            without denied items. None: no rules.
        memory_mb: largest memory for the scores of a block and two copies, in MiB. A block has at
            least one user.
    """

    exclude_seen: bool = True
    seen: csr_array | None = None
    candidates: np.ndarray | None = None
    rules: CompiledRules | None = None
    memory_mb: int = 512

    def users_per_block(self, n_items: int) -> int:
        """Return the number of users who are scored together, at least 1.

        Args:
            n_items: the number of items of the model.
        """
        # Three float32 arrays of a block exist at a time: scores, a masked copy, and the model's own
        # work.
        max_rows = int(self.memory_mb * 2**20 / (3 * 4 * max(1, n_items)))
        return max(1, min(max_rows, max(MIN_BLOCK_ROWS, BLOCK_BYTES // (4 * max(1, n_items)))))

    def listed_candidates(self, n_items: int) -> np.ndarray | None:
        """Return the items that ``candidates`` and ``rules`` both allow, bool[items]. None: all.

        Raises:
            ConfigError: ``candidates`` has another shape or dtype.
        """
        candidates = self.candidates
        if candidates is not None and (candidates.shape != (n_items,) or candidates.dtype != bool):
            raise ConfigError(f"candidates must be bool[{n_items}], one per item")
        if self.rules is None:
            return candidates
        return self.rules.candidates if candidates is None else candidates & self.rules.candidates

    def seen_items(self, histories: Histories, rows: slice) -> csr_array:
        """Return the seen items that the lists of some users leave out, csr (users, items).

        Args:
            histories: the histories of these users.
            rows: the rows of these users in ``seen``.
        """
        if not self.exclude_seen:
            return csr_array(histories.shape, dtype=np.float32)
        return histories.values if self.seen is None else self.seen[rows]


def recommend(
    model: Recommender,
    histories: Histories | csr_array,
    k: int,
    *,
    users: np.ndarray | None = None,
    options: RecommendOptions | None = None,
    progress: Progress | None = None,
) -> TopK:
    """Return the list of the k best items of each of m users, as a TopK.

    Args:
        model: a fitted model. It scores block by block, so the scores of all users are never in
            memory together.
        histories: the histories of m users. A csr matrix (m, items) means histories without times.
            Every stored entry counts as seen, also a zero.
        k: length of the lists, ≥ 1. A shorter list is padded with item -1 and score NaN.
        users: int[m], a number that identifies each user, for ``model.score`` and in the result.
            None: ``0 … m-1``.
        options: which items the lists may have. None: all items that the user has not seen.
        progress: called after each block.

    Of items with equal scores, the one with the lower row is first. For a list of fewer than k items,
    ``shortfall`` of the result has the first of these reasons that is true:

        cold_no_fallback   the model has no score for any item, candidate or not
        small_catalogue    there are fewer than k items, candidates or not
        filtered           without ``candidates`` and ``rules`` the list would be full
        all_seen           the model has scores for fewer than k items that are not left out as seen

    For example, if the only candidates are two cold items, the reason is ``filtered`` if the model
    could fill the list with other items.

    Raises:
        ConfigError: k < 1, or ``options.candidates`` has another shape or dtype.
        InputError: the model was fitted with another number of items, or its scores have another
            shape or dtype than float32[users, items].
    """
    if not isinstance(histories, Histories):
        histories = Histories(csr_array(histories))
    m, n = histories.shape
    if k < 1:
        raise ConfigError(f"k is {k}: ask for at least one item")
    options = options or RecommendOptions()
    rules = options.rules
    candidates = options.listed_candidates(n)
    users = np.arange(m) if users is None else np.asarray(users)
    if options.seen is not None:
        options.seen.sort_indices()
    items = np.empty((m, k), dtype=np.int32)
    scores = np.empty((m, k), dtype=np.float32)
    source = np.full((m, k), -1, dtype=np.int8)
    shortfall = np.zeros(m, dtype=np.int8)
    block = options.users_per_block(n)
    for start in range(0, m, block):
        rows = slice(start, min(m, start + block))
        part = histories if m <= block else histories[rows]
        excluded = options.seen_items(part, rows)
        skip = excluded if rules is None else _union(excluded, rules.denied, users[rows])
        if rules is None or not rules.quotas:
            items[rows], scores[rows] = top_k(model, part, Selection(k, skip, candidates), users[rows])
        else:
            raw = score_histories(model, part, users[rows])
            allowed = raw if candidates is None else np.where(candidates, raw, np.float32(np.nan))
            items[rows], scores[rows] = within_quotas(allowed, skip, rules.quotas, k)
        listed = items[rows] >= 0
        source[rows] = np.where(listed, model.source(part, items[rows], users[rows]), -1)
        short = np.flatnonzero(items[rows, -1] < 0)
        if len(short):
            unfiltered = Selection(k, excluded[short], None)
            is_filtered = candidates is not None
            shortfall[start + short] = _shortfall_reasons(
                model, part[short], unfiltered, users[rows][short], is_filtered
            )
        if progress:
            progress(rows.stop, m)
    return TopK(users, items, scores, source, model.sources, shortfall)


def top_k(model: Recommender, histories: Histories, selection: Selection, users: np.ndarray | None = None) -> TopItems:
    """Return the k best items for each history, int32[m, k], and their scores, float32[m, k].

    The best item is first; of equal scores, the lower row is first. Items without a finite score are
    not listed, and a list of fewer than k items ends with -1 and NaN. They are computed by
    :meth:`recsys.recommender.Recommender.top_k` if the model has it, or else from the scores of all
    items.

    Args:
        model: a fitted model.
        histories, selection, users: as for the method of the model.

    Raises:
        InputError: as in :func:`recommend`.
    """
    require_n_items(model, histories)
    lists = model.top_k(histories, selection, users)
    if lists is not None:
        return lists
    scores = np.ascontiguousarray(score_histories(model, histories, users))
    if selection.candidates is not None:
        scores = np.where(selection.candidates, scores, np.float32(np.nan))
    return kernels.select_top_k(scores, selection.excluded.indptr, selection.excluded.indices, selection.k)


def _union(seen: csr_array, denied: csr_array, users: np.ndarray) -> csr_array:
    """Return csr (m, items) with an entry for each item that is seen or denied.

    Args:
        seen: csr (m, items), the seen items.
        denied: csr (users, items), the denied items of all users of the rules.
        users: int[m], the row in ``denied`` of each user. A number outside of it means that the user
            has no denied items.
    """
    denied_rows = select_rows(denied, np.where((users >= 0) & (users < denied.shape[0]), users, -1))
    # Ones, because a stored zero of the history would be lost in the sum.
    seen_ones = csr_array((np.ones(len(seen.indices), np.float32), seen.indices, seen.indptr), shape=seen.shape)
    union = csr_array(seen_ones + denied_rows)
    union.sort_indices()
    return union


Quota = tuple[csr_array, int]
"""A limit on the number of items with the same value in a list, as a pair.

The first is csr (items, values), with an entry for each value that an item has. The second is the
largest number of items with the same value.
"""


def within_quotas(
    scores: np.ndarray, skip: csr_array, quotas: Sequence[Quota], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return lists of the best items of each user that keep all quotas, and their scores.

    The first result, int32[m, k], has the items, best first; the second, float32[m, k], their
    scores. The items are taken in the order of their scores; an item that would exceed a quota is
    skipped. Of equal scores, the lower item is first. A shorter list is padded with item -1 and
    score NaN.

    Args:
        scores: float32[m, items], NaN for an item that may not be listed.
        skip: csr (m, items), the items to leave out.
        quotas: the quotas.
        k: the length of the lists.
    """
    m, n = scores.shape
    chosen_items = np.full((m, k), -1, dtype=np.int32)
    chosen_scores = np.full((m, k), np.nan, dtype=np.float32)
    unfinished = np.arange(m)
    depth = min(n, 4 * k)
    # A list that quotas leave short is filled again from a deeper ranking, until the ranking ends.
    while len(unfinished):
        part = skip[unfinished]
        ranked, values = kernels.select_top_k(scores[unfinished], part.indptr, part.indices, depth)
        is_short = []
        for ranking, row in enumerate(unfinished):
            positions = _allowed_positions(ranked[ranking], quotas, k)
            chosen_items[row, : len(positions)] = ranked[ranking, positions]
            chosen_scores[row, : len(positions)] = values[ranking, positions]
            is_short.append(len(positions) < k and ranked[ranking, -1] >= 0 and depth < n)
        unfinished = unfinished[is_short]
        depth = min(n, 4 * depth)
    return chosen_items, chosen_scores


def _allowed_positions(ranked: np.ndarray, quotas: Sequence[Quota], k: int) -> list[int]:
    """Return the positions of the first k items of one ranking that keep every quota.

    Args:
        ranked: int[n], items, best first, -1 after the last one.
    """
    counts = [np.zeros(values.shape[1], dtype=np.int64) for values, _ in quotas]
    positions: list[int] = []
    for position, item in enumerate(ranked):
        if item < 0 or len(positions) == k:
            break
        item_values = [values.indices[values.indptr[item] : values.indptr[item + 1]] for values, _ in quotas]
        limits = [limit for _, limit in quotas]
        if all((count[has] < limit).all() for count, has, limit in zip(counts, item_values, limits, strict=True)):
            positions.append(position)
            for count, has in zip(counts, item_values, strict=True):
                count[has] += 1
    return positions


def _shortfall_reasons(
    model: Recommender, histories: Histories, unfiltered: Selection, users: np.ndarray, is_filtered: bool
) -> np.ndarray:
    """Return the reason why each of m lists is short, int8[m], as positions in :data:`SHORTFALL`.

    Args:
        model: the model of the lists.
        histories: the histories of the users with a short list.
        unfiltered: what their lists may have without candidates and rules.
        users: int[m], the number of each user.
        is_filtered: whether there are candidates or rules.
    """
    reason = np.full(len(histories), SHORTFALL.index("all_seen"), dtype=np.int8)
    if is_filtered:
        items, _ = top_k(model, histories, unfiltered, users)
        reason[items[:, -1] >= 0] = SHORTFALL.index("filtered")
    if histories.shape[1] < unfiltered.k:
        reason[:] = SHORTFALL.index("small_catalogue")
    reason[~model.can_score(histories, users)] = SHORTFALL.index("cold_no_fallback")
    return reason


def topk_table(topk: TopK, users: IdMap, items: IdMap) -> pd.DataFrame:
    """Return lists as a table with one row per user and listed item.

    The columns are ``user_id``, ``item_id``, ``rank`` (int32, 1 is the best), ``score`` (float32)
    and ``source`` (the name of the model that gave the score). Padding has no row, so a user with
    an empty list is not in the table.

    Args:
        topk: the lists. Their users and items are rows of the id maps.
        users, items: the id maps.
    """
    row, column = np.nonzero(topk.items >= 0)
    names = np.array(topk.sources, dtype=object)
    return pd.DataFrame(
        {
            schema.USER: users.ids_of(topk.users[row]),
            schema.ITEM: items.ids_of(topk.items[row, column]),
            schema.RANK: (column + 1).astype(np.int32),
            schema.SCORE: topk.scores[row, column],
            schema.SOURCE: names[topk.source[row, column]],
        }
    )


def topk_from_table(table: pd.DataFrame, users: IdMap, items: IdMap) -> TopK:
    """Convert a table of lists to a TopK, with one list for *every* user of ``users``.

    The lists are in the row order of ``users``. A user without rows in the table has an empty list.
    Items are ordered by ``rank``; gaps between ranks are closed. The length k is that of the
    longest list, at least 1. A table without ``score`` gives NaN, one without ``source`` the source
    "". The reason of a short list is not in the table, so ``shortfall`` is ``none`` for all users.

    Args:
        table: the columns user_id, item_id, rank, and optionally score and source.
        users: the id map of the users.
        items: the id map of the items. It must have every item of the table, and not only relevant
            items, because each listed item takes a place of the list. So make it from the ids of the
            lists and of the truth together.

    Raises:
        InputError: a user or an item is not in its map, a rank is below 1, or a (user, rank) or a
            (user, item) occurs twice.
    """
    schema.TOPK.require(table.columns)
    user, item = users.rows(table[schema.USER]), items.rows(table[schema.ITEM])
    rank = table[schema.RANK].to_numpy(dtype=np.int64)
    if len(table) and min(user.min(), item.min()) < 0:
        raise InputError("the topk table names users or items that are not in the id maps")
    if len(rank) and rank.min() < 1:
        raise InputError("topk ranks start at 1")
    for name, key in (("rank", rank), ("item", item)):
        repeated = pd.DataFrame({"user": user, "key": key}).duplicated()
        if repeated.any():
            first = table.iloc[int(np.argmax(repeated))]
            raise InputError(
                f"topk: {int(repeated.sum()):,} rows repeat a (user, {name}) pair, first user "
                f"{first[schema.USER]!r}, item {first[schema.ITEM]!r}: keep one row of each"
            )
    order = np.lexsort((rank, user))
    position = _position_in_group(user[order])
    k = int(position.max(initial=0)) + 1
    list_items = np.full((len(users), k), -1, dtype=np.int32)
    list_scores = np.full((len(users), k), np.nan, dtype=np.float32)
    source = np.full((len(users), k), -1, dtype=np.int8)
    cell = (user[order], position)
    list_items[cell] = item[order]
    if schema.SCORE in table:
        list_scores[cell] = table[schema.SCORE].to_numpy(dtype=np.float32)[order]
    names = table[schema.SOURCE] if schema.SOURCE in table else pd.Series("", index=table.index)
    codes, sources = pd.factorize(names, sort=True)
    source[cell] = codes[order]
    return TopK(
        np.arange(len(users)),
        list_items,
        list_scores,
        source,
        tuple(map(str, sources)),
        np.zeros(len(users), dtype=np.int8),
    )


def _position_in_group(sorted_keys: np.ndarray) -> np.ndarray:
    """Return the position of each key within its run of equal keys: 0, 1, 2 …"""
    if not len(sorted_keys):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]])
    return np.arange(len(sorted_keys)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_keys)]))
