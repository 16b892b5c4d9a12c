"""The model ``next_item``: a ridge regression from faded histories to the next item, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.linalg import inv
from scipy.sparse import csr_array, hstack, vstack

from recsys.errors import InputError
from recsys.linalg import one_blas_thread
from recsys.logging import log_phase
from recsys.models.collaborative.fading import RecencyDays
from recsys.models.collaborative.linear import Linear, count_liked_rows
from recsys.models.sequential.sequences import (
    Sequences,
    count_neighbours_in_time,
    decayed_gram,
    liked_sequences,
)
from recsys.parameters import STRICT
from recsys.recommender import FitsFromSums
from recsys.types import Features, Histories, Interactions

NEGLIGIBLE = 1e-7
"""A like whose weight has faded to this value is ignored.

So the time of a fit grows with the length of the histories, and not with its square.
"""

DENSE_SHARE = 0.05
"""The share of cells with a value from which on a product with a sparse matrix takes more time than one
with the same matrix as a dense one."""


@dataclass(config=STRICT)
class NextItem(Linear, FitsFromSums):
    """Ridge regression that predicts the next like from the likes before it; later ones count more.
    The result is exact and deterministic. The model is for at most some ten thousand items.

    There is one *memory* per number in ``decays``. Before the like t of a user, memory s is a vector
    over the items, with the weight decays_s^(t−1−p) for each earlier like p: x_s(t) = Σ_{p<t}
    decays_s^(t−1−p) · e(p). e(p) is the indicator vector of the item of like p. So a like counts less
    the more likes come after it. Over all likes of all users, the weights W_s

        minimise Σ_t |e(t) − Σ_s x_s(t) W_s|² + reg · Σ_s |W_s|²        score(u) = Σ_s x_s(u) W_s

    x_s(u) is memory s after the last like of user u. The Gram matrix of the regression is summed in
    one pass over the sequences and then inverted. With a small and a large decay, one model uses both
    the last likes and the general taste of a user. Only items that somebody liked in training take
    part; the scores of the others are NaN. So are all scores for a history without a liked item
    that takes part.

    With S decays a fit needs 12 · (S · items)² bytes, of which 4 · S · items² are kept, and its time
    grows with (S · items)³. If it would need more than ``memory_mb``, it raises an error before it
    allocates memory.

    The model is EASE (Steck, WWW 2019) with the next item as its target. The model SLIT of Choi et
    al., WWW 2021 (session-aware linear models), does the same for sessions.
    """

    STATE: ClassVar = {"weights_": "float32[memories, liked, liked]", "known_": "bool[items]"}
    SPACE: ClassVar = {"reg": (1.0, 3_000.0)}
    USES_ORDER: ClassVar = True
    SOURCE: ClassVar = "next_item"

    decays: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], ...],
        Field(min_length=1, description="one memory each: the factor by which a like fades with each like after it"),
    ] = (0.8,)
    reg: Annotated[float, Field(gt=0, description="regularization; higher values keep weights smaller")] = 30.0
    memory_mb: Annotated[
        int, Field(ge=1, description="memory for the matrices of a fit, in MiB; a fit that needs more is refused")
    ] = 4096
    recency_days: RecencyDays = None

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Sum the Gram matrix over all users, compute the weights, and return the model.

        ``features`` is not used.

        Raises:
            InputError: no event has a time, or the matrices would not fit in ``memory_mb``.
        """
        histories = train.histories()
        self.prepare_sums(count_liked_rows(histories.values))
        self.fit_sums(self.sum_users(histories))
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Store which items somebody liked.

        Args:
            likes: int[items], the number of users who like each item.

        Raises:
            InputError: the matrices would not fit in ``memory_mb``.
        """
        self.known_ = likes > 0
        items = int(self.known_.sum())
        need = 12 * (len(self.decays) * items) ** 2 / 2**20
        if need > self.memory_mb:
            raise InputError(
                f"model 'next_item': {items:,} liked items and {len(self.decays)} decays need"
                f" {need:,.0f} MiB, more than memory_mb = {self.memory_mb:,}. Raise it, drop rare"
                " items (the `filter` section), or use 'transitions'"
            )

    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return two matrices that are summed over the likes of these users.

        :meth:`fit_sums` computes the weights from them. Call :meth:`prepare_sums` first: it stores
        which n items somebody liked. S is the number of memories, one per number in ``decays``.

        The result is a dict. Each like of a user adds one term to both matrices; x is the vector of
        the S memories before that like, and e is the indicator vector of its item:

        - ``gram``: float32[S · n, S · n], the sum of x xᵀ;
        - ``targets``: csr (S · n, n), the sum of x eᵀ.

        The sums of several groups of users may be added.

        Raises:
            InputError: no event has a time.
        """
        sequences = _among_liked(liked_sequences(histories, "next_item"), self.known_)
        size = len(self.decays) * sequences.n_items
        with log_phase("next_item: sum the Gram matrix", likes=len(sequences.items), size=size):
            powers, sums = _tables(self.decays, sequences.longest)
            gram = decayed_gram(*sequences, powers, sums)
            return {"gram": gram, "targets": self._targets(sequences)}

    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Compute the weights from the matrices of :meth:`sum_users`, summed over all users.

        Args:
            sums: a dict with the keys ``gram``, which is overwritten, and ``targets``.
        """
        gram = np.asarray(sums["gram"])
        size = len(gram)
        with one_blas_thread(), log_phase("next_item: invert the Gram matrix", size=size):
            gram[np.diag_indices(size)] += np.float32(self.reg)
            inverse = inv(gram, overwrite_a=True, check_finite=False, assume_a="pos", lower=True)
            targets = csr_array(sums["targets"], dtype=np.float32)
            if targets.nnz > DENSE_SHARE * np.prod(targets.shape):
                weights = np.ascontiguousarray(inverse @ targets.toarray())
            else:
                # The inverse is symmetric, and a sparse matrix times a dense one is the faster order.
                weights = np.ascontiguousarray((targets.T @ inverse).T)
        self.weights_ = weights.reshape(len(self.decays), -1, weights.shape[1])

    def _targets(self, sequences: Sequences) -> csr_array:
        """Return the products of the memories and the next items, summed over all likes.

        The sum for memory s is Σ_t x_s(t) e(t)ᵀ. The sums of the S memories are stacked as csr
        float32[S · items, items].
        """
        none = np.zeros(0)
        blocks = []
        for decay in self.decays:
            forward = decay ** np.arange(float(_reach(decay, sequences.longest)))
            blocks.append(count_neighbours_in_time(sequences, forward, none))
        return csr_array(vstack(blocks, format="csr"))

    def _strengths(self, histories: Histories) -> csr_array:
        """Return the S memories of each history, one after the other, csr (m, S · liked items).

        The dtype is float32.
        """
        likes = super()._strengths(histories)
        places = histories.places_from_end(self._counted(histories))
        memories = []
        for decay in self.decays:
            faded = likes.data * (decay**places).astype(np.float32)
            memory = csr_array((faded, likes.indices, likes.indptr), shape=likes.shape)
            memories.append(memory[:, self.known_])
        return csr_array(hstack(memories, format="csr"))

    def _apply(self, strengths: csr_array) -> np.ndarray:
        scores = np.zeros((strengths.shape[0], len(self.known_)), dtype=np.float32)
        scores[:, self.known_] = strengths @ self.weights_.reshape(strengths.shape[1], -1)
        return scores

    def _contributions(self, strengths: csr_array, item: int) -> np.ndarray:
        rows = strengths.indices % self.weights_.shape[1]
        memory = strengths.indices // self.weights_.shape[1]
        column = np.count_nonzero(self.known_[:item])
        added = strengths.data.astype(np.float64) * self.weights_[memory, rows, column]
        return added.reshape(len(self.decays), -1).sum(axis=0)


def _among_liked(sequences: Sequences, is_liked: np.ndarray) -> Sequences:
    """Return the sequences with their items renumbered over the liked items only: 0, 1, …

    Args:
        is_liked: bool[items], the items that somebody liked. The sequences have no other items.
    """
    number = (np.cumsum(is_liked) - 1).astype(np.int32)
    by_item = np.append(sequences.by_item[:-1][is_liked], len(sequences.items))
    return sequences._replace(items=number[sequences.items], by_item=by_item)


def _reach(decay: float, longest: int) -> int:
    """Return the number of positions in a history over which a like has a weight that counts.

    The weight of a like falls by the factor ``decay`` per later like. From this number of later likes
    on, it is below :data:`NEGLIGIBLE`. The result is at most ``longest``.
    """
    return min(longest, 1 + int(np.log(NEGLIGIBLE) / np.log(max(decay, NEGLIGIBLE))))


def _tables(decays: tuple[float, ...], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute two tables from S decays d, which :func:`~.sequences.decayed_gram` needs.

    The first table, float64[S, reach], has the powers d_s^p of each decay s, for p = 0 … reach − 1.
    Likes that are ``reach`` or more positions apart have no effect on each other. The second table,
    float64[S, S, longest], has at [s, r, m] the sum Σ_{u<m} (d_s d_r)^u of powers of the product of
    two decays.

    Args:
        decays: the S decays.
        longest: the length of the longest sequence.
    """
    powers = np.array(decays)[:, None] ** np.arange(longest)
    products = powers[:, None, :] * powers[None, :, :]
    sums = np.zeros_like(products)
    sums[:, :, 1:] = np.cumsum(products, axis=2)[:, :, :-1]
    reach = max(_reach(decay, longest) for decay in decays)
    return np.ascontiguousarray(powers[:, :reach]), sums
