"""Results by group of users: length of history, any column of the users table, and the gap between groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from recsys.evaluation.significance import Sums

LEAST_USERS = 20
"""A group with fewer users is shown, but no gap is taken from it: its bootstrap interval cannot be trusted."""

_HISTORY_STARTS = np.array([0, 1, 5, 20])


@dataclass(frozen=True)
class Grouping:
    """A way to group users: ``levels`` in the order in which they are shown."""

    name: str
    levels: tuple[str, ...]


HISTORY = Grouping("history", ("0", "1-4", "5-19", "20+"))
"""Users by the number of items in their history when their lists were made."""


def history_codes(n_history: np.ndarray) -> np.ndarray:
    """Return int[m], the level of :data:`HISTORY`; -1 for an unknown (negative) length.

    >>> history_codes(np.array([0, 4, 5, 99, -1])).tolist()
    [0, 1, 2, 3, -1]
    """
    return np.searchsorted(_HISTORY_STARTS, n_history, side="right") - 1


def gap(sums: Sums, columns: np.ndarray, levels: tuple[str, ...]) -> dict[str, Any]:
    """Return the largest difference of means between two groups: fairness towards groups of users.

    ``gap``: best mean minus worst; ``ci95``: an interval that allows for having picked the most distant of all pairs
    (it excludes 0 in at most 5 % of cases when all groups are alike); ``best``, ``worst``: their levels.

    The interval is gap ± c · se of that pair, where c is the 95 % point, over resamples, of the largest standardised
    deviation of any pair's difference: Tukey's range with bootstrap errors instead of normal ones.

    Undefined (None) with fewer than two groups of :data:`LEAST_USERS` users.

    Args:
        sums: of disjoint groups of users; ``columns``: int[groups], where each group's values stand.
    """
    large = np.flatnonzero(sums.count[columns] >= LEAST_USERS)
    if len(large) < 2:
        return {"gap": None, "ci95": [None, None], "best": None, "worst": None}
    mean, means = sums.mean[columns[large]], sums.means[:, columns[large]]
    pairs = np.array(list(combinations(range(len(large)), 2)))
    deviation = (means[:, pairs[:, 0]] - mean[pairs[:, 0]]) - (means[:, pairs[:, 1]] - mean[pairs[:, 1]])
    error = deviation.std(axis=0)
    standardised = np.divide(np.abs(deviation), error, out=np.zeros_like(deviation), where=error > 0)
    reach = float(np.quantile(standardised.max(axis=1), 0.95))
    best, worst = int(mean.argmax()), int(mean.argmin())
    picked = np.flatnonzero((pairs == sorted((best, worst))).all(axis=1))
    size, half = float(mean[best] - mean[worst]), reach * float(error[picked].sum())
    names = [levels[group] for group in large]
    return {"gap": size, "ci95": [size - half, size + half], "best": names[best], "worst": names[worst]}
