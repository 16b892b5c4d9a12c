"""Pack histories into blocks of users, and compute on such blocks while ALS is trained.

A block has all pairs of its users. Most functions of this module return a function that executors
run on blocks.

For validation, one user in ``holdout_interval`` is held out
(:mod:`recsys.spark.training.training_curve`), and none if it is 0. The other users are called the
*training users*. A block of m training users is written with m in the shapes below.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import Broadcast

from recsys.als import solvers
from recsys.data.hashing import hash_words
from recsys.spark.tasks import prepare_task
from recsys.spark.training.parameters import SparkALSParameters


class HistoryBlock(NamedTuple):
    """The histories of m users, as the structure and the values of a CSR matrix.

    The users are in the order of a hash, which is the same in every run.

    Attributes:
        users: int32[m], the row number of each user.
        indptr: int64[m + 1]. The pairs of user j of the block are those from ``indptr[j]`` to
            ``indptr[j + 1]`` in the arrays below.
        items: int32[n], the item of each pair, ascending within a user.
        values: float32[n], the value of each pair.
    """

    users: np.ndarray
    indptr: np.ndarray
    items: np.ndarray
    values: np.ndarray

    @classmethod
    def from_pairs(cls, users: np.ndarray, items: np.ndarray, values: np.ndarray, seed: int) -> HistoryBlock:
        """Return the block of some pairs, which are given as arrays [n] in any order.

        Args:
            users, items: int32[n], the rows of the user and of the item of each pair.
            values: float32[n].
            seed: the seed of the hash by which users are sorted.
        """
        order = np.lexsort((items, users, hash_words(seed, users)))
        users = users[order]
        starts = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
        indptr = np.append(starts, len(users)).astype(np.int64)
        return cls(users[starts], indptr, items[order], values[order])

    def to_bytes(self) -> bytes:
        """Return the block as bytes, which :meth:`from_bytes` reads."""
        sizes = np.array([len(self.users), len(self.items)], dtype=np.int64)
        arrays = (sizes, self.indptr, self.users, self.items, self.values)
        return b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, raw: bytes) -> HistoryBlock:
        """Return the block that :meth:`to_bytes` wrote."""
        # Arrays on bytes cannot be written, and kernels would be compiled once more for such arrays.
        buffer = bytearray(raw)
        m, n = np.frombuffer(buffer, np.int64, 2).tolist()
        offset = 2 * np.dtype(np.int64).itemsize
        arrays = []
        for dtype, size in ((np.int64, m + 1), (np.int32, m), (np.int32, n), (np.float32, n)):
            arrays.append(np.frombuffer(buffer, dtype, size, offset))
            offset += arrays[-1].nbytes
        indptr, users, items, values = arrays
        return cls(users, indptr, items, values)

    def split_users(self, seed: int, holdout_interval: int) -> tuple[HistoryBlock, HistoryBlock]:
        """Return two blocks: that of the held-out users, and that of the training users.

        A hash of the user decides, so the same user is always on the same side.

        Args:
            seed: the seed of the hash, the same as for :meth:`from_pairs`.
            holdout_interval: about one user in this number is held out. 0: none.
        """
        cut = 0
        if holdout_interval:
            # Users are in the order of their hash, so the smallest hashes are the first rows.
            largest_hash = np.uint64(2**64 // holdout_interval)
            cut = int(np.searchsorted(hash_words(seed, self.users), largest_hash))
        return self._rows(0, cut), self._rows(cut, len(self.users))

    def divide(self, pairs: int) -> list[HistoryBlock]:
        """Return blocks of successive users, each of about ``pairs`` pairs; a user's pairs stay in one block."""
        n_blocks = max(1, round(len(self.items) / pairs))
        targets = np.arange(1, n_blocks) * (len(self.items) / n_blocks)
        cuts = np.unique([0, *np.searchsorted(self.indptr, targets), len(self.users)]).tolist()
        return [self._rows(start, stop) for start, stop in itertools.pairwise(cuts)]

    def _rows(self, start: int, stop: int) -> HistoryBlock:
        indptr = self.indptr[start : stop + 1]
        entries = slice(indptr[0], indptr[-1])
        return HistoryBlock(self.users[start:stop], indptr - indptr[0], self.items[entries], self.values[entries])

    def weights_and_targets(self, params: SparkALSParameters) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight and the target of each pair for the solvers of ALS, float32[n] each.

        With implicit feedback the weight is alpha · |value|, and the target is 1 + weight for a
        like and 0 otherwise. With explicit feedback the weight is 1, and the target is the value.
        """
        if not params.implicit:
            return np.ones_like(self.values), self.values
        weight = np.float32(params.alpha) * np.abs(self.values)
        return weight, np.where(self.values > 0, 1 + weight, np.float32(0))


Key = tuple[int, int, int]
"""The receiver of a message, its sender, and its number among those of one sender to one receiver.

What a block keeps for itself has the sender -1.
"""


class UserBlock(NamedTuple):
    """The pairs of some users, for a training with item factors in blocks.

    Attributes:
        packed: the bytes of a :class:`HistoryBlock`, whose items are positions in ``items``.
        items: int32[n], the distinct items of all pairs, ascending.
    """

    packed: bytes
    items: np.ndarray

    @classmethod
    def from_histories(cls, packed: bytes) -> UserBlock:
        """Return the block for the bytes of a :class:`HistoryBlock`."""
        histories = HistoryBlock.from_bytes(packed)
        items, positions = np.unique(histories.items, return_inverse=True)
        return cls(histories._replace(items=positions.astype(np.int32)).to_bytes(), items)

    def cut(self, rows: int, most: int) -> Iterator[tuple[int, int, slice, np.ndarray]]:
        """Divide ``items`` by item block, and each part further into messages.

        Yields the number of the item block, the number of the message among those of this block,
        its part of ``items``, and these items as rows of the item block, int32.

        Args:
            rows: the number of items in an item block.
            most: the largest number of items in a message.
        """
        numbers, starts = np.unique(self.items // rows, return_index=True)
        for number, start, stop in zip(numbers.tolist(), starts, [*starts[1:], len(self.items)], strict=True):
            for message, first in enumerate(range(start, stop, most)):
                part = slice(first, min(first + most, stop))
                yield number, message, part, self.items[part] - np.int32(number * rows)


PackedBlocks = Iterator[bytes]
"""The blocks of a partition, each as the bytes of :meth:`HistoryBlock.to_bytes`."""

SolvedBlocks = Iterator[tuple[bytes, np.ndarray]]
"""Pairs of a packed block and float32[m, rank], the factors of its training users."""

PartialSums = Iterator[tuple[np.ndarray, ...]]
"""One tuple of arrays: the sums over the users of a partition."""


def pack_blocks(seed: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that packs a partition of rows (user, item, value) into one block.

    The function takes Arrow batches of these rows, and yields one batch with one row: the column
    ``block`` with the bytes of the block. It yields nothing for an empty partition.

    Args:
        seed: the seed of the hash by which users are sorted.
    """

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task(kernels=False)
        columns = [[column.to_numpy() for column in batch.columns] for batch in batches if batch.num_rows]
        if columns:
            users, items, values = (np.concatenate(parts) for parts in zip(*columns, strict=True))
            block = HistoryBlock.from_pairs(users, items, values, seed)
            yield pa.RecordBatch.from_arrays([pa.array([block.to_bytes()], pa.binary())], names=["block"])

    return work


def count_training_pairs(n_items: int, params: SparkALSParameters) -> Callable[[PackedBlocks], PartialSums]:
    """Return a function that counts the training pairs of each item, and the users.

    The function takes the blocks of a partition, as bytes, and yields one tuple: the number of
    training pairs of each item, int64[n_items] (see ``SparkALSParameters.is_training_pair``), and
    the number of users, int64[1].

    Args:
        n_items: the number of items.
        params: the parameters, which say what a training pair is.
    """

    def work(blocks: PackedBlocks) -> PartialSums:
        pair_counts = np.zeros(n_items, dtype=np.int64)
        n_users = 0
        for raw in blocks:
            block = HistoryBlock.from_bytes(raw)
            training_items = block.items[params.is_training_pair(block.values)]
            pair_counts += np.bincount(training_items, minlength=n_items)
            n_users += len(block.users)
        yield pair_counts, np.array([n_users])

    return work


def solve_training_users(
    shared: Broadcast[Any], params: SparkALSParameters, holdout_interval: int
) -> Callable[[bytes], tuple[bytes, np.ndarray]]:
    """Return the function that computes the factors of the training users of a block.

    The function takes a block as bytes. It solves the linear system of each user exactly, and
    returns the same bytes and the factors, float32[m, rank].

    Args:
        shared: the broadcast of the item factors, float32[items, rank], and of their principal axes
            (None for explicit feedback).
        params: the parameters of ALS.
        holdout_interval: about one user in this number is held out. 0: none.
    """

    def work(raw: bytes) -> tuple[bytes, np.ndarray]:
        items, axes = shared.value
        _, block = HistoryBlock.from_bytes(raw).split_users(params.seed, holdout_interval)
        return raw, params.solve_rows((block.indptr, block.items, block.values), items, axes)

    return work


def residual_gram_loss(
    shared: Broadcast[Any], params: SparkALSParameters, holdout_interval: int
) -> Callable[[SolvedBlocks], PartialSums]:
    """Return the function that computes the sums over users that an update of the items needs.

    With x the factor of a user and y that of an item, the function yields one tuple of three sums:

    * float32[items, rank], the residual of each item: Σ (target − weight·x·y) x over its pairs;
    * float64[rank, rank], the Gram matrix: Σ x xᵀ over the training users;
    * float64[1], the terms of the objective that belong to pairs or users.

    It takes pairs (block, factors), as :func:`solve_training_users` returns them.

    Args:
        shared: the broadcast from which the factors of the users were computed.
        params: the parameters of ALS.
        holdout_interval: about one user in this number is held out. 0: none.
    """

    def work(solved: SolvedBlocks) -> PartialSums:
        items, _ = shared.value
        residual = np.zeros_like(items)
        gram = np.zeros((params.rank, params.rank))
        loss = 0.0
        for raw, x in solved:
            _, block = HistoryBlock.from_bytes(raw).split_users(params.seed, holdout_interval)
            block_gram, block_loss = add_sums_of_users(block, x, items, residual, params, len(items))
            gram += block_gram
            loss += block_loss
        yield residual, gram, np.array([loss])

    return work


def add_sums_of_users(
    block: HistoryBlock,
    x: np.ndarray,
    items: np.ndarray,
    residual: np.ndarray,
    params: SparkALSParameters,
    n_items: int,
) -> tuple[np.ndarray, float]:
    """Add the part of m users to the residuals of items, and return their Gram matrix and loss.

    They are those of :func:`residual_gram_loss`, for the users of one block.

    Args:
        block: the histories of the users. Its items are rows of ``items``.
        x: float32[m, rank], the factors of the users.
        items: float32[n, rank], the factors of the items.
        residual: float32[n, rank], to which the part of these users is added.
        params: the parameters of ALS.
        n_items: the number of all items, for the penalty.
    """
    weight, target = block.weights_and_targets(params)
    # The constant of the objective: Σ c·p² over pairs, or Σ v² of explicit feedback.
    constants = target if params.implicit else target.astype(np.float64) ** 2
    loss = solvers.add_residual(block.indptr, block.items, weight, target, x, items, residual)
    loss += float(constants.sum(dtype=np.float64))
    factors = x.astype(np.float64)
    pair_counts = params.count_training_pairs(block.indptr, block.values)
    squared_norms = np.einsum("ur,ur->u", factors, factors)
    loss += float(params.penalty(pair_counts, n_items) @ squared_norms)
    return factors.T @ factors, loss


def add_product_of_users(
    block: HistoryBlock, x: np.ndarray, direction: np.ndarray, product: np.ndarray, params: SparkALSParameters
) -> None:
    """Add the part of m users to the products of :func:`hessian_product`.

    Args:
        block: the histories of the users. Its items are rows of ``direction``.
        x: float32[m, rank], the factors of the users.
        direction: float32[n, rank], the direction of each item.
        product: float32[n, rank], to which the part of these users is added.
        params: the parameters of ALS.
    """
    weight, target = block.weights_and_targets(params)
    no_target = np.zeros_like(target)
    solvers.add_residual(block.indptr, block.items, weight, no_target, x, direction, product)


def hessian_product(
    shared: Broadcast[np.ndarray], params: SparkALSParameters, holdout_interval: int
) -> Callable[[SolvedBlocks], PartialSums]:
    """Return the function that multiplies a part of each item's matrix by a direction.

    The matrix is that of the item's linear system, and the part is the one that depends on the
    pairs of the item. With p the direction of an item and x the factor of a user, the function
    yields one tuple with −Σ weight·(x·p) x over the pairs of each item, float32[items, rank]. The
    sign is that of a residual. It takes pairs (block, factors), as :func:`solve_training_users`
    returns them.

    Args:
        shared: the broadcast of the directions, float32[items, rank].
        params: the parameters of ALS.
        holdout_interval: about one user in this number is held out. 0: none.
    """

    def work(solved: SolvedBlocks) -> PartialSums:
        direction = shared.value
        product = np.zeros_like(direction)
        for raw, x in solved:
            _, block = HistoryBlock.from_bytes(raw).split_users(params.seed, holdout_interval)
            add_product_of_users(block, x, direction, product, params)
        yield (product,)

    return work


def solve_all_users(
    raw: bytes, items: np.ndarray, axes: solvers.Axes | None, params: SparkALSParameters
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the factors of all users of a block, also of held-out ones, in float64.

    The result is the rows of the users with a training pair, int32[m], and their factors,
    float32[m, rank].

    Args:
        raw: the block as bytes.
        items: float64[items, rank], the item factors.
        axes: their principal axes. None for explicit feedback.
        params: the parameters of ALS.
    """
    block = HistoryBlock.from_bytes(raw)
    factors = params.solve_rows((block.indptr, block.items, block.values), items, axes)
    has_pairs = params.count_training_pairs(block.indptr, block.values) > 0
    return block.users[has_pairs], factors[has_pairs].astype(np.float32)


def solve_users_in_batches(
    shared: Broadcast[np.ndarray], params: SparkALSParameters
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function with which executors call :func:`solve_all_users` for blocks.

    The function takes Arrow batches with the column ``block`` (:func:`pack_blocks`). It yields
    batches with the columns ``user`` and ``features``.

    Args:
        shared: the broadcast of the item factors, float32[items, rank].
        params: the parameters of ALS.
    """

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        prepare_task()
        items = shared.value.astype(np.float64)
        axes = solvers.principal_axes(items) if params.implicit else None
        for batch in batches:
            for raw in batch.column(0):
                users, factors = solve_all_users(raw.as_py(), items, axes, params)
                offsets = pa.array(np.arange(len(factors) + 1, dtype=np.int32) * params.rank)
                features = pa.ListArray.from_arrays(offsets, pa.array(factors.ravel()))
                yield pa.RecordBatch.from_arrays([pa.array(users), features], ["user", "features"])

    return work
