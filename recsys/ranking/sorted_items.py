"""Find the best items of many users without the scores of all items, for scores that are products of factors.

A score x·y is at most |x|·|y|. So items are taken in descending order of |y|, block by block, and a user is done as
soon as the next |y| is too small for the k-th best score so far. Where a few items have much larger factors than the
others, as in most logs, this needs a small part of the products. The lists are those of all scores.

References: Teflioudi, Gemulla and Mykytiuk, SIGMOD 2015 (LEMP), section 3: pruning by length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numba import njit, prange

from recsys.kernels import add_to_heap, ranks_before, sort_heap, writable
from recsys.linalg import one_blas_thread
from recsys.types import Selection, TopItems

ITEMS_PER_BLOCK = 512
"""Number of items whose scores are computed before users that are done are left out."""

USERS_PER_BLOCK = 256
"""Number of users whose lists are made together by one thread."""


@dataclass(frozen=True, eq=False)
class SortedItems:
    """The factors of items in descending order of their lengths.

    Attributes:
        items: int32[n], the rows of the items that have a factor, those of the largest factors first.
            Items of the same length are in ascending order.
        lengths: float64[n], the length |y| of the factor of each of ``items``.
        factors: float32[items, rank], the factors of all items, by row.
    """

    items: np.ndarray
    lengths: np.ndarray
    factors: np.ndarray

    @classmethod
    def from_factors(cls, factors: np.ndarray, has_factor: np.ndarray | None = None) -> Self:
        """Sort the items that have a factor.

        Args:
            factors: float32[items, rank]. A row with a NaN is no factor.
            has_factor: bool[items], whether each item has a factor. None: those without a NaN.
        """
        lengths = np.sqrt(np.einsum("if,if->i", factors, factors, dtype=np.float64))
        is_listed = np.isfinite(lengths)
        if has_factor is not None:
            is_listed &= has_factor
        rows = np.flatnonzero(is_listed)
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        return cls(rows.astype(np.int32), lengths[rows], np.ascontiguousarray(factors, dtype=np.float32))

    @classmethod
    def from_scores(cls, scores: np.ndarray) -> Self:
        """Sort items by scores that all users share, float32[items], NaN for an item without a score."""
        # The scores are factors of one number, and each user has the factor 1.
        return cls.from_factors(scores[:, None])

    def top_k(self, user_factors: np.ndarray, selection: Selection, has_factor: np.ndarray | None = None) -> TopItems:
        """Return the k items with the highest scores for each user, int32[m, k], and their scores, float32[m, k].

        The best item is first; of equal scores, the lower row is first. If a user has fewer than k
        items to choose from, the list ends with -1 and NaN.

        Args:
            user_factors: float32[m, rank], finite.
            selection: which items may be listed, and how many.
            has_factor: bool[m], whether each user has a factor. The lists of others are empty. None: all.
        """
        if has_factor is not None and not has_factor.all():
            items, scores = selection.empty_lists()
            rows = np.flatnonzero(has_factor)
            items[rows], scores[rows] = self.top_k(user_factors[rows], selection.select(rows))
            return items, scores
        vectors = np.ascontiguousarray(user_factors, dtype=np.float32)
        # The computed score may exceed the product of the lengths by its rounding.
        lengths = np.sqrt(np.einsum("uf,uf->u", vectors, vectors, dtype=np.float64))
        lengths *= 1 + 2.0**-22 * (vectors.shape[1] + 2)
        excluded = (writable(selection.excluded.indptr, np.int64), writable(selection.excluded.indices, np.int32))
        with one_blas_thread():
            return _top_k(vectors, lengths, self._restrict(selection.candidates), excluded, selection.k)

    def shared_lists(self, selection: Selection) -> TopItems:
        """Return the lists of users who share the scores of :meth:`from_scores`."""
        return self.top_k(np.ones((selection.excluded.shape[0], 1), dtype=np.float32), selection)

    def _restrict(self, candidates: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``items``, ``lengths`` and ``factors`` of the candidates, bool[items] (None: of all items)."""
        if candidates is None:
            return self.items, self.lengths, self.factors
        is_candidate = candidates[self.items]
        return self.items[is_candidate], self.lengths[is_candidate], self.factors


def sort_once(model: Any, factors: np.ndarray, has_factor: np.ndarray | None = None) -> SortedItems:
    """Return the sorted items of a fitted model, which keeps them until it has other factors.

    Args:
        model: the model.
        factors, has_factor: as for :meth:`SortedItems.from_factors`. Another array of factors, as after
            another fit, is sorted anew.
    """
    # Not a field of the model's dataclass, whose fields are the parameters.
    cached: tuple[np.ndarray, SortedItems] | None = model.__dict__.get("_sorted_items")
    if cached is None or cached[0] is not factors:
        cached = (factors, SortedItems.from_factors(factors.reshape(len(factors), -1), has_factor))
        model.__dict__["_sorted_items"] = cached
    return cached[1]


@njit(cache=True, nogil=True)
def _is_excluded(excluded: np.ndarray, item: int) -> bool:
    """Return whether an ascending array has an item."""
    position = np.searchsorted(excluded, item)
    return bool(position < len(excluded) and excluded[position] == item)


@njit(cache=True, nogil=True)
def _add_best(
    row: np.ndarray, block_items: np.ndarray, excluded: np.ndarray, items: np.ndarray, scores: np.ndarray, size: int
) -> int:
    """Add the items of a block to the heap of a user where they rank before its last entry; return the new size.

    Args:
        row: float32[n], the scores of the items of the block.
        block_items: int32[n], the rows of these items.
        excluded: the items to leave out, ascending.
        items, scores: [k], the heap (:func:`recsys.kernels.add_to_heap`), whose first ``size`` entries
            are used.
        size: the number of entries.
    """
    k = len(items)
    threshold = scores[0] if size == k else np.float32(-np.inf)
    for j in range(len(row)):
        score = row[j]
        # An item of an equal score may rank before the last entry, because items are not in the order of their rows.
        if not score >= threshold:
            continue
        item = block_items[j]
        if size == k and not ranks_before(score, item, scores[0], items[0]):
            continue
        if score == -np.inf or _is_excluded(excluded, item):
            continue
        size = add_to_heap(scores, items, size, score, item)
        if size == k:
            threshold = scores[0]
    return size


@njit(cache=True, nogil=True, parallel=True)
def _top_k(
    vectors: np.ndarray,
    lengths: np.ndarray,
    sorted_items: tuple[np.ndarray, np.ndarray, np.ndarray],
    skip: tuple[np.ndarray, np.ndarray],
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Make the lists of :meth:`SortedItems.top_k`.

    Args:
        vectors: float32[m, rank], the factors of users.
        lengths: float64[m], a bound of their lengths that allows for rounding.
        sorted_items: ``items``, ``lengths`` and ``factors`` of :class:`SortedItems`.
        skip: the items to leave out, as the structure of a CSR matrix.
        k: the length of the lists.
    """
    indptr, excluded = skip
    items, item_lengths, factors = sorted_items
    m, rank = vectors.shape
    best_items = np.empty((m, k), dtype=np.int32)
    best_scores = np.empty((m, k), dtype=np.float32)
    for part in prange((m + USERS_PER_BLOCK - 1) // USERS_PER_BLOCK):
        first_user = part * USERS_PER_BLOCK
        active = np.arange(first_user, min(first_user + USERS_PER_BLOCK, m))
        sizes = np.zeros(len(active), dtype=np.int64)
        active_vectors = np.empty((len(active), rank), dtype=np.float32)
        scores = np.empty((len(active), ITEMS_PER_BLOCK), dtype=np.float32)
        for first_item in range(0, len(items), ITEMS_PER_BLOCK):
            block = slice(first_item, min(first_item + ITEMS_PER_BLOCK, len(items)))
            count = 0
            for user in active:
                is_full = sizes[user - first_user] == k
                if is_full and lengths[user] * item_lengths[first_item] < best_scores[user, 0]:
                    continue
                active[count] = user
                active_vectors[count] = vectors[user]
                count += 1
            active = active[:count]
            if count == 0:
                break
            # A last block of fewer items has memory of its own, because rows of a product must be contiguous.
            block_scores = scores[:count]
            if block.stop - block.start < ITEMS_PER_BLOCK:
                block_scores = np.empty((count, block.stop - block.start), dtype=np.float32)
            np.dot(active_vectors[:count], factors[items[block]].T, block_scores)
            for a in range(count):
                user = active[a]
                row_excluded = excluded[indptr[user] : indptr[user + 1]]
                size = sizes[user - first_user]
                sizes[user - first_user] = _add_best(
                    block_scores[a], items[block], row_excluded, best_items[user], best_scores[user], size
                )
        for row in range(len(sizes)):
            sort_heap(best_scores[first_user + row], best_items[first_user + row], sizes[row])
    return best_items, best_scores
