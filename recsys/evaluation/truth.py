"""The truth of a run: tested users, their histories and their relevant items, shared by all models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys.evaluation.judging.judge import Judged, judge
from recsys.evaluation.settings import EvaluationSettings, choose_ranked_items
from recsys.types import Histories, IdMap, Split, TopK, select_rows


@dataclass(frozen=True, eq=False)
class Truth:
    """The relevant items and the histories of the tested users of one split.

    Lists are judged by the relevant items. Row i of each matrix is user i.

    Attributes:
        users: the m tested users.
        candidates: the items of train and of the items table. Lists have only such items.
        histories: the history of each user over the candidates, as it was when the lists were made.
        relevant: float64 csr (m, candidates + other test items), a value > 0 for each relevant
            (user, item) pair. The other test items are not candidates. No model could recommend
            them, but they count in every denominator.
        propensity: float64[columns of ``relevant``] in (0, 1], the chance that an item's relevance
            is observed.
        counts: numbers of (user, item) pairs, a dict with these keys. ``relevant_pairs``: the
            relevant pairs that are judged. ``relevant_outside_candidates``: relevant pairs on items
            that no list can have. ``seen_pairs_removed``: relevant pairs that were removed, because
            the history has them and lists leave out seen items. ``warm_pairs_removed``: relevant
            pairs that were removed, because their item has events in train and lists rank only
            items without; this key is missing if lists rank other items too.
        settings: the settings of the evaluation.
        exclude_seen: whether lists leave out the items of the history.
        ranked_items: bool[candidates], the items that the lists rank. None: all.
    """

    users: IdMap
    candidates: IdMap
    histories: Histories
    relevant: csr_array
    propensity: np.ndarray
    counts: dict[str, int]
    settings: EvaluationSettings
    exclude_seen: bool
    ranked_items: np.ndarray | None = None

    @classmethod
    def from_split(
        cls, split: Split, settings: EvaluationSettings | None = None, *, exclude_seen: bool = True
    ) -> Truth:
        """Return the truth of the users of ``split.test``.

        Args:
            split: the events, split into train, history and test.
            settings: the settings of the evaluation. ``relevant`` says which test pairs are
                relevant, by default those with a value > 0. ``candidates`` says which items the
                lists rank. None: the default settings.
            exclude_seen: whether relevant pairs that are in the history are removed and counted.

        Raises:
            InputError: the lists rank only items without events in train, and there are none.
        """
        settings = settings or EvaluationSettings()
        train = split.train
        relevant = relevant_pairs(split, settings)
        candidates = settings.candidates_for(split.rule)
        is_trained = np.bincount(train.item, minlength=len(train.items)) > 0
        ranked_items = choose_ranked_items(candidates, is_trained)
        likes = np.bincount(train.item[train.value > 0], minlength=relevant.shape[1])
        truth = cls(
            users=split.test.users,
            candidates=train.items,
            histories=split.histories(),
            relevant=relevant,
            propensity=propensity_of_counts(likes),
            counts={
                "relevant_pairs": relevant.nnz,
                "seen_pairs_removed": 0,
                "relevant_outside_candidates": _count_outside(relevant, len(train.items), ranked_items),
            },
            settings=settings,
            exclude_seen=False,
            ranked_items=ranked_items,
        )
        if candidates == "cold":
            truth = truth.without_warm(is_trained)
        if exclude_seen:
            return truth.without_seen()
        return truth

    def __len__(self) -> int:
        return len(self.users)

    def without_seen(self) -> Truth:
        """Return the truth for lists that leave out the items of the history.

        Relevant pairs that are in the history are removed, and counted as ``seen_pairs_removed``.
        If ``exclude_seen`` is already True, the truth itself is returned.
        """
        if self.exclude_seen:
            return self
        width = self.relevant.shape[1]
        seen = np.isin(_cell_numbers(self.relevant, width), _cell_numbers(self.histories.values, width))
        truth = self.keep_relevant(~seen)
        counts = {
            "relevant_pairs": int((~seen).sum()),
            "seen_pairs_removed": int(seen.sum()),
            "relevant_outside_candidates": _count_outside(truth.relevant, len(self.candidates), self.ranked_items),
        }
        return replace(truth, counts=self.counts | counts, exclude_seen=True)

    def without_warm(self, is_trained: np.ndarray) -> Truth:
        """Return the truth for lists that rank only items without events in train.

        Relevant pairs on other items are removed, and counted as ``warm_pairs_removed``.

        Args:
            is_trained: bool[candidates], whether each item has train events.
        """
        is_warm = np.zeros(self.relevant.shape[1], dtype=bool)
        is_warm[: len(is_trained)] = is_trained
        keep = ~is_warm[self.relevant.indices]
        truth = self.keep_relevant(keep)
        counts = {
            "relevant_pairs": int(keep.sum()),
            "relevant_outside_candidates": _count_outside(truth.relevant, len(is_trained), self.ranked_items),
            "warm_pairs_removed": int((~keep).sum()),
        }
        return replace(truth, counts=self.counts | counts)

    def keep_relevant(self, keep: np.ndarray) -> Truth:
        """Return the truth with only some of its relevant pairs. ``counts`` stays as it is.

        Args:
            keep: bool[entries of ``relevant``], the pairs to keep.
        """
        relevant = self.relevant
        indptr = np.concatenate([[0], np.cumsum(keep)])[relevant.indptr]
        kept_pairs = csr_array((relevant.data[keep], relevant.indices[keep], indptr), shape=relevant.shape)
        return replace(self, relevant=kept_pairs)

    def judge(self, topk: TopK) -> Judged:
        """Return the positions of the relevant items of each user in the user's list.

        User i of the result is the user of list i, ``topk.users[i]``. Equal scores are treated as
        ``settings.ties`` says.

        Args:
            topk: lists. Its ``users`` are rows of ``users`` of this truth, in any order. Its
                ``items`` are rows of ``candidates``.

        Raises:
            ValueError: an item occurs twice in a list.
            InputError: ``settings.ties`` is not ``stable``, and a score is missing or scores rise
                along a list.
        """
        rows = topk.users
        all_users = len(rows) == len(self) and bool((rows == np.arange(len(self))).all())
        if all_users:
            relevant = self.relevant
        else:
            relevant = select_rows(self.relevant, rows)
        return judge(topk, relevant, ties=self.settings.ties, propensity=self.propensity)


def _count_outside(relevant: csr_array, n_items: int, ranked_items: np.ndarray | None) -> int:
    """Return the number of relevant pairs whose item no list can have.

    Args:
        relevant: csr (users, candidates + other test items).
        n_items: the number of candidates.
        ranked_items: bool[candidates], the items that lists rank. None: all.
    """
    is_outside = np.ones(relevant.shape[1], dtype=bool)
    is_outside[:n_items] = False
    if ranked_items is not None:
        is_outside[:n_items] = ~ranked_items
    return int(is_outside[relevant.indices].sum())


def relevant_pairs(split: Split, settings: EvaluationSettings) -> csr_array:
    """Return the values of all relevant pairs, including those on seen items.

    The result is float64 csr (tested users, candidates + other test items). The rows are those of
    ``split.test.users``. The first columns are the candidates, ``split.train.items``. The last ones
    are the test items that are not candidates, in the order of their ids.

    Args:
        split: the events, split into train, history and test.
        settings: its ``relevant`` says which pairs are relevant.
    """
    test = split.test
    candidates = split.train.items
    column = candidates.rows(test.items.ids)
    not_candidates = column < 0
    column[not_candidates] = len(candidates) + np.arange(not_candidates.sum())
    keep = settings.is_relevant(test.value.astype(np.float32, copy=False))
    shape = (len(test.users), len(candidates) + int(not_candidates.sum()))
    entries = (test.value[keep].astype(np.float64), (test.user[keep], column[test.item[keep]]))
    return csr_array(entries, shape=shape)


def propensity_of_counts(likes: Any) -> Any:
    """Return the propensity of each item, (n + 1) / (max n + 1) for an item with n likes.

    The propensity is the probability that the relevance of an item is observed. It is in (0, 1], and
    1 for the most popular item. Metrics with the option ``ips`` weigh an item by a power of its
    propensity. Source: Yang et al., RecSys 2018.

    Args:
        likes: int[items], an array or Series of the number of likes of each item; at least one.
            The result has the same type, with float64 values.

    >>> propensity_of_counts(np.array([0, 1, 3])).tolist()
    [0.25, 0.5, 1.0]
    """
    return (likes + 1) / (likes.max() + 1)


def _cell_numbers(matrix: csr_array, width: int) -> np.ndarray:
    """Return the cell number of each stored entry of a csr matrix, int64[nnz]: row · width + column."""
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return row * width + matrix.indices
