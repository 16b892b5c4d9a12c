"""A causal Transformer over sequences of items: its weights, and its forward pass as a function.

The array module is an argument of the forward pass. So the same code scores with NumPy and trains
with ``jax.numpy``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recsys.linalg import one_blas_thread

NORM_EPSILON = 1e-6
"""Added to the variance in a layer norm, so that it never divides by 0."""

VECTOR_DEVIATION = 0.02
"""Standard deviation of the random item vectors at the start of training.

It is small, because scores are products with these vectors, and the scores of an untrained network
should be nearly equal for all items.
"""

PLACES_AT_ONCE = 1 << 14
"""Largest number of places of padded sequences that are encoded at a time. It is so small that arrays
fit in the CPU cache."""

PAIRS_AT_ONCE = 1 << 20
"""Largest number of pairs of places for which attention is computed at a time. It limits the memory."""

MASKED = -1e9
"""Attention logit of a place that must have no effect. It is finite, so that no result becomes NaN."""


class Weights(NamedTuple):
    """The weights of a network with B blocks, the width d, and h values in the inner layer; float32.

    Attributes:
        items: [liked, d], the vector of each item, used at the input and at the output.
        positions: [longest, d], the vector that is added to the item at each place of a sequence.
        queries, keys, values, mixes: [B, d, d], the attention of each block.
        inner, inner_bias, outer, outer_bias: [B, d, h], [B, h], [B, h, d], [B, d], the two layers
            after the attention of each block.
        scales, shifts: [2B + 1, d], the layer norms: two per block, and a last one.
    """

    items: Any
    positions: Any
    queries: Any
    keys: Any
    values: Any
    mixes: Any
    inner: Any
    inner_bias: Any
    outer: Any
    outer_bias: Any
    scales: Any
    shifts: Any


class Rows(NamedTuple):
    """Sequences packed into rows of one length. A row may have several short sequences.

    Attributes:
        items: int32[rows, length], the items.
        places: int32[rows, length], the place of each entry in its sequence, 0 for the first.
        sequence: int32[rows, length], a number that identifies the sequence within its row, -1 for
            padding.
    """

    items: Any
    places: Any
    sequence: Any


def initial_weights(sizes: dict[str, int], generator: np.random.Generator) -> Weights:
    """Return random weights, as NumPy arrays, for a network of the given sizes.

    Args:
        sizes: a dict with the keys ``items``, ``places``, ``blocks`` (numbers of each) and ``rank``
            (the width d of the network).
        generator: the source of the random numbers.
    """
    width = sizes["rank"]
    blocks = sizes["blocks"]

    def normal(*shape: int, deviation: float) -> np.ndarray:
        return (generator.standard_normal(shape) * deviation).astype(np.float32)

    hidden = width
    # A product over d inputs keeps their size, and what a block adds shrinks with their number.
    side, added = width**-0.5, (2 * blocks * width) ** -0.5
    return Weights(
        items=normal(sizes["items"], width, deviation=VECTOR_DEVIATION),
        positions=normal(sizes["places"], width, deviation=VECTOR_DEVIATION),
        queries=normal(blocks, width, width, deviation=side),
        keys=normal(blocks, width, width, deviation=side),
        values=normal(blocks, width, width, deviation=side),
        mixes=normal(blocks, width, width, deviation=added),
        inner=normal(blocks, width, hidden, deviation=side),
        inner_bias=np.zeros((blocks, hidden), dtype=np.float32),
        outer=normal(blocks, hidden, width, deviation=added),
        outer_bias=np.zeros((blocks, width), dtype=np.float32),
        scales=np.ones((2 * blocks + 1, width), dtype=np.float32),
        shifts=np.zeros((2 * blocks + 1, width), dtype=np.float32),
    )


def encode(
    weights: Weights,
    rows: Rows,
    heads: int,
    xp: Any = np,
    drop: Callable[[Any], Any] = lambda x: x,
) -> Any:
    """Compute the state of the network after each place of packed sequences, float32[rows, length, d].

    The product of a state and the item vectors gives the scores of the next item. The state after a
    place depends on this place and the earlier places of its sequence only. Each block begins with a
    layer norm (pre-norm), so that training needs no warm-up.

    Args:
        weights: the weights of the network.
        rows: the packed sequences.
        heads: the number of attention heads of a block.
        xp: the array module, ``numpy`` or ``jax.numpy``.
        drop: the function that applies dropout in training. By default it does nothing.
    """
    n_rows, length = rows.items.shape
    width = weights.items.shape[1]
    earlier = np.tril(np.ones((length, length), dtype=bool))
    visible = (rows.sequence[:, None, :, None] == rows.sequence[:, None, None, :]) & earlier
    # Flat over all places: one large product each, and not one per row.
    x = weights.items[rows.items] + weights.positions[rows.places]
    x = drop(x.reshape(-1, width))

    def by_head(vectors: Any) -> Any:
        return vectors.reshape(n_rows, length, heads, width // heads).transpose(0, 2, 1, 3)

    for block in range(len(weights.queries)):
        normed = _norm(x, weights.scales[2 * block], weights.shifts[2 * block], xp)
        queries = by_head(normed @ weights.queries[block]) * np.float32((width // heads) ** -0.5)
        keys = by_head(normed @ weights.keys[block])
        logits = xp.where(visible, queries @ keys.swapaxes(2, 3), np.float32(MASKED))
        attention = xp.exp(logits - logits.max(axis=3, keepdims=True))
        attention = attention / attention.sum(axis=3, keepdims=True)
        seen = attention @ by_head(normed @ weights.values[block])
        x = x + drop(seen.transpose(0, 2, 1, 3).reshape(-1, width) @ weights.mixes[block])

        normed = _norm(x, weights.scales[2 * block + 1], weights.shifts[2 * block + 1], xp)
        hidden = normed @ weights.inner[block] + weights.inner_bias[block]
        hidden = xp.maximum(hidden, np.float32(0))
        x = x + drop(drop(hidden) @ weights.outer[block] + weights.outer_bias[block])
    return _norm(x, weights.scales[-1], weights.shifts[-1], xp).reshape(n_rows, length, width)


def _norm(x: Any, scale: Any, shift: Any, xp: Any) -> Any:
    """Return ``x`` after a layer norm over its last axis, multiplied by ``scale`` plus ``shift``."""
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = xp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(NORM_EPSILON))
    return centred / deviation * scale + shift


def last_states(weights: Weights, indptr: np.ndarray, items: np.ndarray, heads: int) -> np.ndarray:
    """Compute the state of the network after the last item of each of m sequences, float32[m, d].

    The state of an empty sequence is zero. If a sequence is longer than the number of positions of
    the network, only its last items are used.

    Args:
        weights: the weights of the network.
        indptr, items: int64[m + 1] and int32[n]. Sequence u is ``items[indptr[u]:indptr[u + 1]]``.
        heads: the number of attention heads of a block.
    """
    lengths = np.minimum(np.diff(indptr), len(weights.positions))
    states = np.zeros((len(lengths), weights.items.shape[1]), dtype=np.float32)
    for size in np.unique(power_of_two(lengths[lengths > 0])).tolist():
        users = np.flatnonzero((lengths > 0) & (power_of_two(lengths) == size))
        block = max(1, min(PLACES_AT_ONCE // size, PAIRS_AT_ONCE // size**2))
        for start in range(0, len(users), block):
            part = users[start : start + block]
            # The padding comes last, where no earlier place sees it.
            places = np.broadcast_to(np.arange(size), (len(part), size))
            is_padding = places >= lengths[part, None]
            entries = indptr[part + 1, None] - lengths[part, None] + places
            padded = np.where(is_padding, 0, items[np.minimum(entries, len(items) - 1)])
            capped = np.minimum(places, len(weights.positions) - 1)
            rows = Rows(padded, capped, np.zeros((len(part), size), dtype=np.int32))
            with one_blas_thread():
                encoded = encode(weights, rows, heads)
            states[part] = encoded[np.arange(len(part)), lengths[part] - 1]
    return states


def power_of_two(lengths: np.ndarray) -> np.ndarray:
    """Return the smallest power of two that is not less than each length, int64, in the same shape."""
    return 2 ** np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
