"""Fading: older entries of a history count less in a score, by their position or by their age.

Fading affects only scoring. So ``decay`` and ``recency_days`` may be changed after a model has been
fitted.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.parameters import STRICT
from recsys.types import Histories

Decay = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="factor by which a liked item counts less for each like after it, when a score is made; 1: order is"
        " ignored",
    ),
]
RecencyDays = Annotated[
    float | None,
    Field(
        gt=0,
        description="half-life, in days, of a history entry when a score is made, counted back from the user's latest "
        "entry; unset: old and new entries count alike",
    ),
]


@dataclass(config=STRICT)
class Fading:
    """The parameters of models that can give older entries of a history less weight.

    :func:`fading_weights` has the formula. In histories without times, all entries have the same
    weight.

    Attributes:
        decay: in [0, 1], the factor by which a like counts less for each later like of the user. 1:
            the order does not matter.
        recency_days: the half-life of a like in days, counted back from the latest entry of the
            user. None: the age does not matter.
    """

    decay: Decay = 1.0
    recency_days: RecencyDays = None


def fading_weights(
    histories: Histories, counted: np.ndarray, decay: float = 1.0, recency_days: float | None = None
) -> np.ndarray:
    """Return the weight of each counted entry, float32[number of counted entries], in [0, 1].

    The weight is decay^p · 2^(−age / recency_days). p is the number of later counted entries in the
    same row; of entries with the same time, that of the higher item row is the later one. The age
    is the number of days from the entry to the latest entry of its row. An entry whose time is
    unknown is the earliest, but has the age 0. Without times, all weights are 1.

    Args:
        histories: the histories, with nnz entries.
        counted: bool[nnz], the entries that are counted, usually the likes.
        decay: in [0, 1]. 1: the order does not matter.
        recency_days: the half-life in days. None: the age does not matter.

    >>> from scipy.sparse import csr_array
    >>> histories = Histories(csr_array(np.ones((1, 3), dtype=np.float32)), np.array([20, 30, 10]))
    >>> fading_weights(histories, np.ones(3, dtype=bool), decay=0.5).tolist()
    [0.5, 1.0, 0.25]
    """
    weights = np.ones(np.count_nonzero(counted), dtype=np.float32)
    if histories.times is None:
        return weights
    if decay < 1:
        weights *= (decay ** histories.places_from_end(counted)).astype(np.float32)
    if recency_days is not None:
        weights *= np.exp2(-histories.ages()[counted] / recency_days).astype(np.float32)
    return weights
