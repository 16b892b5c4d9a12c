"""The ranking of all candidates, without cutting lists: AUC, ties that a cut hides, and sampled candidates by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.evaluate import as_sampled, count, outside, score, train_propensity, truth_of
from recsys.evaluation.judging.judge import Ties, judge_scores
from recsys.evaluation.judging.metrics import parse_all
from recsys.schema import USER
from recsys.types import Evaluation, Recommender, Split


def evaluate_scores(
    model: Recommender,
    split: Split,
    metrics: Sequence[str],
    *,
    name: str,
    relevant: float | None = None,
    exclude_seen: bool = True,
    ties: Ties = "average",
    sampled: int | None = None,
    seed: int = 0,
    memory_mb: int = 512,
) -> Evaluation:
    """Judge a model's ranking of *all* candidates, in blocks of users: for AUC, and for ties that a cut list hides.

    Args:
        model: fitted on ``split.train``.
        sampled: rank relevant items among this many other candidates only, drawn by a hash of seed, user and
            item, the same for every model. Names then end in ``[sampled=…]`` (:func:`.evaluate.as_sampled`).

    Truth and ``exclude_seen`` as in :func:`evaluate`. Users on whom the model has no opinion count 0.
    """
    chosen = parse_all(metrics, complete=True)
    histories = split.histories()
    truth, removed = truth_of(split, relevant, histories if exclude_seen else None)
    propensity = train_propensity(split, truth.shape[1])
    candidates = len(split.train.items)
    bits = id_bits(split.test.users.ids)
    block = max(1, int(memory_mb * 2**20 / (40 * max(1, candidates))))  # scores, a masked copy, hashes
    parts = []
    for start in range(0, len(split.test.users), block):
        rows = np.arange(start, min(start + block, len(split.test.users)))
        scores = np.array(model.score(histories[rows], rows), dtype=np.float32)
        if exclude_seen:
            scores[_cells(histories[rows])] = np.nan
        if sampled is not None:
            scores = _sample(scores, truth[rows], hash_words(seed, bits[rows, None], np.arange(candidates)), sampled)
        judged = judge_scores(scores, truth[rows], ties=ties, propensity=propensity)
        tallies = {"listed_places": int(judged.n_relevant.sum()), "tied_places": judged.tied_places}
        parts.append((score(judged, chosen, "zero"), count(judged, "zero") | tallies))
    values = {str(metric): np.concatenate([part[str(metric)] for part, _ in parts]) for metric in chosen}
    users = split.test.users.ids_of(np.arange(len(bits)))
    per_user = pd.DataFrame({USER: users, "n_relevant": np.diff(truth.indptr)} | values)
    counts = {key: sum(tally[key] for _, tally in parts) for key in parts[0][1] if key != "short"}
    counts |= {"seen_pairs_removed": removed, "relevant_outside_candidates": outside(truth, candidates)}
    definitions = {str(metric): metric.definition for metric in chosen}
    found = Evaluation(name, per_user, {"definitions": definitions, "counts": counts, "ties": ties})
    return as_sampled(found, sampled) if sampled else found


def _cells(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices


def _sample(scores: np.ndarray, relevant: csr_array, draw: np.ndarray, n: int) -> np.ndarray:
    """Return scores with all but the relevant items and the ``n`` other candidates of the lowest draw as NaN."""
    row, column = _cells(relevant)
    inside = column < scores.shape[1]
    wanted = np.zeros(scores.shape, dtype=bool)
    wanted[row[inside], column[inside]] = True
    other = (scores > -np.inf) & ~wanted
    draw = np.where(other, draw, np.iinfo(np.uint64).max)
    if n < scores.shape[1]:
        other &= draw <= np.partition(draw, n - 1, axis=1)[:, n - 1 : n]
    return np.where(wanted | other, scores, np.float32(np.nan))
