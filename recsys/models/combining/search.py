"""What a hybrid can be made of, and the search for a part's settings on a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.features.encoding import columns_by_field
from recsys.models import build, parameters
from recsys.models.combining.trial import Position, Trial, climb
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

Settings = dict[str, Any]
Ladder = tuple[Settings, ...]

SCALED: Ladder = tuple({"alpha": 1 / a, "reg": 0.001 * (1 + a) / a, "beta": a} for a in (0.1, 0.03, 0.01, 0.003, 0.001))
"""ALS: λ* = .001 and a rising weight of a like against the rest, in the terms of Rendle et al. 2021."""

LADDERS: dict[str, tuple[Ladder, ...]] = {
    "popular": (),
    "recent": (),
    "itemknn": (),
    "rp3beta": (),
    "spectral": (),
    "transitions": (
        ({"decay": 0.5}, {"decay": 0.7}, {"decay": 0.9}, {"decay": 1.0}),
        ({"backward": 0.0}, {"backward": 0.25}, {"backward": 1.0}),
        ({"target_power": 0.0}, {"target_power": 0.1}, {"target_power": 0.3}),
    ),
    "next_item": (({"reg": 30.0}, {"reg": 100.0}, {"reg": 300.0}),),
    "ease": (({"reg": 50.0}, {"reg": 200.0}, {"reg": 800.0}),),
    "als": (SCALED, ({"rank": 32}, {"rank": 64}, {"rank": 128})),
    "content": (tuple({"scheme": scheme} for scheme in ("bm25", "tfidf", "raw")),),
    "attributes": (
        ({"ridge": 1.0}, {"ridge": 3.0}, {"ridge": 10.0}),
        ({"alpha": 1.0, "rank": 128}, {"alpha": 10.0, "rank": 128}),
    ),
    "side_ease": (
        ({"reg": 0.1}, {"reg": 0.3}, {"reg": 1.0}, {"reg": 3.0}, {"reg": 10.0}, {"reg": 30.0}),
        ({"content": 0.5}, {"content": 1.0}, {"content": 2.0}, {"content": 4.0}, {"content": 8.0}),
    ),
    "content_als": (
        SCALED,
        ({"content": 1.0}, {"content": 3.0}, {"content": 10.0}),
        ({"neighbours": 3}, {"neighbours": 5}, {"neighbours": 10}),
        ({"terms": 0.0}, {"terms": 0.03}, {"terms": 0.1}, {"terms": 0.3}, {"terms": 1.0}),
        ({"rank": 64}, {"rank": 128}, {"rank": 256}),
    ),
}
"""Kind -> ladders of settings. A search starts in the middle of each and climbs while the value in a trial rises."""

ON_REQUEST = ("recent", "transitions", "next_item")
"""Kinds that a hybrid tries only where its parts name them."""

QUICK = 8
"""Sweeps of an alternating model while settings are compared; the chosen settings get the full number."""

CONTENT = ("content", "attributes", "side_ease", "content_als")
"""Kinds that need item features."""

FIELD_WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The ladder of the weight of a field. Never 0, because some items have features of this field alone."""


def ladders(kind: str, max_rank: int) -> tuple[Ladder, ...]:
    """Return the ladders of a kind with no rank above ``max_rank``; rungs that become equal are one.

    >>> ladders("als", 50)[1]
    ({'rank': 32}, {'rank': 50})
    """
    capped_ladders = []
    for ladder in LADDERS[kind]:
        rungs: list[Settings] = []
        for rung in ladder:
            capped = rung | {"rank": min(rung["rank"], max_rank)} if "rank" in rung else rung
            if capped not in rungs:
                rungs.append(capped)
        capped_ladders.append(tuple(rungs))
    return tuple(capped_ladders)


def settings_at(steps: tuple[Ladder, ...], position: Position) -> Settings:
    """Return the settings at a position on ladders."""
    settings: Settings = {}
    for ladder, rung in zip(steps, position, strict=True):
        settings |= ladder[rung]
    return settings


def fit_part(kind: str, params: Settings, train: Interactions, features: Features | None, seed: int) -> Recommender:
    """Return a fitted model of a kind; only kinds that need features get them, and only kinds with a seed get it."""
    if "seed" in parameters(kind):
        params = params | {"seed": seed}
    return build(kind, params).fit(train, features if kind in CONTENT else None)


@dataclass(frozen=True)
class Search:
    """Fits models on a trial with settings that climb the ladders of their kind, for some users of the trial.

    ``rows``: the users that settings are compared on. ``field_weights``: weights of the fields of
    the features. Each kind that needs features is tried with and without them, because weights that
    make ``content`` better may harm another kind.
    """

    trial: Trial
    features: Features | None
    rows: np.ndarray
    seed: int
    field_weights: Settings

    def climb(self, kind: str) -> tuple[Settings, np.ndarray, int]:
        """Return the best parameters, the NDCG of all users with them, and the number of settings that were tried.

        The trial keeps the scores of the best model. Alternating models are compared after
        ``QUICK`` sweeps.

        Raises:
            InputError: the model does not fit in memory.
        """
        quick = {"iterations": QUICK} if "iterations" in parameters(kind) else {}
        steps = self._ladders(kind)
        tried: list[Position] = []

        def value(position: Position) -> float:
            tried.append(position)
            return self._mean_ndcg(kind, settings_at(steps, position) | quick)

        params = settings_at(steps, climb([len(ladder) for ladder in steps], value))
        return params, self.trial.cache_scores(kind, self._fit(kind, params)), len(tried)

    def weigh_fields(self) -> Settings:
        """Return field -> weight, for weights other than 1 that make ``content`` better for these users."""
        if self.features is None:
            return {}
        names = list(columns_by_field(self.features))
        if len(names) < 2:
            return {}

        def field_params(position: Position) -> Settings:
            weights = {name: FIELD_WEIGHTS[rung] for name, rung in zip(names, position, strict=True)}
            return {"fields": {name: weight for name, weight in weights.items() if weight != 1}}

        def value(position: Position) -> float:
            return self._mean_ndcg("content", field_params(position))

        return field_params(climb([len(FIELD_WEIGHTS)] * len(names), value, rounds=1))["fields"]

    def _ladders(self, kind: str) -> tuple[Ladder, ...]:
        """Return the ladders of a kind on this trial, the choice of field weights last."""
        max_rank = min(len(self.trial.train.users), len(self.trial.train.items))
        steps = ladders(kind, max_rank)
        if self.field_weights and kind in CONTENT:
            steps = (*steps, ({}, {"fields": self.field_weights}))
        return steps

    def _fit(self, kind: str, params: Settings) -> Recommender:
        return fit_part(kind, params, self.trial.train, self.features, self.seed)

    def _mean_ndcg(self, kind: str, params: Settings) -> float:
        return float(self.trial.judge(self._fit(kind, params), self.rows).mean())
