"""Measure whether the order of events in a log helps to predict the next event.

A model that uses the order is judged on the true histories and on shuffled ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys.evaluation.testing.significance import mean_ci
from recsys.models.combining.trial import DEPTH, Trial
from recsys.models.sequential.transitions import Transitions
from recsys.types import Interactions

LEAST_LIKES = 3
"""Smallest number of likes of a user: one is hidden, and the others can be shuffled."""

LEAST_USERS = 100
"""Smallest number of users with enough likes. With fewer, nothing is measured."""
MOST_USERS = 2_000
"""Largest number of users whose last like is hidden."""
SHUFFLES = 3
"""Number of times that the histories are shuffled."""


@dataclass(frozen=True)
class OrderEffect:
    """How much the order of histories helps to predict the last like of a user.

    ``str(effect)`` is a sentence that says whether the order helps.

    Attributes:
        users: the number of users whose last like was hidden.
        ordered: the mean NDCG@100 of the hidden likes if histories are in the order of time.
        shuffled: the mean NDCG@100 if each history is in a random order.
        difference: the mean over users of their NDCG@100 in the order of time minus that in a
            random order.
        low, high: the 95 % interval of the difference.
    """

    users: int
    ordered: float
    shuffled: float
    difference: float
    low: float
    high: float

    @property
    def matters(self) -> bool:
        """Whether the whole 95 % interval of the difference is above 0."""
        return self.low > 0

    def as_dict(self) -> dict[str, Any]:
        """Return a dict of the attributes, with ``metric`` ("ndcg@100") and ``matters`` (bool) added."""
        return asdict(self) | {"metric": f"ndcg@{DEPTH}", "matters": self.matters}

    def __str__(self) -> str:
        outcome = "order matters: a model of order (transitions, next_item) is worth a trial"
        if not self.matters:
            outcome = "order is not shown to matter"
        return (
            f"{outcome}. ndcg@{DEPTH} of the last like of {self.users:,} users is {self.ordered:.4f} by transitions,"
            f" and {self.shuffled:.4f} after each history is shuffled: {self.difference:+.4f}"
            f" [{self.low:+.4f}, {self.high:+.4f}]"
        )


def measure_order(log: Interactions, seed: int = 0) -> OrderEffect | None:
    """Measure how much the order of users' likes helps to predict their last like.

    At most 2,000 users with at least three likes are drawn, and their last like is hidden. The
    model ``transitions`` with its default settings is fitted on the other likes of ``log``. It
    ranks all items that these users have not seen. The same is done after the times of each user's
    likes are shuffled, and repeated for three shuffles, whose mean counts. Likes of one user with
    the same time, such as the items of one basket, are first put in a random order.

    The result is None if fewer than 100 users have three likes, or if no event has a time.

    Args:
        log: all interactions. Likes are those with a value above 0.
        seed: the seed of the draw, of the shuffles and of the bootstrap.

    Reference: Klenitskiy, Volodkevich, Pembek and Vasilev, Does It Look Sequential?, RecSys 2024.
    """
    histories = log.histories()
    if histories.times is None:
        return None
    generator = np.random.default_rng(seed)
    log = replace(log, time=_times_without_ties(log, generator))
    histories = log.histories()
    likes = histories.keep_entries(histories.values.data > 0)
    eligible = np.flatnonzero(likes.lengths >= LEAST_LIKES)
    if len(eligible) < LEAST_USERS:
        return None
    users = np.sort(generator.permutation(eligible)[:MOST_USERS])
    row = likes.row_of_entry
    is_last = likes.positions() == likes.lengths[row] - 1
    is_hidden = is_last & np.isin(row, users)
    ones = np.ones(int(is_hidden.sum()), dtype=np.float32)
    hidden = csr_array((ones, (row[is_hidden], likes.values.indices[is_hidden])), shape=likes.shape)
    train = _likes_without(log, is_hidden)
    # Any item may be listed: the items of the log are all there is.
    all_items = np.ones(len(log.items), dtype=bool)
    ordered = _ndcg(train, hidden, users, all_items)
    shuffled = np.mean([_ndcg(_shuffled(train, generator), hidden, users, all_items) for _ in range(SHUFFLES)], axis=0)
    interval = mean_ci(ordered - shuffled, seed=seed)
    return OrderEffect(len(users), float(ordered.mean()), float(shuffled.mean()), *interval)


def _times_without_ties(log: Interactions, generator: np.random.Generator) -> np.ndarray:
    """Return the position of each entry in the order of time, int64[entries].

    Entries of one user with the same time are in a random order; those without a time are first.
    """
    order = np.lexsort((generator.random(len(log)), log.time, log.user))
    position = np.empty(len(log), dtype=np.int64)
    position[order] = np.arange(len(log))
    return position


def _likes_without(log: Interactions, is_hidden: np.ndarray) -> Interactions:
    """Return the likes of a log without the hidden ones.

    Args:
        is_hidden: bool[likes], True for the likes to leave out.
    """
    rows = np.flatnonzero(log.value > 0)[~is_hidden]
    return replace(log, user=log.user[rows], item=log.item[rows], value=log.value[rows], time=log.time[rows])


def _shuffled(train: Interactions, generator: np.random.Generator) -> Interactions:
    """Return the interactions with the times of each user's likes shuffled."""
    order = np.lexsort((generator.random(len(train)), train.user))
    return replace(train, time=train.time[order])


def _ndcg(train: Interactions, hidden: csr_array, users: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Fit ``transitions`` on ``train``, and return the NDCG of each user's hidden like, float64[users].

    Args:
        hidden: csr (users, items), the hidden likes.
        users: int[n], rows of the users to judge.
        candidates: bool[items], the items that are ranked.
    """
    trial = Trial(train, hidden, users, candidates)
    return trial.judge(Transitions().fit(train), np.arange(len(users)))
