"""Lists against truth: which places hold something relevant. Every metric is a function of the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import kernels
from recsys.types import TopK


@dataclass(frozen=True)
class Judged:
    """What metrics need to know of ``m`` lists of at most ``k`` places.

    ``gains``: float64[m, k], the value of the item at each place, 0 where it is not relevant or is padding.
    ``ideal``: float64[m, k], the user's largest values, best first, 0 past their number.
    ``n_relevant``: int64[m], relevant items, whether or not anybody could have recommended them.
    ``length``: int64[m], items in the list.
    """

    gains: np.ndarray
    ideal: np.ndarray
    n_relevant: np.ndarray
    length: np.ndarray

    @property
    def k(self) -> int:
        """Places in the longest list that was judged."""
        return self.gains.shape[1]

    @cached_property
    def hits(self) -> np.ndarray:
        """Return bool[m, k]: a relevant item stands here."""
        return self.gains > 0

    @cached_property
    def hits_so_far(self) -> np.ndarray:
        """Return int64[m, k]: relevant items up to and with this place; all cut-offs share it."""
        return np.cumsum(self.hits, axis=1)

    @cached_property
    def undefined(self) -> np.ndarray:
        """Return bool[m]: nothing is relevant, so no metric has a value."""
        return self.n_relevant == 0


def judge(topk: TopK, relevant: csr_array) -> Judged:
    """Look every listed item up among the user's relevant ones.

    Args:
        topk: lists of m users.
        relevant: csr (m, ≥ items), row i for list i, each stored value > 0: a stored entry is relevant and its
            value is its graded gain. Columns past the items that lists can name stand for relevant items that
            nobody could have recommended: they count in ``n_relevant`` and ``ideal``.

    Raises:
        ValueError: rows differ in number, or a stored value is not positive.
    """
    m = len(topk.items)
    if relevant.shape[0] != m:
        raise ValueError(f"{m} lists, but {relevant.shape[0]} rows of relevant items")
    if relevant.nnz and not relevant.data.min() > 0:
        raise ValueError("a relevant item must have a value above 0")
    relevant.sort_indices()
    gains, ideal = kernels.gains(topk.items, relevant.indptr, relevant.indices, relevant.data.astype(np.float64))
    return Judged(gains, ideal, np.diff(relevant.indptr).astype(np.int64), (topk.items >= 0).sum(axis=1))


def judge_lists(
    listed: np.ndarray,
    listed_offsets: np.ndarray,
    relevant: np.ndarray,
    relevant_offsets: np.ndarray,
    values: np.ndarray,
    *,
    k: int | None = None,
) -> Judged:
    """Judge lists of external ids, as an Arrow batch holds them; the same numbers as :func:`judge`.

    Args:
        listed, relevant: ids of all lists one after the other, best first; of one kind (text or integers).
        listed_offsets, relevant_offsets: int[m + 1], where each user's part starts and ends.
        values: float[len(relevant)], > 0.
        k: places of the longest list of all batches; default: of this one.
    """
    codes, _ = pd.factorize(np.concatenate([listed, relevant]))
    places = listed_offsets[1:] - listed_offsets[:-1]
    m, k = len(places), max(1, k or 0, int(places.max(initial=0)))
    row = np.repeat(np.arange(m), places)
    items = np.full((m, k), -1, dtype=np.int32)
    items[row, np.arange(len(listed)) - listed_offsets[row]] = codes[: len(listed)]
    shape = (m, int(codes.max(initial=0)) + 1)
    truth = csr_array((np.asarray(values, dtype=np.float64), codes[len(listed) :], relevant_offsets), shape=shape)
    nothing = np.full((m, k), -1, dtype=np.int8)
    scores = np.full((m, k), np.nan, dtype=np.float32)
    return judge(TopK(np.arange(m), items, scores, nothing, (), np.zeros(m, dtype=np.int8)), truth)
