"""Random logs that are hard on a factorization, and what must hold of factors that are trained on them.

``tests/models/test_als_random_logs.py`` trains the models of the local engine on them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import block_diag, coo_array, csr_array

from recsys.als import definition
from recsys.als.definition import MAX_CONFIDENCE, Objective
from recsys.errors import InputError
from recsys.types import IdMap, Interactions

SMALLEST = 1e-25
"""Size of a right side below which single precision underflows, and zeros are as good."""

VALUES = ("ones", "equal", "stars", "counts", "wide", "narrow", "one huge", "negatives")


@dataclass(frozen=True)
class RandomLog:
    """One log, float32 csr (users, items), and the parameters with which models are trained on it."""

    seed: int
    matrix: csr_array
    params: dict[str, Any]

    @property
    def objective(self):
        return Objective(*(self.params[name] for name in ("alpha", "reg", "nu", "beta")))

    @property
    def largest(self):
        return float(np.abs(self.matrix.data).max(initial=0))

    def interactions(self):
        """Return the log as a model is given it: one entry per pair, sorted by user and item."""
        pairs = coo_array(self.matrix)
        users, items = (IdMap.from_ids(np.arange(size)) for size in self.matrix.shape)
        user, item = (side.astype(np.int32) for side in (pairs.row, pairs.col))
        return Interactions(users, items, user, item, pairs.data, np.full(len(user), -1))


def random_log(seed):
    """Return the log of a seed: some blocks of users and items that share nothing with other blocks.

    A block is a core of users and items, a user and an item that have only each other, a user alone with some items, an
    item alone with some users, users with the same history, or a user and an item without any pair. Values are
    from 1e-6 to 1e12.
    """
    rng = np.random.default_rng(seed)
    blocks = []
    for kind in rng.choice(["core", "pairs", "user", "item", "twins", "none"], rng.integers(1, 6)):
        size = int(rng.integers(1, 20))
        if kind == "core":
            blocks.append(rng.random((size * 2, size + 1)) < rng.choice([0.1, 0.3, 0.9]))
        elif kind == "pairs":
            blocks += [*np.ones((size, 1, 1))]
        elif kind == "user":
            blocks.append(np.ones((1, size)))
        elif kind == "item":
            blocks.append(np.ones((size, 1)))
        elif kind == "twins":
            blocks.append(np.tile(rng.random((1, size)) < 0.5, (5, 1)))
        else:
            blocks.append(np.zeros((1, 1)))
    pattern = block_diag([block.astype(np.float32) for block in blocks]).tocsr()
    matrix = csr_array(pattern, dtype=np.float32)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    matrix.data = _values(str(rng.choice(VALUES)), matrix.nnz, rng)
    params = {
        "rank": int(rng.choice([1, 2, 4, 16, 64])),
        "iterations": int(rng.choice([1, 5, 15, 60])),
        "alpha": float(rng.choice([0.0, 1e-3, 0.5, 10.0, 100.0])),
        "reg": float(rng.choice([1e-6, 1e-3, 0.05, 1.0, 100.0])),
        "nu": float(rng.choice([0.0, 0.5, 1.0, 1.0])),
        "beta": float(rng.choice([0.0, 0.0, 0.01, 1.0])),
        "seed": seed,
    }
    return RandomLog(seed, matrix, params)


def _values(kind, size, rng):
    ones = np.ones(size)
    values = {
        "ones": ones,
        "equal": ones * 10.0 ** rng.integers(-6, 13),
        "stars": rng.integers(1, 6, size) / 1.0,
        "counts": np.ceil(rng.pareto(0.7, size)),
        "wide": 10.0 ** rng.uniform(-6, 12, size),
        "narrow": 10.0 ** rng.uniform(-6, 7, size),
        "one huge": np.where(np.arange(size) == size // 2, 10.0 ** rng.uniform(6, 12), rng.integers(1, 6, size)),
        "negatives": rng.integers(-2, 4, size) * 10.0 ** rng.uniform(-6, 4),
    }[kind]
    return values.astype(np.float32)


def require_one_sentence(error, log):
    """A log is refused for a value that hides all others, or for a penalty too small for single precision."""
    assert isinstance(error, InputError), f"{type(error).__name__}: {error}"
    message = str(error)
    assert "\n" not in message
    if 1 + log.params["alpha"] * log.largest > MAX_CONFIDENCE:
        assert f"the largest value is {log.largest:g}" in message
    else:
        assert "Raise `reg`" in message, message
        assert log.params["reg"] < 1e-5, message


def backward_error(x, y, matrix, objective):
    """Return the largest ‖A x − b‖ / (‖A‖‖x‖ + ‖b‖) of the rows with a like: 1e-7 is the rounding of float32."""
    worst = 0.0
    for row, (a, b) in enumerate(definition.systems(matrix, y, objective)):
        if not b.any():
            assert not x[row].any()
            continue
        if np.linalg.norm(b) < SMALLEST:
            continue
        solution = x[row].astype(np.float64)
        scale = np.linalg.norm(a, 2) * np.linalg.norm(solution) + np.linalg.norm(b)
        worst = max(worst, np.linalg.norm(a @ solution - b) / scale)
    return worst
