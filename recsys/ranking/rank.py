"""Scores -> TopK: the only place that masks, breaks ties, pads and says why a list is short.

Both engines end here or in ``kernels.select_top_k`` below it, so a list means the same on either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels, schema
from recsys.errors import ConfigError, InputError
from recsys.ranking.business_rules import CompiledRules
from recsys.recommender import Recommender
from recsys.types import SHORTFALL, Histories, IdMap, TopK, select_rows

SCORES, ROWS = 16 * 2**20, 1024
"""Bytes of scores in a block: memory of this size is handed out again, larger is asked of the system each time. But so
many users at least, where ``memory_mb`` lets them: a model gets ready once a block."""

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
        histories: of m users; a csr matrix (m, items) stands for histories without times. Every stored entry counts
            as seen, zeros included.
        k: length of the lists, ≥ 1; shorter catalogues pad with item -1 and score NaN.
        users: int[m], handed to ``model.score`` and kept in the result; default ``0 … m-1``.
        exclude_seen: leave out what the history holds.
        seen: csr (m, items), what to leave out where ``histories`` are only a part of it.
        candidates: bool[items], False = never recommended.
        rules: compiled by :func:`recsys.ranking.business_rules.compile_rules`; ``users`` are rows
            of the map it was given (any other number: a user without denials).
        memory_mb: bound on the block of scores held at a time.
        progress: called after each block.

    Ties: the lower item row first. Shortfall, of a list of fewer than k items, the first that holds:

        cold_no_fallback   the model has no opinion on any item, a candidate or not
        small_catalogue    there are fewer than k items, candidates or not
        filtered           without ``candidates`` and ``rules`` the list would be full
        all_seen           the model has an opinion on fewer than k items that are not left out as seen

    So two cold items as the only candidates are ``filtered`` if the model could fill the list with others.

    Raises:
        ConfigError: k < 1, or ``candidates`` of the wrong length.
    """
    histories = Histories.of(histories)
    m, n = histories.shape
    if k < 1:
        raise ConfigError(f"k is {k}: ask for at least one item")
    if candidates is not None and (candidates.shape != (n,) or candidates.dtype != bool):
        raise ConfigError(f"candidates must be bool[{n}], one an item")
    users = np.arange(m) if users is None else np.asarray(users)
    if rules is not None:
        candidates = rules.candidates if candidates is None else candidates & rules.candidates
    if seen is not None:
        seen.sort_indices()
    items = np.empty((m, k), dtype=np.int32)
    scores = np.empty((m, k), dtype=np.float32)
    source = np.full((m, k), -1, dtype=np.int8)
    shortfall = np.zeros(m, dtype=np.int8)
    held = int(memory_mb * 2**20 / (3 * 4 * max(1, n)))  # scores, a masked copy, the model's own work
    block = max(1, min(held, max(ROWS, SCORES // (4 * max(1, n)))))
    for start in range(0, m, block):
        rows = slice(start, min(m, start + block))
        part = histories[rows]
        raw = np.ascontiguousarray(model.score(part, users[rows]), dtype=np.float32)
        allowed = raw if candidates is None else np.where(candidates, raw, np.float32(np.nan))
        own = part.values if seen is None else seen[rows]
        if not exclude_seen:
            own = csr_array(part.shape, dtype=np.float32)
        skip = own if rules is None else _union(own, rules.denied, users[rows])
        items[rows], scores[rows] = kernels.select_top_k(allowed, skip.indptr, skip.indices, k)
        if rules is not None and rules.quotas:
            items[rows], scores[rows] = within_quotas(allowed, skip, rules.quotas, k)
        listed = items[rows] >= 0
        source[rows] = np.where(listed, model.source(part, items[rows], users[rows]), -1)
        short = np.flatnonzero(items[rows, -1] < 0)
        shortfall[start + short] = _shortfall_reasons(raw[short], own[short], candidates, k)
        if progress:
            progress(rows.stop, m)
    return TopK(users, items, scores, source, model.sources, shortfall)


def _union(seen: csr_array, denied: csr_array, users: np.ndarray) -> csr_array:
    """Return the structure of what is seen or denied."""
    own = select_rows(denied, np.where((users >= 0) & (users < denied.shape[0]), users, -1))
    counted = csr_array((np.ones(len(seen.indices), np.float32), seen.indices, seen.indptr), shape=seen.shape)
    both = csr_array(counted + own)
    both.sort_indices()
    return both


Quota = tuple[csr_array, int]
"""csr (items, values), an entry where an item has a value, and how many items of one value a list may hold."""


def within_quotas(
    scores: np.ndarray, skip: csr_array, quotas: Sequence[Quota], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of each row, walking down the ranking and passing by what would exceed a quota."""
    m, n = scores.shape
    chosen, best = np.full((m, k), -1, dtype=np.int32), np.full((m, k), np.nan, dtype=np.float32)
    open_, deep = np.arange(m), min(n, 4 * k)
    while len(open_):  # a list that quotas leave short is walked again, deeper, until the ranking ends
        part = skip[open_]
        ranked, values = kernels.select_top_k(scores[open_], part.indptr, part.indices, deep)
        short = []
        for at, row in enumerate(open_):
            places = _allowed_places(ranked[at], quotas, k)
            chosen[row, : len(places)], best[row, : len(places)] = ranked[at, places], values[at, places]
            short.append(len(places) < k and ranked[at, -1] >= 0 and deep < n)
        open_, deep = open_[short], min(n, 4 * deep)
    return chosen, best


def _allowed_places(ranked: np.ndarray, quotas: Sequence[Quota], k: int) -> list[int]:
    """Return the first k places of one ranking that keep every quota."""
    used = [np.zeros(values.shape[1], dtype=np.int64) for values, _ in quotas]
    places: list[int] = []
    for place, item in enumerate(ranked):
        if item < 0 or len(places) == k:
            break
        own = [values.indices[values.indptr[item] : values.indptr[item + 1]] for values, _ in quotas]
        if all((count[has] < most).all() for count, has, (_, most) in zip(used, own, quotas, strict=True)):
            places.append(place)
            for count, has in zip(used, own, strict=True):
                count[has] += 1
    return places


def _shortfall_reasons(raw: np.ndarray, seen: csr_array, candidates: np.ndarray | None, k: int) -> np.ndarray:
    """Return int8 positions in SHORTFALL for rows whose list is short (rare, hence not compiled).

    Args:
        raw: float32[m, items], scores as they are without candidates.
        seen: csr (m, items), without what rules deny.
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
    row, place = np.nonzero(topk.items >= 0)
    names = np.array(topk.sources, dtype=object)
    return pd.DataFrame(
        {
            schema.USER: users.ids_of(topk.users[row]),
            schema.ITEM: items.ids_of(topk.items[row, place]),
            schema.RANK: (place + 1).astype(np.int32),
            schema.SCORE: topk.scores[row, place],
            schema.SOURCE: names[topk.source[row, place]],
        }
    )


def topk_from_table(table: pd.DataFrame, users: IdMap, items: IdMap) -> TopK:
    """Return the TopK of a topk table with one row for *every* user of ``users``, absent ones empty.

    ``rank`` orders. Items unknown to ``items`` keep their place as a miss only through the caller's map, so
    build ``items`` from both tables. Shortfall is not stored in the table and comes back as ``none``.

    Raises:
        InputError: a user or item outside the maps, a rank below 1, or one (user, rank) or (user, item) twice.
    """
    schema.TOPK.require(table.columns)
    user, item = users.rows(table[schema.USER]), items.rows(table[schema.ITEM])
    rank = table[schema.RANK].to_numpy(dtype=np.int64)
    if len(table) and min(user.min(), item.min()) < 0:
        raise InputError("the topk table names users or items that the given id maps do not know")
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
    place = _place_in_group(user[order])
    k = int(place.max()) + 1 if len(place) else 1
    found_items = np.full((len(users), k), -1, dtype=np.int32)
    found_scores = np.full((len(users), k), np.nan, dtype=np.float32)
    source = np.full((len(users), k), -1, dtype=np.int8)
    cell = (user[order], place)
    found_items[cell] = item[order]
    if schema.SCORE in table:
        found_scores[cell] = table[schema.SCORE].to_numpy(dtype=np.float32)[order]
    names = table[schema.SOURCE] if schema.SOURCE in table else pd.Series("", index=table.index)
    codes, sources = pd.factorize(names, sort=True)
    source[cell] = codes[order]
    return TopK(
        np.arange(len(users)),
        found_items,
        found_scores,
        source,
        tuple(map(str, sources)),
        np.zeros(len(users), dtype=np.int8),
    )


def _place_in_group(sorted_keys: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2 … within each run of equal keys."""
    if not len(sorted_keys):
        return np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]])
    return np.arange(len(sorted_keys)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_keys)]))
