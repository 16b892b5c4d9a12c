"""NextItem: a ridge regression, in closed form, from decayed histories to the next item."""

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
"""A like that has faded to this share is ignored.

So the time of a fit grows with the length of a history, and not with its square.
"""


@dataclass(config=STRICT)
class NextItem(Linear, FitsFromSums):
    """Ridge regression from what a user liked, the latest most, to what the user liked next. It is
    exact and deterministic, and meant for at most some ten thousand items.

    Before each like t of a user, memory s has the history with each earlier like p faded by the
    number of likes in between: x_s(t) = Σ_{p<t} decays_s^(t−1−p) · e(p). Over all likes of all
    users, the weights W

        minimise Σ_t |e(t) − Σ_s x_s(t) W_s|² + reg · Σ_s |W_s|²        score(u) = Σ_s x_s(u) W_s

    The Gram matrix is summed in one pass over the sequences and then inverted, so the result is
    exact and deterministic. With several decays, one model has both the last likes and the general
    taste. Only items that somebody liked take part.

    With S decays a fit needs 12 · (S · items)²
    bytes, of which 4 · S · items² are kept, and its time grows with (S · items)³. If it would need
    more than ``memory_mb``, it raises an error before it allocates memory.

    It is EASE (Steck, WWW 2019) with the next item as its target, as SLIT of Choi et al., WWW 2021
    (session-aware linear models) does it for sessions.
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
        """Sum the Gram matrix over all users, and compute the weights from its inverse.

        Raises:
            InputError: no event has a time, or the matrices would not fit in ``memory_mb``.
        """
        histories = train.histories()
        self.prepare_sums(count_liked_rows(histories.values))
        self.fit_sums(self.sum_users(histories))
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Store which items somebody liked.

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
        """Return ``gram``, float32[S · liked, S · liked], and ``targets``, csr (S · liked, liked).

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
        """Compute the weights from the summed matrices. The Gram matrix is overwritten."""
        gram = np.asarray(sums["gram"])
        size = len(gram)
        with one_blas_thread(), log_phase("next_item: invert the Gram matrix", size=size):
            gram[np.diag_indices(size)] += np.float32(self.reg)
            inverse = inv(gram, overwrite_a=True, check_finite=False, assume_a="pos", lower=True)
            # The inverse is symmetric, and a sparse matrix times a dense one is the faster order.
            targets = csr_array(sums["targets"])
            weights = np.ascontiguousarray((targets.T @ inverse).T, dtype=np.float32)
        self.weights_ = weights.reshape(len(self.decays), -1, weights.shape[1])

    def _targets(self, sequences: Sequences) -> csr_array:
        """Return Σ_t x_s(t) e(t)ᵀ for each memory s, stacked as csr float32[S · items, items]."""
        none = np.zeros(0)
        blocks = []
        for decay in self.decays:
            forward = decay ** np.arange(float(_reach(decay, sequences.longest)))
            blocks.append(count_neighbours_in_time(sequences, forward, none))
        return csr_array(vstack(blocks, format="csr"))

    def _strengths(self, histories: Histories) -> csr_array:
        """Return the faded likes of all memories side by side, csr (m, S · liked) of float32."""
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
    """Return the sequences with only the liked items, numbered 0, 1, … .

    Args:
        is_liked: bool[items]. The sequences have no other items.
    """
    number = (np.cumsum(is_liked) - 1).astype(np.int32)
    by_item = np.append(sequences.by_item[:-1][is_liked], len(sequences.items))
    return sequences._replace(items=number[sequences.items], by_item=by_item)


def _reach(decay: float, longest: int) -> int:
    """Return how many likes later a like has faded to a negligible share, at most ``longest``."""
    return min(longest, 1 + int(np.log(NEGLIGIBLE) / np.log(max(decay, NEGLIGIBLE))))


def _tables(decays: tuple[float, ...], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tables of the powers of the decays, and of the sums of their products.

    The first is d_s^p, float64[S, reach]; the second is Σ_{u<m} (d_s d_r)^u, float64[S, S,
    longest]. ``reach`` is the largest number of later likes after which a like still counts.
    """
    powers = np.array(decays)[:, None] ** np.arange(longest)
    products = powers[:, None, :] * powers[None, :, :]
    sums = np.zeros_like(products)
    sums[:, :, 1:] = np.cumsum(products, axis=2)[:, :, :-1]
    reach = max(_reach(decay, longest) for decay in decays)
    return np.ascontiguousarray(powers[:, :reach]), sums
