"""Train a causal Transformer with JAX: packed batches, the loss, and early stopping.

JAX and optax are imported inside functions, because the rest of the package works without them, and
so does scoring.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recsys.errors import ConfigError, MissingExtra
from recsys.logging import logger
from recsys.models.sequential.transformer import (
    MASKED,
    Rows,
    Weights,
    encode,
    initial_weights,
    power_of_two,
)

AVERAGING = 0.998
"""Decay of the moving average of the weights, which averages about the last 1 / (1 − AVERAGING) steps."""

PADDING = -1
"""This number marks a place without a next item in the targets, and padding in the sequence numbers."""


@dataclass(frozen=True)
class NetworkSettings:
    """The parameters of ``sasrec`` that determine the network and a single training step.

    Attributes:
        rank: the number of values per item and per state.
        blocks: the number of blocks of attention and two layers.
        heads: the number of attention heads per block; a divisor of ``rank``.
        dropout: in [0, 0.95], the share of the values that are set to zero in training.
        learning_rate: the step size of the optimizer Adam, > 0.
    """

    rank: int
    blocks: int
    heads: int
    dropout: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingSettings:
    """All parameters of ``sasrec``: those of its network, and those that control the training.

    Attributes:
        network: the parameters of the network and of a step.
        max_length: the largest number of places of a training sequence. A longer sequence is cut
            into several (:func:`cut_into_windows`).
        batch: the number of places per training step.
        negatives: the number of sampled items per batch that the loss compares with the next item.
        iterations: the largest number of sweeps over all sequences.
        patience: the number of sweeps with a validation value below the highest one, after which
            training stops.
        minutes: the time after which training stops. None: no limit.
        seed: the seed of the first weights, the order of sequences, the samples and dropout.
    """

    network: NetworkSettings
    max_length: int
    batch: int
    negatives: int
    iterations: int
    patience: int
    minutes: float | None
    seed: int


class Batch(NamedTuple):
    """Packed rows of sequences, with the item that follows each place.

    Attributes:
        rows: the input sequences.
        targets: int32[rows, length], the item after each place, -1 for none.
        negatives: int32[n], the items that the loss compares with the next item, the same for all
            places of the batch. They are sampled, or all items of a small catalogue.
        noise: uint8[n], random bytes that decide which values dropout sets to zero.
    """

    rows: Rows
    targets: Any
    negatives: Any
    noise: Any


class Result(NamedTuple):
    """The result of :func:`train_network`.

    Attributes:
        weights: the weights of the best sweep, as NumPy arrays.
        losses: the mean loss of each sweep.
        values: the validation value after each sweep, higher is better.
        reason: why training stopped, for example "no better for 12 sweeps".
    """

    weights: Weights
    losses: list[float]
    values: list[float]
    reason: str


def require_jax() -> None:
    """Raise MissingExtra if JAX or optax is not installed."""
    try:
        import jax  # noqa: F401
        import optax  # noqa: F401
    except ImportError as error:
        raise MissingExtra("model 'sasrec' is trained with JAX and optax: pip install 'recsys[deep]'") from error


def train_network(
    indptr: np.ndarray,
    items: np.ndarray,
    n_items: int,
    settings: TrainingSettings,
    validate: Callable[[Weights], float] | None,
) -> Result:
    """Train a network on sequences, and return the weights of its best sweep.

    Training stops when the validation value has not risen above its highest value for
    ``settings.patience`` sweeps, after ``settings.iterations`` sweeps, or after
    ``settings.minutes``.

    Args:
        indptr, items: int64[m + 1] and int32[n]. Sequence u is ``items[indptr[u]:indptr[u + 1]]``.
            At least one sequence has two items.
        n_items: the number of different items, which are numbered 0, 1, …, n_items − 1.
        settings: the parameters of the network and of the training.
        validate: a function from weights to a value, where higher is better. None: the value is
            minus the loss.

    Raises:
        ConfigError: the learning rate is so large that weights become infinite or NaN.
    """
    begin = time.monotonic()
    generator = np.random.default_rng(settings.seed)
    indptr, items = cut_into_windows(indptr, items, settings.max_length + 1)
    longest = int(np.diff(indptr).max()) - 1
    network = settings.network
    sizes = {"items": n_items, "places": longest, "blocks": network.blocks, "rank": network.rank}
    best_weights = initial_weights(sizes, generator)
    start, step = _compiled_step(n_items, network)
    state = start(best_weights)
    losses: list[float] = []
    values: list[float] = []
    reason = f"{settings.iterations} sweeps"
    is_over = False
    while not is_over and len(losses) < settings.iterations:
        step_losses = []
        for batch in batches(indptr, items, n_items, settings, generator):
            state, loss = step(state, batch)
            step_losses.append(loss)
            if settings.minutes is not None:
                # Steps run while this loop goes on, so the clock alone would not say what is done.
                loss.block_until_ready()
                if time.monotonic() - begin > 60 * settings.minutes:
                    reason = f"{settings.minutes:g} minutes"
                    is_over = True
                    break
        losses.append(float(np.mean(step_losses)))
        # Copies, because the next step reuses the memory of its arguments.
        candidate = Weights(*(np.array(array) for array in state.average))
        if not all(np.isfinite(array).all() for array in candidate):
            raise ConfigError(
                f"model 'sasrec': weights are no longer finite after sweep {len(losses)}: set a"
                f" smaller learning_rate than {network.learning_rate:g}."
            )
        values.append(-losses[-1] if validate is None else validate(candidate))
        sweeps_since_best = len(values) - 1 - int(np.argmax(values))
        if sweeps_since_best == 0:
            best_weights = candidate
        elif sweeps_since_best >= settings.patience:
            reason = f"no better for {settings.patience} sweeps"
            is_over = True
        logger.debug(
            "sasrec: sweep %d of at most %d, loss %.4f, validation value %.5f, %.0f s",
            len(losses),
            settings.iterations,
            losses[-1],
            values[-1],
            time.monotonic() - begin,
        )
    return Result(best_weights, losses, values, reason)


class _State(NamedTuple):
    """The state of a training: weights, their average, the optimizer's state, and the number of
    steps."""

    weights: Weights
    average: Weights
    optimizer: Any
    steps: Any


@functools.lru_cache(maxsize=8)
def _compiled_step(n_items: int, settings: NetworkSettings) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return two functions: one that makes the first state, and one that does a training step.

    The first function takes the weights of the network and returns a state. The second takes a state
    and a batch, and returns the next state and the loss. It is compiled, only once for all fits with
    the same sizes.
    """
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(settings.learning_rate)

    def start(weights: Weights) -> _State:
        # jnp.array copies: memory that a step reuses must be its own.
        average = jax.tree.map(jnp.array, weights)
        weights = jax.tree.map(jnp.array, weights)
        return _State(weights, average, optimizer.init(weights), jnp.zeros((), dtype=jnp.float32))

    def step(state: _State, batch: Batch) -> tuple[_State, Any]:
        loss, gradient = jax.value_and_grad(mean_loss)(state.weights, batch, n_items, settings)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        # The average follows the first steps closely, so that a short training has one too.
        keep = jnp.minimum(AVERAGING, (1 + state.steps) / (10 + state.steps))

        def mix(mean: Any, new: Any) -> Any:
            return keep * mean + (1 - keep) * new

        average = jax.tree.map(mix, state.average, weights)
        return _State(weights, average, optimizer_state, state.steps + 1), loss

    return start, jax.jit(step, donate_argnums=0)


def mean_loss(weights: Weights, batch: Batch, n_items: int, settings: NetworkSettings) -> Any:
    """Return the mean cross-entropy of the next item over the places of a batch, computed with JAX.

    The result is a JAX scalar. Places without a next item do not count. If the batch has only a
    sample of the items as negatives, the result estimates the cross-entropy over all items.

    Args:
        weights: the weights of the network.
        batch: the sequences, their next items, the negatives, and the random bytes of dropout.
        n_items: the number of different items.
        settings: the parameters of the network, of which ``heads``, ``rank`` and ``dropout`` are
            used.
    """
    import jax
    import jax.numpy as jnp

    keep = round(256 * (1 - settings.dropout))
    offset = 0

    def drop(x: Any) -> Any:
        nonlocal offset
        if keep == 256:
            return x
        noise = batch.noise[offset : offset + x.size].reshape(x.shape)
        offset += x.size
        return jnp.where(noise < keep, x * np.float32(256 / keep), np.float32(0))

    states = encode(weights, batch.rows, settings.heads, jnp, drop)
    states = states.reshape(-1, settings.rank)
    targets = batch.targets.reshape(-1)
    is_trained = targets != PADDING
    target_logits = (states * weights.items[targets]).sum(axis=1)
    logits = states @ weights.items[batch.negatives].T
    # Each negative represents n_items / n items (the logQ correction of uniform sampling), so the
    # sum estimates that of the full softmax. With every item as a negative it is the full softmax.
    logits = logits + np.float32(np.log(n_items / len(batch.negatives)))
    logits = jnp.where(batch.negatives[None, :] == targets[:, None], np.float32(MASKED), logits)
    normalizers = jnp.logaddexp(target_logits, jax.nn.logsumexp(logits, axis=1))
    losses = jnp.where(is_trained, normalizers - target_logits, 0)
    return losses.sum() / jnp.maximum(is_trained.sum(), 1)


def cut_into_windows(indptr: np.ndarray, items: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut each long sequence into windows of at most ``longest`` items, and return all sequences.

    A sequence is cut from its end, so only the window with its earliest items can be shorter. Two
    neighbouring windows share one item: the last of the earlier one is the first of the later one.
    So each item of a sequence, except its first, follows another item in exactly one window. Of the
    windows of a sequence, the one with the latest items is first in the result. Sequences with
    fewer than two items are left out.

    Args:
        indptr, items: int64[m + 1] and int32[n]. Sequence u is ``items[indptr[u]:indptr[u + 1]]``. The
            result has the same form.
        longest: the largest number of items of a window, at least 2.
    """
    pieces = []
    for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
        while stop - start >= 2:
            begin = max(start, stop - longest)
            pieces.append(items[begin:stop])
            stop = begin + 1
    lengths = [len(piece) for piece in pieces]
    flat = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), flat.astype(np.int32)


def batches(
    indptr: np.ndarray,
    items: np.ndarray,
    n_items: int,
    settings: TrainingSettings,
    generator: np.random.Generator,
) -> Iterator[Batch]:
    """Yield the batches of one sweep over all sequences, in a random order.

    All batches have the same shape, so that the training step is compiled only once. Several short
    sequences share a row, so that little of a batch is padding.

    Args:
        indptr, items: int64[m + 1] and int32[n]. Sequence u is ``items[indptr[u]:indptr[u + 1]]``,
            with at least two items (:func:`cut_into_windows`).
        n_items: the number of different items.
        settings: the size of a batch, the number of negatives, and the dropout.
        generator: the source of the order, of the negatives and of the random bytes.
    """
    lengths = np.diff(indptr) - 1
    row_length = int(power_of_two(lengths.max(initial=1)))
    n_rows = max(1, settings.batch // row_length)
    noise_bytes = 0
    network = settings.network
    if network.dropout > 0:
        # Dropout comes after the input and, in a block, after the attention and each of two layers.
        noise_bytes = n_rows * row_length * network.rank * (1 + 3 * network.blocks)
    for part in _pack(lengths, generator.permutation(len(lengths)), row_length, n_rows):
        shape = (n_rows, row_length)
        rows = Rows(
            items=np.zeros(shape, dtype=np.int32),
            places=np.zeros(shape, dtype=np.int32),
            sequence=np.full(shape, PADDING, dtype=np.int32),
        )
        targets = np.full(shape, PADDING, dtype=np.int32)
        for sequence, row, column in part:
            start, length = indptr[sequence], lengths[sequence]
            cells = (row, slice(column, column + length))
            rows.items[cells] = items[start : start + length]
            rows.places[cells] = np.arange(length)
            rows.sequence[cells] = column
            targets[cells] = items[start + 1 : start + 1 + length]
        # The full softmax costs a product with every item at each place, which is most of a step for
        # more than some thousand items. So larger catalogues are sampled, once for the whole batch.
        negatives = np.arange(n_items, dtype=np.int32)
        if settings.negatives < n_items:
            negatives = generator.integers(0, n_items, settings.negatives, dtype=np.int32)
        noise = np.frombuffer(generator.bytes(noise_bytes), dtype=np.uint8)
        yield Batch(rows, targets, negatives, noise)


def _pack(
    lengths: np.ndarray,
    order: np.ndarray,
    row_length: int,
    n_rows: int,
) -> Iterator[list[tuple[int, int, int]]]:
    """Assign sequences to the rows of batches, and yield a list of (sequence, row, first column) per
    batch.

    Each sequence is put into the first row of the batch that has room for it. If no row has, a new
    batch begins.

    Args:
        lengths: int[m], the length of each sequence.
        order: int[m], the order in which sequences are assigned.
        row_length: the length of a row.
        n_rows: the number of rows of a batch.
    """
    part: list[tuple[int, int, int]] = []
    filled = [0] * n_rows
    first = 0
    for sequence in order.tolist():
        length = int(lengths[sequence])
        while first < n_rows and filled[first] + MIN_ROOM > row_length:
            first += 1
        row = first
        while row < n_rows and filled[row] + length > row_length:
            row += 1
        if row == n_rows:
            yield part
            part = []
            filled = [0] * n_rows
            first = 0
            row = 0
        part.append((sequence, row, filled[row]))
        filled[row] += length
    if part:
        yield part


MIN_ROOM = 4
"""A row with less free room than this counts as full. Filling it would cost more time than it
saves."""
