"""Judge item factors in blocks by validation users, whose histories the driver holds.

The numbers are those of :class:`recsys.spark.training.training_curve.ValidationUsers`. Only the place
of the items differs: each item block selects its best items for all validation users, and the driver
merges the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from pyspark import RDD
from scipy.sparse import csr_array

from recsys import kernels, linalg
from recsys.als import solvers
from recsys.spark.ranking.recommend import BLOCK_BYTES, merge_lists
from recsys.spark.tasks import prepare_task
from recsys.spark.training import blocks
from recsys.spark.training.blocks import Key, UserBlock
from recsys.spark.training.parameters import SparkALSParameters
from recsys.spark.training.training_curve import NDCG_CUTOFF, ValidationUsers

ItemFactors: TypeAlias = RDD[tuple[Key, np.ndarray]]
"""For each item block, the factors of its items, float32[m, rank]; zeros for items that are not scored."""


@dataclass(frozen=True)
class BlockedValidation:
    """The validation users of a training whose item factors are in blocks.

    Attributes:
        users: the histories of the validation users.
        n_held_out: the number of users on whom the model is not trained. Some of them may have no
            pair to hide; these are not validation users.
        n_items: the number of items.
        rows: the number of items in an item block.
    """

    users: ValidationUsers
    n_held_out: int
    n_items: int
    rows: int

    @classmethod
    def draw(
        cls, log: RDD[tuple[Key, UserBlock]], interval: int, shape: tuple[int, int], params: SparkALSParameters
    ) -> BlockedValidation | None:
        """Hold out about one user in ``interval``, hide some of their pairs, and return these users.

        The result is None if no user has both a hidden and a remaining training pair.

        Args:
            log: the user blocks.
            interval: about one user in this number is held out.
            shape: the number of items, and the number in an item block.
            params: the parameters of ALS.
        """
        seed = params.seed

        def held_out(element: tuple[Key, UserBlock]) -> tuple[np.ndarray, linalg.CSR]:
            _, block = element
            histories = blocks.HistoryBlock.from_bytes(block.packed).split_users(seed, interval)[0]
            return histories.users, (histories.indptr, block.items[histories.items], histories.values)

        parts = log.map(held_out).collect()
        n_items, rows = shape
        users = ValidationUsers.draw(parts, n_items, params)
        if users is None:
            return None
        return cls(users, sum(len(part_users) for part_users, _ in parts), n_items, rows)

    def evaluate(self, items: ItemFactors, axes: solvers.Axes | None) -> float:
        """Return what :meth:`ValidationUsers.evaluate` returns for these item factors.

        Args:
            items: the item factors.
            axes: their principal axes. None for explicit feedback.
        """
        x = self._fold_in(items, axes)
        if self.users.params.implicit:
            return float(np.nanmean(self.users.ndcg_of(self._best_items(x, items))))
        hidden_items, positions = np.unique(self.users.hidden.indices, return_inverse=True)
        return self.users.rmse_of(x, self._rows_of(items, hidden_items)[positions])

    def compare_with_popular(
        self, items: ItemFactors, axes: solvers.Axes | None, pair_counts: RDD[tuple[Key, np.ndarray]]
    ) -> dict[str, Any] | None:
        """Return what :meth:`ValidationUsers.compare_with_popular` returns for these item factors.

        Args:
            items: the item factors.
            axes: their principal axes. None for explicit feedback.
            pair_counts: int64[m] for each item block, the number of training pairs of its items.
        """
        if not self.users.params.implicit:
            return None
        lists = self._best_items(self._fold_in(items, axes), items)
        # Plus one, because items that nobody has are scored too.
        counts = pair_counts.mapValues(lambda counts: counts[:, None].astype(np.float32) + 1)
        popular = self._best_items(np.ones((self.users.n_users, 1), dtype=np.float32), counts)
        return self.users.compare(self.users.ndcg_of(lists), self.users.ndcg_of(popular))

    def _fold_in(self, items: ItemFactors, axes: solvers.Axes | None) -> np.ndarray:
        seen = self.users.seen
        needed, positions = np.unique(seen.indices, return_inverse=True)
        matrix = (seen.indptr, positions.astype(np.int32), seen.data)
        return self.users.params.solve_rows(matrix, self._rows_of(items, needed), axes, self.n_items)

    def _rows_of(self, items: ItemFactors, needed: np.ndarray) -> np.ndarray:
        """Return the factors of some items, float32[n, rank]. Items are ascending."""
        rows = self.rows

        def pick(element: tuple[Key, np.ndarray]) -> np.ndarray:
            (number, *_), y = element
            local = needed - number * rows
            return y[local[(local >= 0) & (local < len(y))]]

        return np.concatenate(items.map(pick).collect())

    def _best_items(self, x: np.ndarray, items: ItemFactors) -> np.ndarray:
        """Return the lists of the validation users without seen items, int32[m, k].

        Args:
            x: float32[users, rank], the factors of the users.
            items: the factors of the items.
        """
        rows = self.rows
        seen: csr_array = self.users.seen

        def select(element: tuple[Key, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            prepare_task()
            (number, *_), y = element
            in_block = seen[:, number * rows : number * rows + len(y)].sorted_indices()
            lists = []
            n_users = max(1, BLOCK_BYTES // (4 * len(y)))
            for start in range(0, len(x), n_users):
                scores = x[start : start + n_users] @ y.T
                scores[:, ~y.any(axis=1)] = np.nan
                seen_block = in_block[start : start + n_users]
                lists.append(kernels.select_top_k(scores, seen_block.indptr, seen_block.indices, NDCG_CUTOFF))
            list_items, list_scores = (np.concatenate(part) for part in zip(*lists, strict=True))
            return list_items, list_scores

        merged, *later_lists = items.map(select).collect()
        for number, lists in enumerate(later_lists, start=1):
            merged = merge_lists(merged, lists, number * rows)
        return merged[0]
