"""What a hybrid can be made of, and the search for a part's settings on a trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.features.encoding import columns_by_field
from recsys.models import build, parameters
from recsys.models.combining.trial import Place, Trial, climb
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

Settings = dict[str, Any]
Ladder = tuple[Settings, ...]

SCALED: Ladder = tuple({"alpha": 1 / a, "reg": 0.001 * (1 + a) / a, "beta": a} for a in (0.1, 0.03, 0.01, 0.003, 0.001))
"""ALS: λ* = .001 and a rising weight of a like against the rest, in the terms of Rendle et al. 2021."""

LADDERS: dict[str, tuple[Ladder, ...]] = {
    "popular": (),
    "itemknn": (),
    "rp3beta": (),
    "spectral": (),
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
"""Part -> ladders of settings. A search starts in the middle of each and climbs while the trial says so."""

QUICK = 8
"""Sweeps of an alternating model while settings are compared; what is chosen gets as many as it is made for."""

CONTENT = ("content", "attributes", "side_ease", "content_als")


def ladders(kind: str, limit: int) -> tuple[Ladder, ...]:
    """Return the ladders of a kind with no rank above ``limit``; rungs that become alike are one.

    >>> ladders("als", 50)[1]
    ({'rank': 32}, {'rank': 50})
    """
    found = []
    for ladder in LADDERS[kind]:
        capped = [rung | ({"rank": min(rung["rank"], limit)} if "rank" in rung else {}) for rung in ladder]
        found.append(tuple(rung for place, rung in enumerate(capped) if rung not in capped[:place]))
    return tuple(found)


def settings(steps: tuple[Ladder, ...], place: Place) -> Settings:
    """Return the settings of a place on ladders."""
    return {key: value for ladder, at in zip(steps, place, strict=True) for key, value in ladder[at].items()}


def fitted(kind: str, params: Settings, train: Interactions, told: Features | None, seed: int) -> Recommender:
    """Return a fitted part; only those that need features are given any."""
    own = {"seed": seed} if "seed" in parameters(kind) else {}
    return build(kind, params | own).fit(train, told if kind in CONTENT else None)


class Search:
    """Fits parts on a trial with the settings that climb their ladders for some of its users.

    ``fields``: weights of the fields of the features, which each part that has features takes or leaves: what makes
    ``content`` better may harm another.
    """

    def __init__(self, trial: Trial, told: Features | None, rows: np.ndarray, seed: int, fields: Settings) -> None:
        self.trial, self.told, self.rows, self.seed, self.fields = trial, told, rows, seed, fields
        self.limit = min(len(trial.train.users), len(trial.train.items))

    def _steps(self, kind: str) -> tuple[Ladder, ...]:
        own: tuple[Ladder, ...] = (({}, {"fields": self.fields}),) if self.fields and kind in CONTENT else ()
        return (*ladders(kind, self.limit), *own)

    def climb(self, kind: str) -> tuple[Settings, np.ndarray, int]:
        """Return the best parameters, the NDCG of all users with them, and how many were tried.

        The trial keeps the opinions of the best model. Alternating models are compared after ``QUICK`` sweeps.

        Raises:
            InputError: the part does not fit in memory.
        """
        quick = {"iterations": QUICK} if "iterations" in parameters(kind) else {}
        steps = self._steps(kind)
        tried: list[Place] = []

        def value(place: Place) -> float:
            tried.append(place)
            return float(self.trial.judge(self._fitted(kind, settings(steps, place) | quick), self.rows).mean())

        params = settings(steps, climb([len(ladder) for ladder in steps], value))
        return params, self.trial.listen(kind, self._fitted(kind, params)), len(tried)

    def _fitted(self, kind: str, params: Settings) -> Recommender:
        return fitted(kind, params, self.trial.train, self.told, self.seed)

    def weigh_fields(self) -> Settings:
        """Return field -> weight, where weights other than 1 make ``content`` better for these users."""
        names = list(columns_by_field(self.told)) if self.told is not None else []
        ladder = (0.1, 0.3, 1.0, 3.0, 10.0)  # never 0: an item that is known by this field alone stays known

        def params(place: Place) -> Settings:
            return {"fields": {name: ladder[at] for name, at in zip(names, place, strict=True) if ladder[at] != 1}}

        def value(place: Place) -> float:
            return float(self.trial.judge(self._fitted("content", params(place)), self.rows).mean())

        return params(climb([len(ladder)] * len(names), value, rounds=1))["fields"] if len(names) > 1 else {}
