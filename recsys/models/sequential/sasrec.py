"""The model ``sasrec``: a causal Transformer that predicts the next item.

It is trained with JAX. Scores are computed with NumPy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from recsys.errors import InputError
from recsys.linalg import product
from recsys.logging import log_phase
from recsys.models.collaborative.linear import liked, liked_columns
from recsys.models.sequential.sequences import liked_sequences
from recsys.models.sequential.training import (
    NetworkSettings,
    TrainingSettings,
    require_jax,
    train_network,
)
from recsys.models.sequential.transformer import Weights, last_states
from recsys.parameters import STRICT
from recsys.recommender import Recommender
from recsys.types import Features, Histories, Interactions

JUDGED_SHARE = 0.05
"""Largest share of all likes that is hidden to decide when training stops."""

JUDGED_USERS = 2_000
"""Largest number of users with a hidden like. One like is hidden per user."""

FEWEST_LIKES = 3
"""Smallest number of likes of a user whose last like may be hidden."""

SCORES_AT_ONCE = 1 << 22
"""Largest number of scores in memory at a time when the hidden likes are judged."""


@dataclass(config=STRICT)
class SASRec(Recommender):
    """A causal Transformer that predicts the next item, for logs where order matters.
    Training takes minutes to hours and needs the extra `deep`; scoring does not need it.

    The input is the sequence of a user's likes, oldest first. After each like the network outputs a
    state h. The score of item i is h·y_i, where y_i is also the vector of the item at the input.
    The network is a stack of blocks. A block has two parts: self-attention over the likes so far,
    then two dense layers. Each part begins with a layer norm (pre-norm), and its output is added to
    its input. The loss is the cross-entropy of the next like, at every place of every sequence,
    over all items or over a sample of ``negatives`` items. The loss of the paper, a binary
    cross-entropy with one negative per place, is known to be worse.

    The last like of up to 2,000 users is hidden from training. Training stops when the NDCG of
    these likes has not risen above its highest value for ``patience`` sweeps. The weights of the best
    sweep are kept; they are averages over the last steps. ``losses_`` has the mean loss of each
    sweep. ``record`` has the NDCG after each sweep, the best sweep, and why training stopped.

    Only the ``max_length`` latest likes of a history count. A history without times is read in the
    order of its items. Scores are NaN for items that nobody liked in training, and for a history
    without a liked item that somebody liked in training. The same seed gives the same weights on
    one machine, unless ``minutes`` ends the training.

    References: Kang and McAuley, ICDM 2018 (the network); Klenitskiy and Vasilev, RecSys 2023 (the
    loss); Petrov and Macdonald, RecSys 2023 (why not the loss of the paper).
    """

    STATE: ClassVar = {
        "known_": "bool[items]",
        "item_vectors_": "float32[liked, rank]",
        "positions_": "float32[places, rank]",
        "queries_": "float32[blocks, rank, rank]",
        "keys_": "float32[blocks, rank, rank]",
        "values_": "float32[blocks, rank, rank]",
        "mixes_": "float32[blocks, rank, rank]",
        "inner_": "float32[blocks, rank, hidden]",
        "inner_bias_": "float32[blocks, hidden]",
        "outer_": "float32[blocks, hidden, rank]",
        "outer_bias_": "float32[blocks, rank]",
        "scales_": "float32[norms, rank]",
        "shifts_": "float32[norms, rank]",
    }
    SPACE: ClassVar = {"rank": (32, 128), "dropout": (0.1, 0.6), "learning_rate": (0.0003, 0.01)}
    USES_ORDER: ClassVar = True
    SOURCE: ClassVar = "sasrec"

    rank: Annotated[int, Field(ge=1, description="numbers per item and per state")] = 64
    blocks: Annotated[int, Field(ge=1, le=64, description="blocks of attention and two layers")] = 2
    heads: Annotated[int, Field(ge=1, description="attentions of a block; a divisor of `rank`")] = 2
    max_length: Annotated[
        int, Field(ge=1, le=4096, description="the latest likes of a history that count; cost grows with it")
    ] = 50
    dropout: Annotated[
        float,
        Field(ge=0, le=0.95, description="share of the network's values that are zeroed in training"),
    ] = 0.3
    learning_rate: Annotated[float, Field(gt=0, description="step size of Adam")] = 3e-3
    batch: Annotated[int, Field(ge=1, description="places of sequences per step of training")] = 2048
    negatives: Annotated[
        int,
        Field(
            ge=1,
            description="sampled items that each place of a batch is contrasted with; with this number "
            "of liked items or fewer, the loss is over all of them",
        ),
    ] = 1024
    iterations: Annotated[int, Field(ge=1, description="sweeps over all sequences, at most")] = 100
    patience: Annotated[int, Field(ge=1, description="sweeps without a better value after which training stops")] = 12
    minutes: Annotated[
        float | None,
        Field(gt=0, description="training stops then, with the best weights so far; unset: no limit"),
    ] = None
    seed: Annotated[int, Field(ge=0, description="seed of all that is random in training")] = 0

    @field_validator("heads")
    @classmethod
    def _heads_divide_rank(cls, heads: int, info: ValidationInfo) -> int:
        rank = info.data.get("rank", heads)
        if rank % heads:
            raise ValueError(f"it must divide rank = {rank}")
        return heads

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Train the network, always from a new random start, and return the model.

        ``features`` is not used.

        Raises:
            MissingExtra: JAX or optax is not installed.
            ConfigError: ``learning_rate`` is so large that weights become infinite or NaN.
            InputError: no event has a time, or no user has two likes.
        """
        require_jax()
        sequences = liked_sequences(train.histories(), "sasrec")
        self.known_ = liked_columns(train.matrix())
        likes = LikedSequences(sequences.indptr, _liked_number(self.known_)[sequences.items])
        if np.diff(likes.indptr).max(initial=0) < 2:
            raise InputError(
                "model 'sasrec' learns what follows a like, but no user of train has two liked items:"
                " use a model without order, such as 'popular'."
            )
        hidden = _hide_last_likes(likes, self.seed)
        network = NetworkSettings(self.rank, self.blocks, self.heads, self.dropout, self.learning_rate)
        settings = TrainingSettings(
            network,
            max_length=self.max_length,
            batch=self.batch,
            negatives=self.negatives,
            iterations=self.iterations,
            patience=self.patience,
            minutes=self.minutes,
            seed=self.seed,
        )
        n_items = int(self.known_.sum())

        def validate(weights: Weights) -> float:
            return mean_ndcg(weights, hidden, self.heads)

        n_likes = len(likes.items)
        with log_phase("sasrec: train the network", items=n_items, likes=n_likes, rank=self.rank):
            result = train_network(
                hidden.visible.indptr,
                hidden.visible.items,
                n_items,
                settings,
                validate if len(hidden.users) else None,
            )
        for name, array in zip(list(self.STATE)[1:], result.weights, strict=True):
            setattr(self, name, array)
        metric = "minus the loss"
        if len(hidden.users):
            metric = "ndcg of the hidden last likes, all ranks"
        self.losses_ = np.array(result.losses)
        self.record = {
            "users": len(hidden.users),
            "metric": metric,
            "values": [round(value, 5) for value in result.values],
            "best": 1 + int(np.argmax(result.values)),
            "stopped": result.reason,
        }
        return self

    @property
    def n_items(self) -> int:
        """The number of items that the model was fitted with."""
        return len(self.known_)

    def user_vectors(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the state of the network after the last like of each history, float32[m, rank].

        The state is zero for a history without a liked item that somebody liked in training.
        ``users`` is not used.
        """
        counted = (histories.values.data > 0) & self.known_[histories.values.indices]
        likes = histories.keep_entries(counted)
        indptr = likes.values.indptr.astype(np.int64)
        items = np.empty(likes.values.nnz, dtype=np.int32)
        entries = indptr[likes.row_of_entry] + likes.positions()
        items[entries] = _liked_number(self.known_)[likes.values.indices]
        return last_states(self._weights(), indptr, items, self.heads)

    def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return the score of every item for each of m histories, float32[m, items].

        A score is NaN if nobody liked the item in training, or if the history has no liked item
        that somebody liked in training. ``users`` is not used.
        """
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        rows = np.flatnonzero(self.can_score(histories))
        states = self.user_vectors(histories)[rows]
        scores[np.ix_(rows, np.flatnonzero(self.known_))] = product(states, self._weights().items.T)
        return scores

    def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: whether each of m histories has a liked item that somebody liked in training."""
        return np.diff(liked(histories.values, self.known_, binary=True).indptr) > 0

    def _weights(self) -> Weights:
        """Return the fitted arrays as the weights of the network."""
        return Weights(*(getattr(self, name) for name in list(self.STATE)[1:]))


class LikedSequences(NamedTuple):
    """Sequences of liked items: sequence u is ``items[indptr[u]:indptr[u + 1]]``.

    Attributes:
        indptr: int64[m + 1], where each of m sequences begins and ends in ``items``.
        items: int32[n], the items. They are numbered 0, 1, … over the liked items only.
    """

    indptr: np.ndarray
    items: np.ndarray


class HiddenLikes(NamedTuple):
    """Sequences of likes without the last like of some users, and these hidden likes.

    Attributes:
        visible: the sequences of all users, without the hidden likes.
        users: int64[n], the sequences in ``visible`` from which a like is hidden.
        items: int32[n], the hidden item of each of these users.
    """

    visible: LikedSequences
    users: np.ndarray
    items: np.ndarray


def _liked_number(is_liked: np.ndarray) -> np.ndarray:
    """Return the number of each liked item, counted from 0 over the liked items only, int32[items]."""
    return (np.cumsum(is_liked) - 1).astype(np.int32)


def _hide_last_likes(likes: LikedSequences, seed: int) -> HiddenLikes:
    """Hide the last like of a random sample of users with at least :data:`FEWEST_LIKES` likes."""
    lengths = np.diff(likes.indptr)
    eligible = np.flatnonzero(lengths >= FEWEST_LIKES)
    count = min(JUDGED_USERS, len(eligible) // 2, int(np.ceil(JUDGED_SHARE * len(likes.items))))
    users = np.sort(np.random.default_rng(seed).permutation(eligible)[:count])
    last = likes.indptr[users + 1] - 1
    lengths[users] -= 1
    visible = LikedSequences(np.concatenate([[0], np.cumsum(lengths)]), np.delete(likes.items, last))
    return HiddenLikes(visible, users, likes.items[last])


def mean_ndcg(weights: Weights, hidden: HiddenLikes, heads: int) -> float:
    """Return the mean NDCG of the hidden likes, without a cut-off.

    The NDCG of a hidden like is 1 / log2(1 + rank), where rank is 1 + the number of items with a
    higher score. Only items that somebody liked in training are ranked, without those of the user's
    sequence. A tie counts in favour of the hidden like. Without a cut-off the mean varies less from
    sweep to sweep than with a cut-off at ten.

    Args:
        weights: the weights of the network.
        hidden: the sequences, and the hidden like of some users. There is at least one.
        heads: the number of attention heads of a block.
    """
    total = 0.0
    indptr, items = hidden.visible
    states = last_states(weights, indptr, items, heads)[hidden.users]
    block = max(1, SCORES_AT_ONCE // len(weights.items))
    for start in range(0, len(states), block):
        scores = product(states[start : start + block], weights.items.T)
        for row in range(len(scores)):
            user = hidden.users[start + row]
            value = scores[row, hidden.items[start + row]]
            scores[row, items[indptr[user] : indptr[user + 1]]] = -np.inf
            total += 1 / np.log2(2 + np.count_nonzero(scores[row] > value))
    return total / len(states)
