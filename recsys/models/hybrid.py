"""Recommenders made of recommenders. NaN means no opinion, so cold start is composition."""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.sparse import csr_array

from recsys.data.features import shuffled
from recsys.errors import ConfigError, InputError
from recsys.models.blend import LENGTHS, Blended, How, lengths, unliked
from recsys.models.popular import STRICT
from recsys.models.trial import Trial, gain, hide_items, hide_pairs
from recsys.types import Features, Interactions, Recommender

Settings = dict[str, Any]


class Cascade:
    """Hands each user, as a whole, to the first model with an opinion; never mixes two models in one list.

    >>> from recsys.models import build
    >>> Cascade({"als": build("als", {}), "popular": build("popular", {})}).sources
    ('als', 'popular')
    """

    def __init__(self, models: dict[str, Recommender]) -> None:
        self.models = models

    @property
    def sources(self) -> tuple[str, ...]:
        """The models' names, in order."""
        return tuple(self.models)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit every model."""
        for model in self.models.values():
            model.fit(train, features)
        return self

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]: each row from the first model that knows it, NaN where none does."""
        users = np.arange(histories.shape[0]) if users is None else users
        speaker = self.speaker(histories)
        if len(self.models) and (speaker == 0).all():  # the common case needs no copy
            return next(iter(self.models.values())).score(histories, users)
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        for place, model in enumerate(self.models.values()):
            rows = np.flatnonzero(speaker == place)
            if len(rows):
                scores[rows] = model.score(histories[rows], users[rows])
        return scores

    def source(self, histories: csr_array, items: np.ndarray) -> np.ndarray:
        """Return int8[m, k], the position in ``sources`` of the model that spoke for each row."""
        return np.broadcast_to(self.speaker(histories)[:, None], items.shape)

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: some model has an opinion on the row."""
        return self.speaker(histories) >= 0

    def speaker(self, histories: csr_array) -> np.ndarray:
        """Return int8[m]: the first model that knows each row, -1 where none does."""
        speaker = np.full(histories.shape[0], -1, dtype=np.int8)
        for place, model in enumerate(self.models.values()):
            open_ = np.flatnonzero(speaker < 0)
            if not len(open_):
                break
            speaker[open_[knows(model, histories[open_])]] = place
        return speaker


def knows(model: Recommender, histories: csr_array) -> np.ndarray:
    """Return bool[m]: the model has an opinion on some item for the row. Asks ``model.knows`` where it exists."""
    if hasattr(model, "knows"):
        return model.knows(histories)
    return np.isfinite(model.score(histories)).any(axis=1)


LADDERS: dict[str, tuple[tuple[Settings, ...], ...]] = {
    "popular": (),
    "itemknn": (),
    "rp3beta": (),
    "spectral": (),
    "ease": (({"reg": 50.0}, {"reg": 200.0}, {"reg": 800.0}),),
    "als": (
        ({"rank": 32}, {"rank": 64}, {"rank": 128}),
        ({"alpha": 1.0}, {"alpha": 10.0}, {"alpha": 30.0, "reg": 0.03, "beta": 0.03, "iterations": 8}),
    ),
    "content": ((*({"scheme": scheme} for scheme in ("bm25", "tfidf", "raw")),),),
    "attributes": (
        ({"ridge": 1.0}, {"ridge": 3.0}, {"ridge": 10.0}),
        ({"alpha": 1.0, "rank": 128}, {"alpha": 10.0, "rank": 128}),
    ),
    "side_ease": (
        ({"reg": 0.1}, {"reg": 0.3}, {"reg": 1.0}, {"reg": 3.0}, {"reg": 10.0}, {"reg": 30.0}),
        ({"content": 0.5}, {"content": 1.0}, {"content": 2.0}, {"content": 4.0}, {"content": 8.0}),
    ),
    "content_als": (
        tuple({"alpha": 1 / a, "reg": 0.001 / a, "beta": a, "iterations": 8} for a in (0.03, 0.01, 0.003, 0.001)),
        ({"rank": 64}, {"rank": 128}, {"rank": 256}),
    ),
}
"""Part -> ladders of settings. A search starts in the middle of each and climbs while the trial says so."""

CONTENT = ("content", "attributes", "side_ease", "content_als")
NEW = "new items: "
"""Opens the name of a part whose settings were chosen for new items."""

LEAST_USERS = 60
"""Fewer users to learn from, and there is nothing to choose by; half of them for a group of history lengths."""


@dataclass(config=STRICT)
class Hybrid(Blended):
    """Chooses among models, their settings and their blends on a part of train, then fits the choice on all of it.

    Each part's settings climb their ladders on half of the users of a trial (20 % of the likes hidden; see
    :mod:`recsys.models.trial`); then parts are blended one by one while that helps. The blend must beat the best single
    part on the other half, with the 95 % interval of the difference above 0, else the part alone is the model: *do no
    harm*. Groups of history length get weights of their own under the same condition; so do new items, on a trial that
    hides whole items, where the base has new items with features. With too few users to choose by (everyone has one
    event, say) it leans on content.

    ``record`` says what was tried, what was chosen and why, with the ablation: best collaborative part, best content
    part, the choice, and the choice with features shuffled among the rows that have them.

    ``parts``: kinds to choose among; empty: all. Cost: some twenty fits; parts that do not fit in memory are left
    out and named in ``record``.
    """

    parts: list[str] = Field(default_factory=list)
    how: How = "standard"
    users: Annotated[int, Field(ge=2)] = 1000
    placebo: bool = True
    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Choose, then fit the choice on all of ``train``.

        Raises:
            ConfigError: ``parts`` names no kind that a hybrid can use, or none that fits.
        """
        told = features if features is not None and features.matrix.nnz else None
        kinds = self._kinds(told)
        self.cold_ = unliked(train)
        self.record: dict[str, Any] = {"parts": {}, "left_out": {}}
        trial = hide_pairs(train, 0.2, self.users, self.seed)
        if len(trial.users) < LEAST_USERS:
            weights, by_group, cold = self._lean(kinds, len(trial.users))
        else:
            weights, by_group, cold = self._choose(trial, train, told, kinds)
        names = list(dict.fromkeys([*weights, *(p for w in by_group.values() for p in w), *cold]))
        self._settle(names, weights, by_group, cold)
        self.models = {name: self._fitted(*self._plan(name), train, told) for name in names}
        return self

    def _plan(self, name: str) -> tuple[str, Settings]:
        """Return the kind and the settings of a part; parts for new items have settings of their own."""
        kind = name.removeprefix(NEW)
        source = self.record["new_items"]["parts"] if name.startswith(NEW) else self.record["parts"]
        return kind, source.get(kind, {}).get("params", {})

    def _kinds(self, told: Features | None) -> list[str]:
        strangers = [kind for kind in self.parts if kind not in LADDERS]
        if strangers:
            raise ConfigError(f"model 'hybrid': no part {strangers[0]!r}; it can use {', '.join(LADDERS)}")
        kinds = [kind for kind in self.parts or LADDERS if told is not None or kind not in CONTENT]
        if not kinds:
            raise ConfigError("model 'hybrid': all of its parts need item features: give [data] items a table.")
        return kinds

    def _lean(self, kinds: list[str], users: int) -> tuple[dict[str, float], dict[int, dict[str, float]], dict]:
        """Return the weights for a base that has nothing to choose by."""
        lean = [kind for kind in ("side_ease", "content_als") if kind in kinds] or kinds[:1]
        self.record["why"] = f"only {users} users have likes to spare for a trial, fewer than {LEAST_USERS}: " + (
            "it leans on content, without a choice" if set(lean) & set(CONTENT) else "the first part, without a choice"
        )
        return dict.fromkeys(lean, 1.0), {}, {}

    def _choose(
        self, trial: Trial, train: Interactions, told: Features | None, kinds: list[str]
    ) -> tuple[dict[str, float], dict[int, dict[str, float]], dict[str, float]]:
        half, check = trial.halves(self.seed)
        values = {}
        for kind in kinds:
            if kind == "attributes":  # among known items it is ALS
                continue
            found = self._climb(kind, trial, told, half)
            if found is not None:
                values[kind] = found
        if not values:
            raise ConfigError(f"model 'hybrid': no part could be fitted: {self.record['left_out']}")
        weights, why = self._checked(trial, half, check, None)
        self.record |= {"why": why, "users": len(trial.users), "metric": "ndcg@100 on hidden likes"}
        group = lengths(trial.histories)
        by_group = {}
        for g in range(len(LENGTHS) + 1):
            own, other = half[group[half] == g], check[group[check] == g]
            if min(len(own), len(other)) >= LEAST_USERS // 2:
                chosen, reason = self._checked(trial, own, other, weights)
                if chosen != weights:
                    by_group[g] = chosen
                    self.record.setdefault("by_history", {})[g] = {"weights": chosen, "why": reason}
        self._ablate(trial, told, weights, values)
        return weights, by_group, self._choose_cold(train, told, kinds)

    def _climb(self, kind: str, trial: Trial, told: Features | None, half: np.ndarray) -> np.ndarray | None:
        """Fit a part with the settings that climb its ladders; keep the best one's opinions in the trial."""
        ladders = LADDERS[kind]
        place = [len(ladder) // 2 for ladder in ladders]
        tried: dict[tuple[int, ...], tuple[float, np.ndarray, np.ndarray]] = {}

        def value(at: list[int]) -> float:
            if tuple(at) not in tried:
                model = self._fitted(kind, _settings(ladders, at), trial.train, told)
                all_users = trial.listen(kind, model)
                tried[tuple(at)] = float(all_users[half].mean()), all_users, trial.scores.pop(kind)
                for worse in sorted(tried, key=lambda t: -tried[t][0])[1:]:  # only the best one's opinions are kept
                    tried[worse] = (*tried[worse][:2], np.empty(0))
            return tried[tuple(at)][0]

        try:
            value(place)
            for axis, ladder in enumerate(ladders):
                for step in (1, -1):
                    while 0 <= place[axis] + step < len(ladder):
                        there = [*place[:axis], place[axis] + step, *place[axis + 1 :]]
                        if value(there) <= value(place):
                            break
                        place = there
        except InputError as error:
            self.record["left_out"][kind] = str(error)
            return None
        _, values, trial.scores[kind] = tried[tuple(place)]
        self.record["parts"][kind] = {
            "params": _settings(ladders, place),
            "ndcg@100": float(values.mean()),
            "tried": len(tried),
        }
        return values

    def _checked(
        self, trial: Trial, half: np.ndarray, check: np.ndarray, start: dict[str, float] | None
    ) -> tuple[dict[str, float], str]:
        """Return the blend chosen on ``half`` if it beats ``start`` (None: the best part) on ``check``, and why."""
        safe = start or trial.choose(np.union1d(half, check), steps=0)
        chosen = trial.choose(half, safe)
        if chosen == safe:
            return safe, f"no blend beats {_say(safe)} on the users chosen on"
        better = gain(trial.blend(chosen, check), trial.blend(safe, check), self.seed)
        told = f"{_say(chosen)} against {_say(safe)} on other users: {better['mean']:+.4f}"
        told += f" [{better['low']:+.4f}, {better['high']:+.4f}]"
        return (chosen, told) if better["low"] > 0 else (safe, f"{told}: not shown to help, so it is not used")

    def _choose_cold(self, train: Interactions, told: Features | None, kinds: list[str]) -> dict[str, float]:
        """Return weights for new items, none when there are none or too few users to choose by."""
        able = [kind for kind in kinds if kind in CONTENT]
        if told is None or not able or not (self.cold_ & (np.diff(told.matrix.indptr) > 0)).any():
            return {}
        trial = hide_items(train, 0.2, self.users, self.seed)
        if len(trial.users) < LEAST_USERS:
            return {}
        half, check = trial.halves(self.seed)
        parts = self.record["parts"]
        self.record["parts"] = {}
        for kind in able:
            self._climb(kind, trial, told, half)
        new, self.record["parts"] = self.record["parts"], parts
        weights, why = self._checked(trial, half, check, None)
        self.record["new_items"] = {"weights": weights, "why": why, "users": len(trial.users), "parts": new}
        same = {kind for kind in weights if new[kind]["params"] == parts.get(kind, {}).get("params")}
        return {kind if kind in same else NEW + kind: weight for kind, weight in weights.items()}

    def _ablate(self, trial: Trial, told: Features | None, weights: dict[str, float], values: dict[str, Any]) -> None:
        """Record the choice against its best collaborative part, and against itself with shuffled features."""
        means = {kind: float(v.mean()) for kind, v in values.items()}
        crowd = max((k for k in means if k not in CONTENT), key=lambda k: means[k], default=None)
        content = max((k for k in means if k in CONTENT), key=lambda k: means[k], default=None)
        chosen = trial.blend(weights)
        found: dict[str, Any] = {"hybrid": float(chosen.mean())}
        for name, kind in (("collaborative", crowd), ("content", content)):
            if kind:
                found[name] = {"part": kind, "mean": means[kind], "hybrid_minus_it": gain(chosen, values[kind])}
        used = [kind for kind in weights if kind in CONTENT]
        if self.placebo and used and told is not None:
            mixed = shuffled(told, self.seed)
            for kind in used:
                trial.listen(kind, self._fitted(kind, self.record["parts"][kind]["params"], trial.train, mixed))
            placebo = trial.blend(weights)
            found["shuffled"] = {"mean": float(placebo.mean())}
            if crowd:
                found["shuffled"]["minus_collaborative"] = gain(placebo, values[crowd])
        self.record["ablation"] = found

    def _settle(
        self, names: list[str], weights: dict[str, float], by_group: dict[int, dict[str, float]], cold: dict[str, float]
    ) -> None:
        groups = [by_group.get(g, weights) for g in range(len(LENGTHS) + 1)]
        self.weights_ = np.array([[group.get(name, 0.0) for name in names] for group in groups])
        self.cold_weights_ = np.array([cold.get(name, 0.0) for name in names])
        self.record["weights"] = weights

    def _fitted(self, kind: str, settings: Settings, train: Interactions, told: Features | None) -> Recommender:
        from recsys.models import build, parameters

        seed = {"seed": self.seed} if "seed" in parameters(kind) else {}
        return build(kind, settings | seed).fit(train, told if kind in CONTENT else None)


def _settings(ladders: tuple[tuple[Settings, ...], ...], place: list[int]) -> Settings:
    return {key: value for ladder, at in zip(ladders, place, strict=True) for key, value in ladder[at].items()}


def _say(weights: dict[str, float]) -> str:
    return " + ".join(kind if weight == 1 else f"{weight:g} {kind}" for kind, weight in weights.items())
