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
from recsys.rating_model import RatingExplanation, RatingModel, predict_ratings
from recsys.types import Features, Interactions

HOLD_OUT_SALT = 0x737461636B
"""Hashed with the rows of a pair to choose the hold-out (the letters of "stack")."""

BASES = ("biases", "text_score")
"""The kinds of the model whose prediction the parts correct: the second if there are reviews."""


def _default_parts() -> dict[str, dict[str, Any]]:
    return {"rating_knn": {}, "bpmf": {}}


@dataclass(config=STRICT)
class Stack(RatingModel):
    """Weighted sum of several models of ratings, with weights that a hold-out of train gives.

    Choose it for the smallest errors of all models. The prediction is b + Σ_p w_p (r_p − b). b is
    the prediction of ``biases`` with its defaults. If the run has reviews, b is the prediction of
    ``text_score`` instead, which predicts the ratings of new items from their reviews. r_p is the
    prediction of part p. A term is left out if the prediction of its part is NaN, so every pair has
    a prediction.

    The *hold-out* is a share of the pairs of train, chosen by a hash, but never all of them. The
    parts are first fitted on the other pairs. The weights w_p ≥ 0 then minimise the squared error
    on the hold-out (non-negative least squares). Last, the base and the parts are fitted on all
    of train.

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
        if repeated := [name for name in BASES if name in parts]:
            raise ValueError(f"the part '{repeated[0]}' is there already, or needs reviews: give other parts")
        check_nested(lambda name: build_part(name, parts[name], 0), parts)
        return parts

    @property
    def uses_features(self) -> bool:
        """Whether a part uses the attributes of items."""
        return any(build_part(name, settings, 0).uses_features for name, settings in self.parts.items())

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Compute the weights on the hold-out, fit every part on all of train, and return the model.

        ``record`` then has the number of pairs of the hold-out, the weights, and the root mean
        squared error on the hold-out of the base, of each part, and of the stack. If the hold-out
        is empty, all weights are 0, so that the base alone predicts.
        """
        bits = hash_words(self.seed ^ HOLD_OUT_SALT, train.user, train.item)
        # The pair with the largest hash is never held out, so that a small train leaves the parts a pair to learn from.
        is_held_out = (to_unit_interval(bits) < self.share) & (bits < bits.max(initial=0))
        held_out = np.flatnonzero(is_held_out)
        parts = self._fit_parts(keep_entries(train, ~is_held_out), features)
        added = _added_by_parts(parts, train.user[held_out], train.item[held_out])
        base = next(iter(parts))
        remainder = train.value[held_out] - parts[base].predict(train.user[held_out], train.item[held_out])
        self.weights_ = np.zeros(added.shape[1])
        if len(held_out):
            self.weights_ = nnls(added, remainder)[0]
        errors = remainder - added @ self.weights_
        self.record = {
            "held_out": len(held_out),
            "weights": dict(zip(self.parts, self.weights_.tolist(), strict=True)),
            "rmse": {
                base: _root_mean_square(remainder),
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
        """Return the base and every part, fitted on the same pairs. The base is the first."""
        has_reviews = features is not None and features.reviews is not None
        base = BASES[has_reviews]
        parts = {base: build_part(base, {}, self.seed)}
        parts |= {name: build_part(name, settings, self.seed) for name, settings in self.parts.items()}
        for model in parts.values():
            model.fit(train, features)
        return parts

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the predicted rating of each pair, float64[m], which is never NaN.

        Args:
            users, items: int[m], rows of the users and of the items of train, -1 where unknown.
        """
        added = _added_by_parts(self.members, users, items)
        base = next(iter(self.members.values()))
        return base.predict(users, items) + added @ self.weights_

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of one prediction: those of the base, and the weighted term of each part of the stack."""
        explanation = next(iter(self.members.values())).explain(user, item)
        [added] = _added_by_parts(self.members, np.array([user]), np.array([item]))
        terms = {
            f"{name}, weight {weight:.3f}": float(weight * difference)
            for name, weight, difference in zip(self.parts, self.weights_, added, strict=True)
        }
        return RatingExplanation(explanation.parts | terms)


def build_part(name: str, settings: dict[str, Any], seed: int) -> RatingModel:
    """Return the unfitted model of one part of a stack.

    Args:
        name: the name of the part.
        settings: the parameters of the model. The key ``model`` is its kind, by default the name.
        seed: the seed of the part, if it has one and ``settings`` does not set it.

    Raises:
        ConfigError: the kind or a parameter is not valid.
    """
    from recsys import models

    settings = dict(settings)
    kind = settings.pop("model", name)
    if "seed" in models.parameters(kind):
        settings.setdefault("seed", seed)
    return models.build_rating_model(kind, settings)


def keep_entries(train: Interactions, keep: np.ndarray) -> Interactions:
    """Return interactions with only some of the entries of ``train``, and with the same id maps.

    Args:
        keep: bool[n], True for the entries to keep.
    """
    return replace(train, **{name: getattr(train, name)[keep] for name in ("user", "item", "value", "time")})


def _added_by_parts(parts: Mapping[str, RatingModel], users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return float64[m, parts]: the prediction of each part minus that of the base, 0 where it has none."""
    base, *further_models = parts.values()
    of_base = base.predict(users, items)
    columns = [predict_ratings(model, users, items) - of_base for model in further_models]
    return np.nan_to_num(np.column_stack(columns), nan=0.0)


def _root_mean_square(errors: np.ndarray) -> float | None:
    """Return the root of the mean square, or None without errors."""
    if not len(errors):
        return None
    return float(np.sqrt(np.mean(errors**2)))
