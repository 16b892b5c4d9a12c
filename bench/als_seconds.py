"""ALS beside implicit at one rank: the seconds to the same objective, and the seconds of everyone's 20 best items.

Started by bench/models.py. Both minimise the objective of recsys.als.definition with ν = 0. implicit trains by its own
defaults, conjugate gradients and 15 sweeps; the objective of the factors that it ends with is computed here in float64.
We sweep until the objective of our factors, by the same function and outside of the clock, is not above it. Lists come
from the stored factors of either, with the items of the user left out; the bare product is that of our factors alone.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import date
from pathlib import Path

import numpy as np
import peers
from numba import njit, prange
from results import table, write_section
from scipy.sparse import csr_array, csr_matrix
from threadpoolctl import threadpool_limits

from recsys import linalg
from recsys.als import solvers
from recsys.als.definition import Objective, start
from recsys.data.synthetic import film_world
from recsys.models.collaborative.als import ALS
from recsys.models.combining.wrappers import with_stored_factors
from recsys.ranking.rank import recommend
from recsys.types import IdMap

LOGS = {"als-400k": (10_000, 3_000, 400_000), "als-19m": (138_000, 27_000, 19_200_000)}
"""Name of a log -> its numbers of users, items and events, each of which is another pair."""

K, MAX_SWEEPS, ROWS = 20, 30, 1024
OBJECTIVE = Objective(alpha=peers.ALPHA, reg=peers.REG, nu=0.0)
WORK = Path("runs/bench-models")


def main(log: str, rank: int, repeats: int, write: bool) -> None:
    """Measure one rank on one log; write the section of the log with all ranks that were measured."""
    matrix = read_log(log)
    few = matrix[:ROWS]
    x, y, _ = sweep(few, rank, 1)
    objective(x, y, few)  # kernels are compiled before any clock starts
    list_items(x, y, few)
    first_seconds, theirs = fit_implicit(matrix, rank)
    target = objective(theirs.user_factors, theirs.item_factors, matrix)
    say(rank, "fit, implicit", first_seconds)
    curve: list[float] = []
    x, y, our_seconds = sweep(matrix, rank, MAX_SWEEPS, curve, target)
    say(rank, "fit, ours", our_seconds)
    print(f"rank {rank}: implicit {target:.6g}; ours by sweep", *(f"{value:.6g}" for value in curve), file=sys.stderr)
    if curve[-1] > target:
        sys.exit(f"rank {rank}: our objective is not that of implicit after {MAX_SWEEPS} sweeps")
    works = {
        "fit, implicit": lambda: fit_implicit(matrix, rank)[0],
        "fit, ours": lambda: sweep(matrix, rank, len(curve))[-1],
        "top, implicit": lambda: list_by_implicit(theirs, matrix),
        "top, ours": lambda: peers.timed(list_items, x, y, matrix)[0],
        "product": lambda: peers.timed(multiply, x, y)[0],
    }
    seconds = {name: [] for name in works}
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        for name in rng.permutation(list(works)):
            seconds[name].append(say(rank, name, works[name]()))
    if not repeats:
        seconds = {name: [say(rank, name, work())] for name, work in works.items() if not name.startswith("fit")}
        seconds |= {"fit, implicit": [list(first_seconds)], "fit, ours": [list(our_seconds)]}
    found = {"date": str(date.today()), "load": os.getloadavg()[2], "curve": curve, "seconds": seconds}
    heads, rows = table_rows({str(rank): found})
    print(table(heads, rows))
    if write:
        write_log_section(log, rank, found)


def say(rank: int, name: str, seconds: np.ndarray) -> list[float]:
    """Print seconds by the clock and of CPU, and return them."""
    print(f"rank {rank}, {name}: {seconds[0]:.2f} s, CPU {seconds[1]:.2f} s", file=sys.stderr, flush=True)
    return list(seconds)


def read_log(name: str) -> csr_array:
    """Return the ones of a made-up film world, csr (users, items). It is kept in a file, as making it takes minutes."""
    users, items, events = LOGS[name]
    path = WORK / f"{name}.npz"
    if not path.exists():
        world = film_world(users, items, events)
        user = IdMap.from_ids(world.users["user_id"]).rows(world.events["user_id"])
        item = IdMap.from_ids(world.items["item_id"]).rows(world.events["item_id"])
        WORK.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, user=user.astype(np.int32), item=item.astype(np.int32))
        part.replace(path)
    with np.load(path) as pairs:
        user, item = pairs["user"], pairs["item"]
    matrix = csr_array((np.ones(len(user), np.float32), (user, item)), shape=(users, items))
    matrix.sort_indices()
    return matrix


def fit_implicit(matrix: csr_array, rank: int):
    """Return (seconds, implicit's ALS): its own defaults, but for the rank and the objective."""
    from implicit.cpu.als import AlternatingLeastSquares

    confident = csr_matrix(matrix * np.float32(1 + peers.ALPHA))
    with threadpool_limits(1, "blas"):  # implicit asks for it
        model = AlternatingLeastSquares(factors=rank, regularization=peers.REG, random_state=0)
        seconds, _ = peers.timed(lambda: model.fit(confident, show_progress=False))
    return seconds, model


def list_by_implicit(model, matrix: csr_array) -> np.ndarray:
    """Return the seconds of implicit's lists from the factors that it stores."""
    liked = csr_matrix(matrix)
    with threadpool_limits(1, "blas"):
        return peers.timed(lambda: model.recommend(np.arange(liked.shape[0]), liked, N=K))[0]


def sweep(matrix: csr_array, rank: int, sweeps: int, curve: list | None = None, target: float = 0.0):
    """Return (user factors, item factors, seconds) after a number of our sweeps, or once ``target`` is reached.

    ``curve`` gets the objective after each sweep, outside of the clock. These are the sweeps of ``ALS.fit``.
    """
    seconds, (equations, x, y) = peers.timed(prepare, matrix, rank)
    for _ in range(sweeps):
        spent, (x, y) = peers.timed(sweep_once, equations, x, y)
        seconds = seconds + spent
        if curve is not None:
            curve.append(objective(x, y, matrix))
            if curve[-1] <= target:
                break
    return x, y, seconds


def prepare(matrix: csr_array, rank: int) -> tuple[list[solvers.Equations], np.ndarray, np.ndarray]:
    """Return the equations of users and of items, and the user and item factors before the first sweep."""
    equations = [
        solvers.implicit_equations(linalg.arrays(side), OBJECTIVE.alpha, OBJECTIVE.penalty(side), np.float32)
        for side in (matrix, matrix.T.tocsr())
    ]
    x = np.zeros((matrix.shape[0], rank), dtype=np.float32)
    return equations, x, start(matrix.shape[1], rank, 0).astype(np.float32)


def sweep_once(equations: list[solvers.Equations], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the user and item factors after one more sweep."""
    of_users, of_items = equations
    x = solvers.implicit_rows(of_users, y, initial=x)
    return x, solvers.implicit_rows(of_items, x, initial=y)


def objective(x: np.ndarray, y: np.ndarray, matrix: csr_array) -> float:
    """Return the objective of factors for a matrix of ones, all of it in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    stored = stored_part(matrix.indptr, matrix.indices, x, y, 1 + OBJECTIVE.alpha)
    # The squares of the scores of all pairs, stored or not, add up to the trace of XᵀX · YᵀY.
    everything = ((x.T @ x) * (y.T @ y)).sum()
    return float(stored + everything + OBJECTIVE.reg * ((x**2).sum() + (y**2).sum()))


@njit(parallel=True)
def stored_part(indptr, indices, x, y, confidence):
    """Return the sum of c (1 − s)² − s² over the stored pairs of score s."""
    sums = np.zeros(len(x))
    for user in prange(len(x)):
        for entry in range(indptr[user], indptr[user + 1]):
            score = np.dot(x[user], y[indices[entry]])
            sums[user] += confidence * (1 - score) ** 2 - score**2
    return sums.sum()


def list_items(x: np.ndarray, y: np.ndarray, matrix: csr_array):
    """Return our lists of users whose factors are stored."""
    has_factor = np.bincount(matrix.indices, minlength=len(y)) > 0
    model = ALS.from_factors(y, has_factor, alpha=OBJECTIVE.alpha, reg=OBJECTIVE.reg, nu=0.0)
    return recommend(with_stored_factors(model, x), matrix, K)


def multiply(x: np.ndarray, y: np.ndarray) -> None:
    """Compute the scores of everyone, some users at a time in the same memory, and do nothing with them."""
    scores = np.empty((ROWS, len(y)), dtype=np.float32)
    for first in range(0, len(x), ROWS):
        rows = x[first : first + ROWS]
        np.dot(rows, y.T, out=scores[: len(rows)])


def table_rows(found: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows of the table: a row for each rank that was measured."""
    heads = ["rank", "sweeps", "implicit, s", "ours, s", "÷", "CPU ÷"]
    heads += [f"top {K}, implicit, s", "ours, s", "÷", "CPU ÷", "bare product, s", "ours ÷ product", "measured, load"]
    rows = []
    for rank, one in sorted(found.items(), key=lambda pair: int(pair[0])):
        middle = {name: np.median(times, axis=0) for name, times in one["seconds"].items()}
        cells = [rank, str(len(one["curve"]))]
        for work in ("fit", "top"):
            ours, theirs = middle[f"{work}, ours"], middle[f"{work}, implicit"]
            cells += [f"{theirs[0]:.2f}", f"{ours[0]:.2f}", *(f"{ratio:.2f}" for ratio in ours / theirs)]
        product = middle["product"][0]
        cells += [f"{product:.2f}", f"{middle['top, ours'][0] / product:.2f}", f"{one['date']}, {one['load']:.1f}"]
        rows.append(cells)
    return heads, rows


def write_log_section(log: str, rank: int, found: dict) -> None:
    """Add what was found to that of the other ranks, and write the section of the log."""
    path = WORK / f"{log}.json"
    ranks = json.loads(path.read_text()) if path.exists() else {}
    ranks[str(rank)] = found
    part = path.with_suffix(".part.json")
    part.write_text(json.dumps(ranks))
    part.replace(path)
    users, items, events = LOGS[log]
    repeats = len(found["seconds"]["product"])
    heads, rows = table_rows(ranks)
    body = (
        f"Film world of {users:,} users × {items:,} films, {events / 1e6:g} M pairs, all values 1, "
        f"α {OBJECTIVE.alpha:g}, λ {OBJECTIVE.reg:g}, ν 0. implicit: its defaults, 15 sweeps. Ours: as many sweeps as "
        "bring the objective to that of implicit's factors or below, both computed here in float64, outside of the "
        f"clock. Top {K}: for everyone, from stored factors, seen items left out. Medians of {repeats} in changing "
        "order, on all cores, after one run unmeasured; ÷: ours over implicit, by the clock and in CPU seconds of all "
        "threads.\n\n" + table(heads, rows)
    )
    write_section(log, f"ALS beside implicit, {events / 1e6:g} M pairs", f"python bench/models.py {log} RANK", body)
