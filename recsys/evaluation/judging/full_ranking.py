"""Evaluate a model's ranking of all candidates, or of a sample of them, instead of its top-k lists.

AUC needs this ranking. Ties at the end of a list are visible only in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.data.hashing import hash_words, id_bits
from recsys.errors import ConfigError
from recsys.evaluation.evaluate import compute_metrics, count_users, mark_sampled
from recsys.evaluation.judging.judge import Ties, judge_scores
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.truth import Truth
from recsys.recommender import Recommender, score_histories
from recsys.schema import USER
from recsys.types import Evaluation


@dataclass(frozen=True)
class FullRanking:
    """Settings of the ranking of all candidates.

    Attributes:
        ties: how equal scores are treated. By default, a metric is averaged over all orders of the
            items with equal scores.
        sampled: the number of sampled candidates per user, at least 1. The sampled candidates are
            not relevant; they are ranked together with the relevant items. If a user has fewer
            candidates that are not relevant, all of them are ranked. A candidate is drawn by a hash
            of ``seed``, user and item, so every model that can score it gets the same sample. The
            names of the metrics then end in ``[sampled=…]`` (:func:`.evaluate.mark_sampled`). None:
            all candidates are ranked.
        seed: the seed of the sample.
        memory_mb: the memory for the scores of one block of users, in MiB. A block has at least one
            user.
    """

    ties: Ties = "average"
    sampled: int | None = None
    seed: int = 0
    memory_mb: int = 512

    def __post_init__(self) -> None:
        """Check the number of sampled candidates.

        Raises:
            ConfigError: it is less than 1.
        """
        if self.sampled is not None and self.sampled < 1:
            raise ConfigError(f"FullRanking: sampled must be at least 1, or None for all candidates: {self.sampled}.")


def evaluate_scores(
    model: Recommender,
    truth: Truth,
    metrics: Sequence[str],
    *,
    name: str,
    ranking: FullRanking | None = None,
) -> Evaluation:
    """Compute the metrics of a model's ranking of *all* candidates, and return an Evaluation.

    AUC needs the whole ranking. Ties at the end of a top-k list are visible only in the whole
    ranking. A user whom the model cannot score has the value 0, or is left out (NaN) if the
    settings of the truth have ``missing_users = "skip"``.

    The ``per_user`` table of the result has one row per user of ``truth``, in the same order, with
    the columns user_id, n_relevant, and one per metric. ``about`` has ``definitions``, ``counts``
    and ``ties``.

    Args:
        model: a model that was fitted on the train part from which ``truth`` was made.
        truth: the relevant items and the histories of at least one user. It also says whether seen
            items are left out, and which items are ranked. Its metrics and ties are not used,
            because they are for lists.
        metrics: the names of the metrics, such as "auc" or "ndcg@10".
        name: the name of the result.
        ranking: how the candidates are ranked. None: the defaults of :class:`FullRanking`.

    Raises:
        ConfigError: the name of a metric is not valid.
        InputError: the model was fitted with another number of items, or its scores have the wrong
            shape or dtype.
    """
    ranking = ranking or FullRanking()
    chosen = parse_all(metrics, complete=True)
    missing_users = truth.settings.missing_users
    n_candidates = len(truth.candidates)
    bits = id_bits(truth.users.ids)
    # Bytes per cell: the scores, a masked copy, and the hashes of a sample.
    block = max(1, int(ranking.memory_mb * 2**20 / (40 * max(1, n_candidates))))
    parts = []
    for start in range(0, len(truth), block):
        rows = np.arange(start, min(start + block, len(truth)))
        histories = truth.histories[rows]
        relevant = truth.relevant[rows]
        scores = np.array(score_histories(model, histories, rows), dtype=np.float32)
        if truth.exclude_seen:
            scores[_cells(histories.values)] = np.nan
        if truth.ranked_items is not None:
            scores[:, ~truth.ranked_items] = np.nan
        if ranking.sampled is not None:
            draw = hash_words(ranking.seed, bits[rows, None], np.arange(n_candidates))
            scores = _sample(scores, relevant, draw, ranking.sampled)
        judged = judge_scores(scores, relevant, ties=ranking.ties, propensity=truth.propensity)
        tallies = {"listed_places": int(judged.n_relevant.sum()), "tied_places": judged.tied_places}
        parts.append((compute_metrics(judged, chosen, missing_users), count_users(judged, missing_users) | tallies))
    values = {str(metric): np.concatenate([part[str(metric)] for part, _ in parts]) for metric in chosen}
    users = truth.users.ids_of(np.arange(len(truth)))
    per_user = pd.DataFrame({USER: users, "n_relevant": np.diff(truth.relevant.indptr)} | values)
    counts = {key: sum(tally[key] for _, tally in parts) for key in parts[0][1] if key != "short"}
    about = {
        "definitions": {str(metric): metric.definition for metric in chosen},
        "counts": counts | truth.counts,
        "ties": ranking.ties,
    }
    evaluation = Evaluation(name, per_user, about)
    if ranking.sampled:
        return mark_sampled(evaluation, ranking.sampled)
    return evaluation


def _cells(matrix: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column of each stored entry of a csr matrix, int[nnz] each."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices


def _sample(scores: np.ndarray, relevant: csr_array, draw: np.ndarray, n: int) -> np.ndarray:
    """Return the scores of the relevant items and of ``n`` sampled candidates; all others become NaN.

    Args:
        scores: float32[users, items], NaN or -inf for an item that is not a candidate of the user.
        relevant: csr (users, items or more), whose stored entries are the relevant items.
        draw: uint64[users, items], a random number for each score. Of a user's candidates that are
            not relevant, the ``n`` with the smallest numbers are sampled.
        n: the number of sampled candidates per user.
    """
    row, column = _cells(relevant)
    is_candidate = column < scores.shape[1]
    is_relevant = np.zeros(scores.shape, dtype=bool)
    is_relevant[row[is_candidate], column[is_candidate]] = True
    sampled = (scores > -np.inf) & ~is_relevant
    draw = np.where(sampled, draw, np.iinfo(np.uint64).max)
    if n < scores.shape[1]:
        sampled &= draw <= np.partition(draw, n - 1, axis=1)[:, n - 1 : n]
    return np.where(is_relevant | sampled, scores, np.float32(np.nan))
