"""Scores -> TopK: the only place that masks, breaks ties, pads and gives the reason of a short list.

Both engines end here or in ``kernels.select_top_k``, so lists of both engines mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels, schema
from recsys.errors import ConfigError, InputError
from recsys.ranking.business_rules import CompiledRules
from recsys.recommender import Recommender, score_histories
from recsys.types import SHORTFALL, Histories, IdMap, TopK, select_rows

BLOCK_BYTES = 16 * 2**20
"""Target bytes per score block, small enough for the allocator to reuse."""

MIN_BLOCK_ROWS = 1024
"""A block has at least this many users if ``memory_mb`` allows, because every block costs the model a fixed set-up."""

Progress = Callable[[int, int], None]
"""Called with (done, total) after each block of users."""


def recommend(
    model: Recommender,
    histories: Histories | csr_array,
    k: int,
    *,
    users: np.ndarray | None = None,
    exclude_seen: bool = True,
    seen: csr_array | None = None,
    candidates: np.ndarray | None = None,
    rules: CompiledRules | None = None,
    memory_mb: int = 512,
    progress: Progress | None = None,
) -> TopK:
    """Return each row's k best items.

    Args:
        model: fitted; scored in blocks of rows, so (users, items) never exists as a whole.
        histories: of m users; a csr matrix (m, items) is taken as histories without times. Every
            stored entry counts as seen, zeros included.
        k: length of the lists, ≥ 1; shorter catalogues pad with item -1 and score NaN.
        users: int[m], passed to ``model.score`` and kept in the result; default ``0 … m-1``.
        exclude_seen: leave out the items of the history.
        seen: csr (m, items), the items to leave out instead, if ``histories`` have only a part of
            them.
        candidates: bool[items], False = never recommended.
        rules: compiled by :func:`recsys.ranking.business_rules.compile_rules`; ``users`` are rows
            of the map that it was compiled with (any other number: a user without denials).
        memory_mb: bound on the memory of a block of scores.
        progress: called after each block.

    Ties: the lower item row first. Shortfall, of a list of fewer than k items, the first that
    holds:

        cold_no_fallback   the model has no opinion on any item, a candidate or not
        small_catalogue    there are fewer than k items, candidates or not
        filtered           without ``candidates`` and ``rules`` the list would be full
        all_seen           the model has an opinion on fewer than k items that are not left out as seen

    So two cold items as the only candidates are ``filtered`` if the model could fill the list with
    others.

    Raises:
        ConfigError: k < 1, or ``candidates`` of the wrong length.
    """
    histories = Histories.of(histories)
    m, n = histories.shape
    if k < 1:
        raise ConfigError(f"k is {k}: ask for at least one item")
    if candidates is not None and (candidates.shape != (n,) or candidates.dtype != bool):
        raise ConfigError(f"candidates must be bool[{n}], one per item")
    users = np.arange(m) if users is None else np.asarray(users)
    if rules is not None:
        candidates = rules.candidates if candidates is None else candidates & rules.candidates
    if seen is not None:
        seen.sort_indices()
    items = np.empty((m, k), dtype=np.int32)
    scores = np.empty((m, k), dtype=np.float32)
    source = np.full((m, k), -1, dtype=np.int8)
    shortfall = np.zeros(m, dtype=np.int8)
    # Three float32 arrays of a block exist at a time: scores, a masked copy, and the model's own
    # work.
    max_rows = int(memory_mb * 2**20 / (3 * 4 * max(1, n)))
    block = max(1, min(max_rows, max(MIN_BLOCK_ROWS, BLOCK_BYTES // (4 * max(1, n)))))
    for start in range(0, m, block):
        rows = slice(start, min(m, start + block))
        part = histories[rows]
        raw = np.ascontiguousarray(score_histories(model, part, users[rows]))
        allowed = raw if candidates is None else np.where(candidates, raw, np.float32(np.nan))
        excluded = part.values if seen is None else seen[rows]
        if not exclude_seen:
            excluded = csr_array(part.shape, dtype=np.float32)
        skip = excluded if rules is None else _union(excluded, rules.denied, users[rows])
        items[rows], scores[rows] = kernels.select_top_k(allowed, skip.indptr, skip.indices, k)
        if rules is not None and rules.quotas:
            items[rows], scores[rows] = within_quotas(allowed, skip, rules.quotas, k)
        listed = items[rows] >= 0
        source[rows] = np.where(listed, model.source(part, items[rows], users[rows]), -1)
        short = np.flatnonzero(items[rows, -1] < 0)
        shortfall[start + short] = _shortfall_reasons(raw[short], excluded[short], candidates, k)
        if progress:
            progress(rows.stop, m)
    return TopK(users, items, scores, source, model.sources, shortfall)


def _union(seen: csr_array, denied: csr_array, users: np.ndarray) -> csr_array:
    """Return csr (m, items) with an entry for each item that is seen or denied."""
    denied_rows = select_rows(denied, np.where((users >= 0) & (users < denied.shape[0]), users, -1))
    # Ones, because a stored zero of the history would be lost in the sum.
    seen_ones = csr_array((np.ones(len(seen.indices), np.float32), seen.indices, seen.indptr), shape=seen.shape)
    union = csr_array(seen_ones + denied_rows)
    union.sort_indices()
    return union


Quota = tuple[csr_array, int]
"""csr (items, values) with an entry if an item has a value, and the largest number of items of one value in a list."""


def within_quotas(
    scores: np.ndarray, skip: csr_array, quotas: Sequence[Quota], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of each row, going down the ranking and skipping items that would exceed a quota."""
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
    """Return the first k positions of one ranking that keep every quota."""
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


def _shortfall_reasons(raw: np.ndarray, seen: csr_array, candidates: np.ndarray | None, k: int) -> np.ndarray:
    """Return int8 positions in SHORTFALL for rows whose list is short. Not compiled, because such rows are rare.

    Args:
        raw: float32[m, items], the scores before candidates are applied.
        seen: csr (m, items), without the items that rules deny.
    """
    n = raw.shape[1]
    scored = np.isfinite(raw)
    unseen = np.array(scored)
    unseen[np.repeat(np.arange(len(raw)), np.diff(seen.indptr)), seen.indices] = False
    reason = np.full(len(raw), SHORTFALL.index("all_seen"), dtype=np.int8)
    if candidates is not None:
        reason[(unseen.sum(axis=1) >= k)] = SHORTFALL.index("filtered")
    if n < k:
        reason[:] = SHORTFALL.index("small_catalogue")
    reason[~scored.any(axis=1)] = SHORTFALL.index("cold_no_fallback")
    return reason


def topk_table(topk: TopK, users: IdMap, items: IdMap) -> pd.DataFrame:
    """Return the topk table: ``user_id``, ``item_id``, ``rank`` from 1 (int32), ``score``, ``source``.

    Padding has no row, so a user without any item has none either.
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
    """Return the TopK of a topk table with one row for *every* user of ``users``, absent ones empty.

    ``rank`` orders. An item of the table must be in ``items`` to keep its rank as a miss, so build
    ``items`` from the lists and from the truth. Shortfall is not stored in the table and comes back
    as ``none``.

    Raises:
        InputError: a user or item outside the maps, a rank below 1, or one (user, rank) or (user,
            item) twice.
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
    """Return 0, 1, 2 … within each run of equal keys."""
    if not len(sorted_keys):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]])
    return np.arange(len(sorted_keys)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_keys)]))
