"""What a hybrid can be made of, and the search for a part's settings on a trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from recsys.features.encoding import columns_by_field
from recsys.models import build, parameters
from recsys.models.combining.trial import Position, Trial, climb
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

Settings = dict[str, Any]


class Ladder(NamedTuple):
    """Settings to climb along, one rung at a time; ``start``: the index of the rung that is tried first.

    A search tries the neighbours of the best rung alone, so that long ladders cost nothing where
    the best rung is near the start.
    """

    rungs: tuple[Settings, ...]
    start: int


def ladder(parameter: str, values: Sequence[Any], start: Any) -> Ladder:
    """Return the ladder of one parameter.

    >>> ladder("rank", (32, 64, 128), start=64)
    Ladder(rungs=({'rank': 32}, {'rank': 64}, {'rank': 128}), start=1)
    """
    return Ladder(tuple({parameter: value} for value in values), values.index(start))


SCALED = Ladder(
    tuple(
        {"alpha": 1 / a, "reg": 0.001 * (1 + a) / a, "beta": a} for a in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
    ),
    start=3,
)
"""ALS: λ* = .001 and a rising weight of a like against the rest, in the terms of Rendle et al.
2021.
"""

FADING = ladder("decay", (1.0, 0.95, 0.9, 0.8, 0.65, 0.5, 0.3), start=1.0)
RANK = ladder("rank", (16, 32, 64, 128, 256, 512, 1024), start=64)

LADDERS: dict[str, tuple[Ladder, ...]] = {
    "popular": (),
    "recent": (),
    "content": (ladder("scheme", ("bm25", "tfidf", "raw"), start="tfidf"),),
    "transitions": (
        FADING._replace(start=FADING.rungs.index({"decay": 0.8})),
        ladder("backward", (0.0, 0.1, 0.25, 0.5, 1.0), start=0.25),
        ladder("source_power", (0.0, 0.25, 0.5, 0.75, 1.0), start=0.5),
        ladder("target_power", (0.0, 0.1, 0.2, 0.3, 0.5), start=0.1),
        ladder("window", (1, 2, 5, 10, 20), start=10),
    ),
    "rp3beta": (
        FADING,
        ladder("alpha", (0.3, 0.5, 0.7, 0.85, 1.0, 1.2), start=0.7),
        ladder("beta", (0.0, 0.1, 0.2, 0.3, 0.4, 0.6), start=0.2),
        ladder("neighbours", (50, 100, 200, 400, 800), start=200),
    ),
    "itemknn": (
        FADING,
        ladder("weighting", ("bm25", "cosine", "tfidf"), start="cosine"),
        ladder("shrink", (0.0, 5.0, 20.0, 80.0), start=5.0),
        ladder("neighbours", (50, 100, 200, 400, 800), start=200),
    ),
    "userknn": (
        FADING,
        ladder("weighting", ("bm25", "cosine", "tfidf"), start="cosine"),
        ladder("neighbours", (25, 50, 100, 200, 400, 800), start=200),
    ),
    "spectral": (FADING, ladder("low", (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0), start=0.3), RANK),
    "ease": (FADING, ladder("reg", (3.0, 12.0, 50.0, 200.0, 800.0, 3200.0, 12800.0), start=200.0)),
    "als": (FADING, SCALED, RANK),
    "next_item": (ladder("reg", (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), start=30.0),),
    "attributes": (
        ladder("ridge", (0.3, 1.0, 3.0, 10.0, 30.0), start=3.0),
        Ladder(({"alpha": 1.0, "rank": 128}, {"alpha": 10.0, "rank": 128}), start=1),
    ),
    "side_ease": (
        FADING,
        ladder("reg", (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), start=3.0),
        ladder("content", (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), start=2.0),
    ),
    "content_als": (
        FADING,
        SCALED,
        ladder("content", (0.3, 1.0, 3.0, 10.0, 30.0), start=3.0),
        ladder("neighbours", (3, 5, 10), start=5),
        ladder("terms", (0.0, 0.03, 0.1, 0.3, 1.0), start=0.1),
        RANK,
    ),
}
"""Kind -> ladders of settings. The kinds that cost least come first, for a search with a
deadline.
"""

AT_PREDICTION = ("decay", "low")
"""Parameters of which a fitted model may change without another fit."""

SWEEPS = 8
"""Sweeps of an alternating model. More of them change its lists by less than its other settings
do.
"""

LEAST_GAIN = 0.002
"""The share by which a step on a ladder must raise the value: less is noise, and not worth a
higher rank.
"""

PROMISING = 0.8
"""A kind whose first settings have less than this share of the best kind's value keeps them."""

CONTENT = ("content", "attributes", "side_ease", "content_als")
"""Kinds that need item features."""

FIELD_WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The ladder of the weight of a field. Never 0, because some items have features of this field
alone.
"""


def ladders(kind: str, max_rank: int) -> tuple[Ladder, ...]:
    """Return the ladders of a kind with no rank above ``max_rank``; rungs that become equal are one.

    >>> ladders("als", 50)[2]
    Ladder(rungs=({'rank': 16}, {'rank': 32}, {'rank': 50}), start=2)
    """
    capped_ladders = []
    for step in LADDERS[kind]:
        if "rank" in step.rungs[0]:
            capped = [rung | {"rank": min(rung["rank"], max_rank)} for rung in step.rungs]
            different = tuple(rung for number, rung in enumerate(capped) if rung not in capped[:number])
            step = Ladder(different, min(step.start, len(different) - 1))
        capped_ladders.append(step)
    return tuple(capped_ladders)


def settings_at(steps: Sequence[Ladder], position: Position) -> Settings:
    """Return the settings at a position on ladders."""
    settings: Settings = {}
    for step, rung in zip(steps, position, strict=True):
        settings |= step.rungs[rung]
    return settings


def fit_part(kind: str, params: Settings, train: Interactions, features: Features | None, seed: int) -> Recommender:
    """Return a fitted model of a kind; only kinds that need features get them, and only kinds
    with a seed get it.
    """
    names = parameters(kind)
    if "seed" in names:
        params = params | {"seed": seed}
    if "iterations" in names:
        params = {"iterations": SWEEPS} | params
    return build(kind, params).fit(train, features if kind in CONTENT else None)


@dataclass
class Deadline:
    """A moment after which no fit begins."""

    minutes: float
    started: float = field(default_factory=time.monotonic)

    def is_over(self, seconds: float = 0.0) -> bool:
        """Return whether it has passed, or will have passed in some seconds."""
        return time.monotonic() + seconds > self.started + 60 * self.minutes


@dataclass
class Attempt:
    """How far the search for the settings of one kind has come.

    ``position``: the best one so far. ``values``: position -> mean NDCG@100. ``seconds``: what the
    last fit took.
    """

    kind: str
    steps: tuple[Ladder, ...]
    position: Position
    values: dict[Position, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def params(self) -> Settings:
        """The best settings so far."""
        return settings_at(self.steps, self.position)

    @property
    def value(self) -> float:
        """The mean NDCG@100 of the best settings so far."""
        return self.values[self.position]

    @property
    def last_rungs(self) -> Settings:
        """The best settings that are on the first or last rung of a ladder that could go on: others
        may be better.
        """
        settings: Settings = {}
        for step, rung in zip(self.steps, self.position, strict=True):
            is_end = len(step.rungs) > 2 and rung in (0, len(step.rungs) - 1)
            if is_end and _could_go_on(step.rungs[rung]):
                settings |= step.rungs[rung]
        return settings


@dataclass
class Search:
    """Fits models on a trial with settings that climb the ladders of their kind, for some users of the trial.

    ``rows``: the users that settings are compared on. ``field_weights``: weights of the fields of
    the features. Each kind that needs features is tried with and without them, because weights
    that make ``content`` better may harm another kind. ``deadline``: after it, the best so far is
    the result.
    """

    trial: Trial
    features: Features | None
    rows: np.ndarray
    seed: int
    field_weights: Settings
    deadline: Deadline

    def start(self, kind: str) -> Attempt:
        """Fit a kind with the settings that its ladders start with, and climb the ladders that need no other fit.

        Of ALS, the weight of likes is climbed too: no single value suits both dense and sparse
        logs. The trial keeps the scores of the best of them.

        Raises:
            InputError: the model does not fit in memory, or train lacks what it needs.
        """
        steps = self._ladders(kind)
        attempt = Attempt(kind, steps, tuple(step.start for step in steps))
        first = [axis for axis, step in enumerate(steps) if step is SCALED or set(step.rungs[0]) <= set(AT_PREDICTION)]
        self._climb(attempt, first)
        return attempt

    def climb(self, attempt: Attempt) -> None:
        """Climb all ladders of a kind from where an attempt is; the trial keeps the scores of the
        best settings.
        """
        self._climb(attempt, range(len(attempt.steps)))

    def weigh_fields(self) -> Settings:
        """Return field -> weight, for weights other than 1 that make ``content`` better for these
        users.
        """
        if self.features is None:
            return {}
        names = list(columns_by_field(self.features))
        if len(names) < 2:
            return {}

        def field_params(position: Position) -> Settings:
            weights = {name: FIELD_WEIGHTS[rung] for name, rung in zip(names, position, strict=True)}
            return {"fields": {name: weight for name, weight in weights.items() if weight != 1}}

        def value(position: Position) -> float:
            model = fit_part("content", field_params(position), self.trial.train, self.features, self.seed)
            return float(self.trial.judge(model, self.rows).mean())

        lengths = [len(FIELD_WEIGHTS)] * len(names)
        start = tuple(length // 2 for length in lengths)
        return field_params(climb(start, lengths, value, rounds=1))["fields"]

    def _climb(self, attempt: Attempt, axes: Sequence[int]) -> None:
        """Climb some ladders from the position of an attempt, and store the result in it and in
        the trial.
        """
        # The models of the best position and of the last one: where only a parameter of AT_PREDICTION
        # differs, one of them serves.
        fitted: list[tuple[Settings, Recommender]] = []
        best = attempt.values.get(attempt.position, -np.inf)
        start = attempt.position
        is_first = not attempt.values

        def value(position: Position) -> float:
            nonlocal best
            if position in attempt.values:
                return attempt.values[position]
            if attempt.values and self.deadline.is_over(attempt.seconds):
                return -np.inf
            params = settings_at(attempt.steps, position)
            model = self._fit(attempt, params, fitted)
            mean = float(self.trial.judge(model, self.rows).mean())
            attempt.values[position] = mean
            if mean > best:
                fitted[:] = [(params, model)]
                best = mean
            else:
                fitted[1:] = [(params, model)]
            return mean

        lengths = [len(step.rungs) for step in attempt.steps]
        # A second round costs as much as the first and hardly finds anything better.
        attempt.position = climb(start, lengths, value, axes, rounds=1, least_gain=LEAST_GAIN)
        if is_first or attempt.position != start:
            model = self._fit(attempt, attempt.params, fitted)
            self.trial.cache_scores(attempt.kind, model)

    def _fit(self, attempt: Attempt, params: Settings, fitted: list[tuple[Settings, Recommender]]) -> Recommender:
        """Return a model with these settings: one of the fitted ones, as far as that is possible."""
        for fitted_params, model in fitted:
            if _to_fit(fitted_params) == _to_fit(params):
                return _with_settings(model, params)
        began = time.monotonic()
        model = fit_part(attempt.kind, params, self.trial.train, self.features, self.seed)
        attempt.seconds = time.monotonic() - began
        return model

    def _ladders(self, kind: str) -> tuple[Ladder, ...]:
        """Return the ladders of a kind on this trial, the choice of field weights last."""
        max_rank = min(len(self.trial.train.users), len(self.trial.train.items))
        steps = ladders(kind, max_rank)
        if self.field_weights and kind in CONTENT:
            steps = (*steps, Ladder(({}, {"fields": self.field_weights}), start=1))
        return steps


def _could_go_on(settings: Settings) -> bool:
    """Return whether there are values beyond those of a rung: none beyond 0, a decay of 1, or a choice by name."""
    return any(
        isinstance(value, int | float) and value != 0 and (name, value) != ("decay", 1.0)
        for name, value in settings.items()
    )


def _to_fit(params: Settings) -> Settings:
    """Return the settings that ``fit`` needs."""
    return {name: value for name, value in params.items() if name not in AT_PREDICTION}


def _with_settings(model: Recommender, params: Settings) -> Recommender:
    """Return the same fitted model with other settings at prediction."""
    changed = copy(model)
    for name in AT_PREDICTION:
        if name in params:
            setattr(changed, name, params[name])
    return changed
