"""The next item by ridge regression from decayed histories, in closed form."""

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
"""A like that has faded to this share is left out, so that time grows with the length of a history and not with
its square.
"""


@dataclass(config=STRICT)
class NextItem(Linear, FitsFromSums):
    """Ridge regression from what a user liked, the latest most, to what they liked next. Exact and
    deterministic; for some ten thousand items.

    Before each like t of a user, memory s holds the history with each like p faded by the places
    since: x_s(t) = Σ_{p<t} decays_s^(t−1−p) · e(p). Over all likes of all users,

        minimise Σ_t |e(t) − Σ_s x_s(t) W_s|² + reg · Σ_s |W_s|²        score(u) = Σ_s x_s(u) W_s

    The Gram matrix is summed in one pass over the sequences and inverted. Several decays let one
    model hold what was last and what the user likes in general. Only items that somebody liked take
    part. Memory while fitting: 12 · (S · items)² bytes with S decays, of which 4 · S · items² are kept; time
    grows with (S · items)³. Beyond ``memory_mb`` the fit refuses before it allocates.

    It is EASE (Steck, WWW 2019) with the next item as its target, in the way that SLIT of Choi et al.,
    WWW 2021 (session-aware linear models) does it for sessions.
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
        """Sum the Gram matrix and solve.

        Raises:
            InputError: no event has a time, or the matrices would not fit in ``memory_mb``.
        """
        histories = train.histories()
        self.prepare_sums(count_liked_rows(histories.values))
        self.fit_sums(self.sum_users(histories))
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Keep which items are liked.

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
        """Invert the Gram matrix."""
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
        """Return csr float32[S · items, items], Σ_t x_s(t) e(t)ᵀ for each memory s, one below the other."""
        none = np.zeros(0)
        blocks = []
        for decay in self.decays:
            forward = decay ** np.arange(float(_reach(decay, sequences.longest)))
            blocks.append(count_neighbours_in_time(sequences, forward, none))
        return csr_array(vstack(blocks, format="csr"))

    def _strengths(self, histories: Histories) -> csr_array:
        """Return csr float32 (m, S · liked): the faded likes of each memory, one beside the other."""
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
    """Return the sequences with the liked items numbered 0, 1, …; ``is_liked``: bool[items]."""
    number = (np.cumsum(is_liked) - 1).astype(np.int32)
    by_item = np.append(sequences.by_item[:-1][is_liked], len(sequences.items))
    return sequences._replace(items=number[sequences.items], by_item=by_item)


def _reach(decay: float, longest: int) -> int:
    """Return the number of places after which a like has faded to a negligible share, at most ``longest``."""
    return min(longest, 1 + int(np.log(NEGLIGIBLE) / np.log(max(decay, NEGLIGIBLE))))


def _tables(decays: tuple[float, ...], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the powers d_s^p, float64[S, reach], and the sums Σ_{u<m} (d_s d_r)^u, float64[S, S,
    longest]; ``reach``: the most places after which a like still counts.
    """
    powers = np.array(decays)[:, None] ** np.arange(longest)
    products = powers[:, None, :] * powers[None, :, :]
    sums = np.zeros_like(products)
    sums[:, :, 1:] = np.cumsum(products, axis=2)[:, :, :-1]
    reach = max(_reach(decay, longest) for decay in decays)
    return np.ascontiguousarray(powers[:, :reach]), sums
