"""The parameters of ALS that both engines have: names, defaults, ranges and meaning."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.features.terms import Scheme
from recsys.parameters import STRICT

DEFAULT_RANK = 64
"""The number of latent factors if the config does not set ``rank``."""

LOCAL_ONLY = ("solver", "decay", "recency_days")
"""Names of the parameters that only the ALS of the local engine has."""
SPARK_ONLY = ("implicit", "trainer", "nonnegative", "blocks", "driver_pairs", "checkpoint_every")
"""Names of the parameters that only the ALS of the Spark engine has."""


def largest_rank(users: int, items: int) -> int:
    """Return the largest rank that ALS allows for a number of users and of items in train.

    It is the smaller of the two numbers, but at least :data:`DEFAULT_RANK`. A matrix has no more
    independent factors than it has rows or columns.

    >>> largest_rank(1000, 200), largest_rank(1000, 20)
    (200, 64)
    """
    return max(DEFAULT_RANK, min(users, items))


@dataclass(config=STRICT)
class ALSParameters:
    """Parameters of alternating least squares; :mod:`recsys.als.definition` has the equations."""

    rank: Annotated[int, Field(ge=1, description="number of latent factors per user and per item")] = DEFAULT_RANK
    iterations: Annotated[int, Field(ge=1, description="number of sweeps over users and items")] = 15
    alpha: Annotated[
        float,
        Field(
            ge=0,
            description="confidence of a stored pair: 1 + alpha·|value|; implicit feedback only",
        ),
    ] = 10.0
    reg: Annotated[float, Field(gt=0, description="λ, the regularization; higher values keep factors smaller")] = 0.05
    nu: Annotated[
        float,
        Field(
            ge=0,
            description="ν: the penalty of a row is λ · (its pairs + beta · rows of the other side)^nu",
        ),
    ] = 1.0
    beta: Annotated[
        float,
        Field(
            ge=0,
            description="β: the part of the penalty that does not depend on the row's number of pairs",
        ),
    ] = 0.0
    seed: Annotated[int, Field(ge=0, description="seed of the random start")] = 0


@dataclass(config=STRICT)
class AttributesParameters:
    """Parameters of the ridge regression that predicts item factors from item attributes.

    The predictions serve as the factors of the items that have no likes.
    """

    ridge: Annotated[
        float,
        Field(gt=0, description="regularization of the regression from attributes to factors"),
    ] = 3.0
    scheme: Annotated[Scheme, Field(description="how attribute values and words are weighted")] = "tfidf"
    fields: Annotated[dict[str, float], Field(description="attribute -> weight; 1 unless named")] = Field(
        default_factory=dict
    )
