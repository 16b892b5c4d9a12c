"""The model ``transitions``: it counts which items follow an item, and predicts the next one from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys.logging import log_phase
from recsys.models.collaborative.fading import Decay, Fading
from recsys.models.collaborative.linear import SparseLinear, count_liked_rows
from recsys.models.sequential.sequences import count_neighbours_in_time, liked_sequences
from recsys.parameters import STRICT
from recsys.recommender import FitsFromSums
from recsys.types import Features, Histories, Interactions


@dataclass(config=STRICT)
class Transitions(Fading, SparseLinear, FitsFromSums):
    """Counts which items follow each item: fast, for logs where the last items matter most.

    C_ji is a sum over the users who like both items j and i. A user adds 1/d if i comes d places after
    j in the sequence of likes, and ``backward``/d if i comes d places before j (d ≤ ``window``). Then

        W_ji = C_ji / (n_j^source_power · n_i^target_power)
        score(u, i) = Σ_p decay^p · W_ji,  where j is the liked item p places from the end

    n_j and n_i are the numbers of likes of the items. Times are used only for the order. If
    ``recency_days`` is set, the term of a like is also multiplied by 2^(−age / recency_days), where
    the age is the number of days to the latest entry of the history. Without times in the history,
    all likes have the same weight. Scores are NaN for items that nobody liked in training, and for
    a history without a liked item that somebody liked in training. The model needs at most 8 ·
    likes · (2 · window) bytes.

    Reference: a sequential-rules model with weights by distance, Ludewig and Jannach, UMUAI 2018.
    """

    STATE: ClassVar = {"weights_": "csr float32[items, items]", "known_": "bool[items]"}
    SPACE: ClassVar = {
        "window": (1, 30),
        "backward": (0.0, 1.0),
        "source_power": (0.0, 1.0),
        "target_power": (0.0, 0.7),
        "decay": (0.1, 1.0),
    }
    USES_ORDER: ClassVar = True
    SOURCE: ClassVar = "transitions"

    window: Annotated[int, Field(ge=1, description="the most places between two likes that count as a transition")] = 20
    backward: Annotated[
        float, Field(ge=0, description="weight of a transition against the order of time; 0: only forward ones")
    ] = 0.25
    source_power: Annotated[
        float, Field(ge=0, description="power of the likes of the item of the history, by which a weight is divided")
    ] = 0.5
    target_power: Annotated[
        float, Field(ge=0, description="power of the likes of the scored item; higher favours rare items")
    ] = 0.1
    decay: Decay = 0.7

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Count the transitions in the sequences of all users, and return the model.

        The sequence of a user has the user's likes (values above 0), the earliest first. Likes of the
        same time are in the order of their item rows, and likes without a time come first.

        Args:
            features: not used.

        Raises:
            InputError: no event has a time.
        """
        histories = train.histories()
        self.prepare_sums(count_liked_rows(histories.values))
        self.fit_sums(self.sum_users(histories))
        return self

    def prepare_sums(self, likes: np.ndarray) -> None:
        """Store the number of likes of each item, by which :meth:`fit_sums` divides the counts.

        Args:
            likes: int[items], the number of users who like each item.
        """
        self.known_ = likes > 0
        self._likes = np.maximum(likes, 1).astype(np.float64)

    def sum_users(self, histories: Histories) -> dict[str, np.ndarray | csr_array]:
        """Return the weighted numbers of transitions of these users.

        The result is a dict with one key, ``counts``: csr (items, items), the C_ji of the class,
        summed over these users. Row j is the item of the history, column i the scored item.

        Raises:
            InputError: no event has a time.
        """
        sequences = liked_sequences(histories, "transitions")
        by_distance = 1 / np.arange(1.0, self.window + 1)
        with log_phase("transitions: count", likes=len(sequences.items), window=self.window):
            counts = count_neighbours_in_time(sequences, by_distance, self.backward * by_distance)
        return {"counts": counts}

    def fit_sums(self, sums: Mapping[str, np.ndarray | csr_array]) -> None:
        """Compute the weights: the counts divided by powers of the numbers of likes of both items.

        Args:
            sums: a dict with the key ``counts``, as :meth:`sum_users` returns it, for all users.
        """
        counts = csr_array(sums["counts"])
        source = np.repeat(self._likes**-self.source_power, np.diff(counts.indptr))
        target = self._likes[counts.indices] ** -self.target_power
        weights = (counts.data * source * target).astype(np.float32)
        self.weights_ = csr_array((weights, counts.indices, counts.indptr), shape=counts.shape)
