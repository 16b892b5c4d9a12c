"""The model ``stack``: a weighted average of several models of ratings, with weights from a hold-out of train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass
from scipy.optimize import nnls

from recsys.data.hashing import hash_words, to_unit_interval
from recsys.parameters import STRICT, check_nested
from recsys.rating_model import RatingModel, predict_ratings
from recsys.types import Features, Interactions

HOLD_OUT_SALT = 0x737461636B
"""Hashed with the rows of a pair to choose the hold-out (the letters of "stack")."""

BIASES = "biases"
"""The name of the member that serves where another member has no opinion."""


def _default_parts() -> dict[str, dict[str, Any]]:
    return {"rating_knn": {}, "bpmf": {}}


@dataclass(config=STRICT)
class Stack(RatingModel):
    """The biases plus a weighted sum of what each part adds to them; the weights come from a hold-out of train.

    Choose it for the smallest errors of all. The parts are first fitted without the hold-out, a
    share of the pairs by hash. The weights ≥ 0 are those that give the smallest squared error on
    it (non-negative least squares). Then the parts are fitted on all of train. A part without an
    opinion on a pair adds nothing there, so every pair has a prediction.

    Reference: Breiman, Machine Learning 1996 (stacked regressions).
    """

    STATE: ClassVar = {"weights_": "float64[parts]"}

    parts: Annotated[
        dict[str, dict[str, Any]],
        Field(min_length=1, description="name -> parameters of each part"),
    ] = Field(default_factory=_default_parts)
    share: Annotated[float, Field(gt=0, lt=1, description="share of the pairs of train that is held out")] = 0.1
    seed: Annotated[int, Field(ge=0, description="seed of the hold-out, and of parts without a seed")] = 0

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if BIASES in parts:
            raise ValueError("the part 'biases' is there already: give other parts")
        check_nested(lambda name: build_part(name, parts[name], 0), parts)
        return parts

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Find the weights on the hold-out, then fit every part on all of train."""
        bits = hash_words(self.seed ^ HOLD_OUT_SALT, train.user, train.item)
        is_held_out = to_unit_interval(bits) < self.share
        held_out = np.flatnonzero(is_held_out)
        parts = self._fit_parts(keep_entries(train, ~is_held_out), features)
        added = _added_by_parts(parts, train.user[held_out], train.item[held_out])
        biases = parts[BIASES].predict(train.user[held_out], train.item[held_out])
        remainder = train.value[held_out] - biases
        self.weights_ = np.zeros(added.shape[1])
        if len(held_out):
            self.weights_ = nnls(added, remainder)[0]
        errors = remainder - added @ self.weights_
        self.record = {
            "held_out": len(held_out),
            "weights": dict(zip(self.parts, self.weights_.tolist(), strict=True)),
            "rmse": {
                BIASES: _root_mean_square(remainder),
                **{
                    name: _root_mean_square(remainder - column)
                    for name, column in zip(self.parts, added.T, strict=True)
                },
                "stack": _root_mean_square(errors),
            },
        }
        self.members = self._fit_parts(train, features)
        return self

    def _fit_parts(self, train: Interactions, features: Features | None) -> dict[str, RatingModel]:
        """Return the biases and every part, fitted on the same pairs."""
        parts = {BIASES: build_part(BIASES, {}, self.seed)}
        parts |= {name: build_part(name, settings, self.seed) for name, settings in self.parts.items()}
        for model in parts.values():
            model.fit(train, features)
        return parts

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the biases plus the weighted sum of what the parts add; every pair has a prediction."""
        added = _added_by_parts(self.members, users, items)
        return self.members[BIASES].predict(users, items) + added @ self.weights_


def build_part(name: str, settings: dict[str, Any], seed: int) -> RatingModel:
    """Return an unfitted part. Its kind is ``settings["model"]``, by default its name."""
    from recsys import models

    settings = dict(settings)
    kind = settings.pop("model", name)
    if "seed" in models.parameters(kind):
        settings.setdefault("seed", seed)
    return models.build_rating_model(kind, settings)


def keep_entries(train: Interactions, keep: np.ndarray) -> Interactions:
    """Return the interactions with only the entries for which ``keep``, bool[n], is true, and the same ids."""
    return replace(train, **{name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")})


def _added_by_parts(parts: Mapping[str, RatingModel], users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return float64[m, parts]: the prediction of each part minus that of the biases, 0 where it has none."""
    biases = parts[BIASES].predict(users, items)
    columns = [predict_ratings(model, users, items) - biases for name, model in parts.items() if name != BIASES]
    return np.nan_to_num(np.column_stack(columns), nan=0.0)


def _root_mean_square(errors: np.ndarray) -> float | None:
    """Return the root of the mean square, or None without errors."""
    if not len(errors):
        return None
    return float(np.sqrt(np.mean(errors**2)))
