"""The kinds of model that a hybrid can use, and the search for their best settings on a trial.

A search moves along *ladders*: each ladder is an ordered list of values of one setting, its rungs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from recsys.errors import InputError
from recsys.features.encoding import columns_by_field
from recsys.logging import logger
from recsys.models import build, parameters
from recsys.models.collaborative.als import ALS
from recsys.models.combining.trial import Ladders, Position, Trial, climb, one_by_one
from recsys.models.content_collaborative import Attributes
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

Settings = dict[str, Any]

Model = TypeVar("Model", bound=Recommender)

clock = time.monotonic
"""The clock of time limits and of fits, in seconds. A benchmark on a busy machine counts CPU seconds."""


class Ladder(NamedTuple):
    """An ordered list of settings, the *rungs*, along which a search moves step by step.

    A search tries only the neighbours of the best rung so far. So a long ladder takes no more time
    if the best rung is near the start.

    Attributes:
        rungs: the settings, each a dict parameter -> value, for example ``{"rank": 32}``.
        start: the index of the rung that is tried first.
    """

    rungs: tuple[Settings, ...]
    start: int


def ladder(parameter: str, values: Sequence[Any], start: Any) -> Ladder:
    """Return the ladder of one parameter, with one rung per value.

    Args:
        parameter: the name of the parameter.
        values: the values of the parameter, in order.
        start: the value that is tried first, one of ``values``.

    >>> ladder("rank", (32, 64, 128), start=64)
    Ladder(rungs=({'rank': 32}, {'rank': 64}, {'rank': 128}), start=1)
    """
    return Ladder(tuple({parameter: value} for value in values), values.index(start))


SCALED = Ladder(
    tuple({"alpha": 1 / a, "beta": a} for a in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)),
    start=4,
)
"""The ladder of ALS on which the weight of a like, relative to all other pairs, rises.

Each rung sets ``alpha`` and ``beta`` together: in the terms of Rendle et al. 2021 (see
``recsys.als.definition``), α0 falls from 1 to 0.0003.
"""

PENALTY = ladder("penalty", (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1), start=0.003)
"""The ladder of the regularization of ALS: λ* of Rendle et al. 2021.

A model has the parameter ``reg`` = λ*(1 + ``alpha``). So a step on :data:`SCALED` keeps λ*. On some
logs heavier likes need a larger λ*, so a search also moves on both ladders together. Small dense logs
need a λ* ten times as large as sparse ones.
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
    "als": (FADING, PENALTY, SCALED, RANK),
    "next_item": (ladder("reg", (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), start=30.0),),
    "attributes": (
        # Before ``ridge``, whose best value depends on the length of the factors.
        ladder("reg", (0.03, 0.1, 0.3, 1.0, 3.0, 10.0), start=0.3),
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
        PENALTY,
        SCALED,
        ladder("content", (0.3, 1.0, 3.0, 10.0, 30.0), start=3.0),
        ladder("neighbours", (3, 5, 10), start=5),
        ladder("terms", (0.0, 0.03, 0.1, 0.3, 1.0), start=0.1),
        # Its artificial users make a fit slow, and a chosen kind is fitted some five times more.
        RANK._replace(rungs=RANK.rungs[:5]),
    ),
}
"""Kind of model -> its ladders. The kinds that are fitted fastest come first, because the time of a
search is limited."""

AT_PREDICTION = ("decay", "low")
"""Parameters that may be changed in a fitted model without fitting it again."""

OF_NEW_ITEMS = ("ridge", "fields")
"""Parameters of ``attributes`` that may be changed in a fitted model with another fit of the factors of
new items, which takes less time than that of all factors."""

SWEEPS = 8
"""Number of sweeps of ALS models. More sweeps change the lists less than the other settings do."""

LEAST_GAIN = 0.002
"""Smallest relative gain in NDCG for which a search moves to a neighbouring setting.

A smaller gain is probably noise.
"""

MORE_ROUNDS = 5
"""The largest number of rounds over the ladders of which the best values depend on each other."""

CHEAP_SHARE = 0.001
"""The largest share of the time of a search for one fit of a kind whose settings are always searched.

The search of a kind takes some fifteen fits. So all kinds are searched on a small log, where a kind
that starts badly may end well, and on a large log the time is left to the best ones.
"""

INVERSION_SHARE = 0.1
"""The largest share of the time of a search that one fit of a kind with ``memory_mb`` should take.

These kinds invert a dense matrix: the time grows with the cube of its side, and the fit cannot be
stopped. Large catalogues suit other kinds better, and the search of their settings needs the time.
"""

INVERSION_SPEED = 2e10
"""About n³ / seconds of the inversion of an n × n matrix of float64 on one core."""

SMALL_SIDE = 3_000
"""A matrix with at most this side is inverted however short the search is."""

BYTES_PER_CELL = 14
"""The largest number of bytes that a kind with ``memory_mb`` needs for a cell of its matrix."""

CONTENT = ("content", "attributes", "side_ease", "content_als")
"""Kinds that need item features."""

SECOND = "_2"
"""The end of the name of a second member of a kind, as in ``als_2``. No kind has a name that ends like this."""

SECOND_DIFFERS_IN = ("alpha", "rank")
"""Parameters of which one is different in a second member of a kind.

Models that weigh likes differently, or have another number of factors, make different errors.
"""

FIELD_WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The weights of a field of features that are tried.

0 is not among them, because some items have features of one field only.
"""


def kind_of(name: str) -> str:
    """Return the kind of a member of a hybrid.

    Args:
        name: the name of the member: its kind, or for the second member of a kind, the kind and :data:`SECOND`.

    >>> kind_of("als"), kind_of("als_2")
    ('als', 'als')
    """
    return name.removesuffix(SECOND)


def uses_features(name: str) -> bool:
    """Return whether a member of a hybrid, given by its name, needs item features."""
    return kind_of(name) in CONTENT


def ladders(kind: str, max_rank: int) -> tuple[Ladder, ...]:
    """Return the ladders of a kind of model, with no rank above ``max_rank``.

    A higher rank is replaced by ``max_rank``, and rungs that become equal are merged.

    Args:
        kind: a key of :data:`LADDERS`.
        max_rank: the largest useful rank, usually the number of users or of items.

    >>> ladders("als", 50)[-1]
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
    """Return the settings at a position: the rung of each ladder, merged into one dict.

    The rung of :data:`PENALTY` becomes the parameter ``reg``, which depends on ``alpha``.

    Args:
        steps: the ladders.
        position: the index of a rung on each ladder.

    >>> settings_at((ladder("rank", (8, 16), start=8), ladder("reg", (0.1, 1.0), start=0.1)), (1, 0))
    {'rank': 16, 'reg': 0.1}
    """
    settings: Settings = {}
    for step, rung in zip(steps, position, strict=True):
        settings |= step.rungs[rung]
    if "penalty" in settings:
        settings["reg"] = settings.pop("penalty") * (1 + settings["alpha"])
    return settings


def fit_part(kind: str, params: Settings, train: Interactions, features: Features | None, seed: int) -> Recommender:
    """Build a model of a kind, fit it on ``train``, and return it.

    ``features`` and ``seed`` are passed only to kinds that use them. A kind with the parameter
    ``iterations`` makes :data:`SWEEPS` sweeps, unless ``params`` has another number.

    Args:
        kind: a key of :data:`LADDERS`.
        params: parameter -> value. A parameter that is not given has its default.

    Raises:
        ConfigError: a parameter is not valid, or the kind needs features and there are none.
        InputError: the model does not fit in memory, or train lacks what the model needs.
    """
    names = parameters(kind)
    if "seed" in names:
        params = params | {"seed": seed}
    if "iterations" in names:
        params = {"iterations": SWEEPS} | params
    model = build(kind, params)
    if isinstance(model, ALS):
        # Nobody reads the objective of a member, which takes a tenth of the time of a fit.
        model.computes_losses = False
    return model.fit(train, features if kind in CONTENT else None)


@dataclass
class Deadline:
    """A time limit for a search of settings.

    Attributes:
        minutes: the length of the limit.
        started: the start, in seconds of :data:`clock`. The default is the time at which the object
            is made.
    """

    minutes: float
    started: float = field(default_factory=lambda: clock())

    def is_over(self, seconds: float = 0.0) -> bool:
        """Return whether the time limit will be over in ``seconds`` seconds from now."""
        return clock() + seconds > self.started + 60 * self.minutes


@dataclass
class Attempt:
    """The state of the search for the best settings of one kind.

    Attributes:
        kind: the kind of model.
        steps: the ladders of the kind.
        position: the best position so far: the index of the rung on each ladder.
        values: position -> mean NDCG@100 in the trial, for all positions that were tried.
        seconds: the duration of the last fit, in seconds.
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
        """The mean NDCG@100 of the best settings so far, in [0, 1]."""
        return self.values[self.position]

    @property
    def runners_up(self) -> list[Settings]:
        """For each parameter of :data:`SECOND_DIFFERS_IN`, the best settings with another value of it.

        They are chosen among the settings that were tried. A kind without these parameters has none.
        """
        best_first = sorted(self.values, key=lambda position: -self.values[position])
        tried = [settings_at(self.steps, position) for position in best_first]
        chosen: list[Settings] = []
        for name in filter(self.params.__contains__, SECOND_DIFFERS_IN):
            different = [params for params in tried if params[name] != self.params[name]]
            chosen += [params for params in different[:1] if params not in chosen]
        return chosen

    @property
    def last_rungs(self) -> Settings:
        """The part of the best settings that lies at an end of its ladder.

        A value beyond such an end may be better, but was not tried. An end is left out if no value
        beyond it is possible, for example beyond a weight of 0. Ladders with two rungs are left out.
        """
        ends: Settings = {}
        for step, rung in zip(self.steps, self.position, strict=True):
            is_end = len(step.rungs) > 2 and rung in (0, len(step.rungs) - 1)
            if is_end and _could_go_on(step.rungs[rung]):
                ends |= step.rungs[rung]
        if "penalty" in ends:
            ends["reg"] = ends["penalty"]
        return {name: value for name, value in self.params.items() if name in ends}


@dataclass
class Search:
    """Searches the best settings of a kind on a trial, by moving along its ladders.

    Attributes:
        trial: the trial on which settings are compared by their mean NDCG@100.
        features: the features of the items, or None.
        rows: int64, the users on whom settings are compared, as positions in the users of the trial.
        seed: the seed of every model that has one.
        field_weights: field of the features -> weight. Each kind that needs features is tried with
            and without these weights, because weights that improve ``content`` may harm another
            kind.
        deadline: when it is over, no further model is fitted, and the best settings so far are the
            result. The first fit of each kind is always made.
    """

    trial: Trial
    features: Features | None
    rows: np.ndarray
    seed: int
    field_weights: Settings
    deadline: Deadline

    def start(self, kind: str) -> Attempt:
        """Try a kind with its first settings, and return the state of its search.

        Then the settings that only affect scoring are searched, which needs no other fit. For ALS,
        the ladders :data:`PENALTY` and :data:`SCALED` (the weight of likes) are searched too, because
        no single value suits both dense and sparse logs. The trial stores the scores of the best settings under the
        name of the kind.

        Args:
            kind: a key of :data:`LADDERS`.

        Raises:
            InputError: the model does not fit in memory, or train lacks what the model needs.
        """
        steps = self._ladders(kind)
        attempt = Attempt(kind, steps, tuple(step.start for step in steps))
        self._climb(attempt, [_first_moves(steps)])
        return attempt

    def climb(self, attempt: Attempt) -> None:
        """Search all ladders of a kind from its best position so far, and update ``attempt``.

        After a round over all ladders, those of :meth:`start` and the rank are searched again as
        long as a round finds something better, because their best values depend on the rank and
        the rank on them. More rounds over the other ladders hardly find anything better.

        If another position is better, the trial stores the scores of the best settings under the
        name of the kind.
        """
        logger.info("hybrid: tries settings of %s, whose fit took %.1f s", attempt.kind, attempt.seconds)
        steps = attempt.steps
        rank = [(axis,) for axis, step in enumerate(steps) if "rank" in step.rungs[0]]
        self._climb(attempt, [one_by_one(len(steps)), *[[*_first_moves(steps), *rank]] * MORE_ROUNDS])

    def add_second(self, attempt: Attempt) -> Settings | None:
        """Search the settings of a second member of a kind, and return them.

        Two models of a kind with different settings make different errors, so that their mean may be
        better than each of them. Of the settings ``attempt.runners_up``, those are chosen whose mean
        with the best settings has the highest NDCG@100. They are fitted again, because the scores of
        all settings that were tried would take too much memory. The trial stores the scores under the
        name of the kind with :data:`SECOND`.

        The result is None if no time is left, or if no other settings were tried.
        """
        name = attempt.kind + SECOND
        chosen: Settings | None = None
        chosen_scores = np.empty(0)
        best_mean = -np.inf
        for params in attempt.runners_up:
            if self.deadline.is_over(attempt.seconds):
                break
            model = fit_part(attempt.kind, params, self.trial.train, self.features, self.seed)
            self.trial.cache_scores(name, model)
            mean = float(self.trial.blend_ndcg({attempt.kind: 1.0, name: 1.0}, self.rows).mean())
            if mean > best_mean:
                chosen, chosen_scores, best_mean = params, self.trial.scores[name], mean
        if chosen is not None:
            self.trial.scores[name] = chosen_scores
        return chosen

    def weigh_fields(self) -> Settings:
        """Search the weights of the feature fields with which the model ``content`` is best.

        The result is a dict: field -> weight. It has only the fields with a weight other than 1. It
        is empty if there are no features or only one field. The deadline does not apply.
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
        return field_params(climb(start, lengths, value, rounds=[one_by_one(len(names))]))["fields"]

    def _climb(self, attempt: Attempt, rounds: Sequence[Sequence[Ladders]]) -> None:
        """Search some ladders, and store the best position in the attempt and its scores in the
        trial.

        Args:
            rounds: as for :func:`recsys.models.combining.trial.climb`; ladders are those of ``attempt.steps``.
        """
        # The models of the best position and of the last one: where only a parameter of AT_PREDICTION
        # differs, one of them serves.
        fitted: list[tuple[Settings, Recommender]] = []
        best_mean = attempt.values.get(attempt.position, -np.inf)
        start = attempt.position
        is_first = not attempt.values

        def value(position: Position) -> float:
            nonlocal best_mean
            if position in attempt.values:
                return attempt.values[position]
            if attempt.values and self.deadline.is_over(attempt.seconds):
                return -np.inf
            params = settings_at(attempt.steps, position)
            model = self._fit(attempt, params, fitted)
            mean = float(self.trial.judge(model, self.rows).mean())
            attempt.values[position] = mean
            if mean > best_mean:
                fitted[:] = [(params, model)]
                best_mean = mean
            else:
                fitted[1:] = [(params, model)]
            return mean

        lengths = [len(step.rungs) for step in attempt.steps]
        attempt.position = climb(start, lengths, value, rounds, least_gain=LEAST_GAIN)
        if is_first or attempt.position != start:
            model = self._fit(attempt, attempt.params, fitted)
            self.trial.cache_scores(attempt.kind, model)

    def _fit(self, attempt: Attempt, params: Settings, fitted: list[tuple[Settings, Recommender]]) -> Recommender:
        """Return a fitted model with these settings.

        If a model in ``fitted`` differs only in parameters of :data:`AT_PREDICTION`, it is reused. So
        are the factors of ``attributes`` if only parameters of :data:`OF_NEW_ITEMS` differ. Otherwise
        a new model is fitted.
        """
        for fitted_params, model in fitted:
            if _without(fitted_params, AT_PREDICTION) == _without(params, AT_PREDICTION):
                return _with_settings(model, params, AT_PREDICTION)
            if isinstance(model, Attributes) and _without(fitted_params, OF_NEW_ITEMS) == _without(
                params, OF_NEW_ITEMS
            ):
                changed = _with_settings(model, {"fields": {}} | params, OF_NEW_ITEMS)
                return changed.fit_new_items(self.trial.train, self.features)
        began = clock()
        limit = self._memory_limit(attempt)
        try:
            model = fit_part(attempt.kind, params | limit, self.trial.train, self.features, self.seed)
        except InputError as error:
            if not limit:
                raise
            raise InputError(f"its fit would take too much of the time, so raise `minutes`. {error}") from error
        attempt.seconds = clock() - began
        return model

    def _memory_limit(self, attempt: Attempt) -> Settings:
        """Return the setting ``memory_mb`` with which the first fit of a kind takes at most about
        :data:`INVERSION_SHARE` of the time of the search.

        The result is empty if the kind has no such setting, if its default is lower, or if no other
        kind was tried before, because a search must try one.
        """
        if "memory_mb" not in parameters(attempt.kind) or attempt.values or not self.trial.scores:
            return {}
        seconds = INVERSION_SHARE * 60 * self.deadline.minutes
        side = max(SMALL_SIDE, np.cbrt(seconds * INVERSION_SPEED))
        limit = int(BYTES_PER_CELL * side**2 / 2**20)
        return {"memory_mb": limit} if limit < vars(build(attempt.kind, {}))["memory_mb"] else {}

    def _ladders(self, kind: str) -> tuple[Ladder, ...]:
        """Return the ladders of a kind for this trial.

        If there are field weights and the kind uses features, the last ladder has two rungs: without
        and with these weights.
        """
        max_rank = min(len(self.trial.train.users), len(self.trial.train.items))
        steps = ladders(kind, max_rank)
        if self.field_weights and kind in CONTENT:
            steps = (*steps, Ladder(({}, {"fields": self.field_weights}), start=1))
        return steps


def _first_moves(steps: Sequence[Ladder]) -> list[Ladders]:
    """Return the ladders that are searched when a kind is tried for the first time, as a round of ``climb``.

    They are those of settings that only affect scoring, and :data:`PENALTY` and :data:`SCALED`. These
    two also move together: the heavier the likes are, the more they need to be penalised. Often a
    step on one of them helps only with a step on the other.

    Args:
        steps: the ladders of the kind.
    """
    objective = tuple(axis for axis, step in enumerate(steps) if step in (PENALTY, SCALED))
    at_prediction = tuple(axis for axis, step in enumerate(steps) if set(step.rungs[0]) <= set(AT_PREDICTION))
    moves: list[Ladders] = [(axis,) for axis in sorted(at_prediction + objective)]
    return [*moves, objective] if objective else moves


def _could_go_on(settings: Settings) -> bool:
    """Return whether a setting at the end of a ladder could have a value beyond this end.

    There is no value beyond 0, beyond a decay of 1, or beyond a value that is a name.
    """
    return any(
        isinstance(value, int | float) and value != 0 and (name, value) != ("decay", 1.0)
        for name, value in settings.items()
    )


def _without(params: Settings, names: Sequence[str]) -> Settings:
    """Return the settings without those of some parameters."""
    return {name: value for name, value in params.items() if name not in names}


def _with_settings(model: Model, params: Settings, names: Sequence[str]) -> Model:
    """Return a copy of a fitted model with new values of some parameters.

    Args:
        params: the new settings. Those of other parameters are ignored.
        names: the parameters.
    """
    changed = copy(model)
    for name in names:
        if name in params:
            setattr(changed, name, params[name])
    return changed
