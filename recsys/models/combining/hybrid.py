"""A blend that chooses its parts, their settings and their weights on a part of train."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.errors import ConfigError, InputError
from recsys.features.encoding import shuffle_features
from recsys.models.combining.blend import LENGTHS, Blended, How, among, lengths, mix, reordered, unliked
from recsys.models.combining.search import CONTENT, LADDERS, Search, Settings, fitted
from recsys.models.combining.trial import Trial, gain, hide_items, hide_pairs
from recsys.parameters import STRICT
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

LEAST_USERS = 60
"""Fewer users to learn from, and there is nothing to choose by; half of them for a group of history lengths."""


@dataclass(config=STRICT)
class Hybrid(Blended):
    """Chooses among models, their settings and their blends on a part of train, then fits the choice on all of it.

    Each part's settings climb their ladders on half of the users of a trial (20 % of the likes hidden, the newest where
    times are known; see ``combining.trial``); then parts are blended one by one while that helps. Blends chosen
    on one half must beat the best single part on the other, both ways round together, with the 95 % interval of the
    difference above 0, else the part alone is the model: *do no harm*. Groups of history length get weights of their
    own under the same condition. New items with features, where the base has any, are ordered among themselves by
    weights from a trial that hides whole items, unless that is shown to harm the first trial; among new items no part
    is the safe one, so what is better in the mean is used. Where no part of the choice knows them they come last. The
    fields of the features are weighed too, by ``content`` on new items, and each part takes those weights or leaves
    them. With too few users to choose by (everyone has one event, say) it leans on content.

    ``record`` says what was tried, what was chosen and why, with the ablation: best collaborative part, best content
    part, the choice, and the choice with features shuffled among the rows that have them.

    ``parts``: kinds to choose among; empty: all. ``how``: as in :class:`Blended`, while choosing too. ``users``: how
    many a trial asks; fewer (but 60) where what every part tells each of them of each item, 8 bytes (4 kept, and as
    much again while choosing), would not fit in ``memory_mb``. Cost: some eighty fits; parts that do not fit in memory
    are left out and named in ``record``. Where the choice meets its limit on all of train, the best part that fits
    takes its place.
    """

    parts: list[str] = Field(default_factory=list)
    how: How = "standard"
    users: Annotated[int, Field(ge=LEAST_USERS)] = 2000
    memory_mb: Annotated[int, Field(ge=1)] = 4096
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
        trial = replace(hide_pairs(train, 0.2, self._asked(train, kinds), self.seed), how=self.how)
        if len(trial.users) < LEAST_USERS:
            weights, by_group, cold = self._lean(kinds, len(trial.users))
        else:
            weights, by_group, cold = self._choose(trial, train, told, kinds)
        self.members = {}
        for kind in dict.fromkeys([*weights, *(p for w in by_group.values() for p in w), *cold]):
            self._join(kind, train, told)
        weights = self._left(weights)
        for kind in sorted(kinds, key=self._worth, reverse=True):
            if not weights and kind not in self.record["left_out"]:
                self._join(kind, train, told)
                weights = self._left({kind: 1.0})
        if not weights:
            raise ConfigError(f"model 'hybrid': no part could be fitted: {self.record['left_out']}")
        by_group = {g: own for g, w in by_group.items() if (own := self._left(w))}
        self._settle(weights, by_group, self._left(cold))
        return self

    def _join(self, kind: str, train: Interactions, told: Features | None) -> None:
        """Fit a part on all of train, or note that it does not fit there."""
        try:
            self.members[kind] = self._fitted(kind, train, told)
        except InputError as error:
            self.record["left_out"][kind] = str(error)

    def _left(self, weights: dict[str, float]) -> dict[str, float]:
        return {kind: weight for kind, weight in weights.items() if kind in self.members}

    def _worth(self, kind: str) -> tuple[bool, float]:
        """Return how early a part takes the place of a choice that does not fit; ``attributes`` had another trial."""
        return kind != "attributes", self.record["parts"].get(kind, {}).get("ndcg@100", -1.0)

    def _fitted(self, kind: str, train: Interactions, told: Features | None) -> Recommender:
        """Return a part with the settings chosen for it."""
        return fitted(kind, self.record["parts"].get(kind, {}).get("params", {}), train, told, self.seed)

    def _asked(self, train: Interactions, kinds: list[str]) -> int:
        """Return how many users a trial may ask."""
        return min(self.users, max(LEAST_USERS, self.memory_mb * 2**20 // (8 * len(kinds) * len(train.items))))

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
        fresh = self._new_items(train, told, kinds)
        fields = self._weigh_fields(fresh or trial, told) if set(kinds) & set(CONTENT) else {}
        search = Search(trial, told, half, self.seed, fields)
        values: dict[str, np.ndarray] = {}
        for kind in [kind for kind in kinds if kind != "attributes"] or kinds:  # it is ALS among known items
            self._climb(kind, search, values)
        if not values:
            raise ConfigError(f"model 'hybrid': no part could be fitted: {self.record['left_out']}")
        weights, why = self._checked(trial, half, check, None)
        self.record |= {"why": why, "users": len(trial.users), "metric": "ndcg@100 on hidden likes"}
        by_group = self._choose_by_length(trial, half, check, weights)
        cold = self._choose_cold(fresh, search, kinds, weights) if fresh else {}
        self._ablate(trial, told, weights, by_group, values)
        return weights, by_group, cold

    def _new_items(self, train: Interactions, told: Features | None, kinds: list[str]) -> Trial | None:
        """Return a trial on new items, where the base has new items with features and users to ask about them."""
        able = told is not None and set(kinds) & set(CONTENT)
        if not able or told is None or not (self.cold_ & (np.diff(told.matrix.indptr) > 0)).any():
            return None
        trial = replace(hide_items(train, 0.2, self._asked(train, kinds), self.seed), how=self.how)
        return trial if len(trial.users) >= LEAST_USERS else None

    def _weigh_fields(self, trial: Trial, told: Features | None) -> Settings:
        """Return field -> weight, chosen with ``content`` on some users; none where other users do not agree."""
        half, check = trial.halves(self.seed)
        if told is None:
            return {}
        chosen = Search(trial, told, half, self.seed, {}).weigh_fields()
        if chosen:
            with_them, without = (
                trial.judge(fitted("content", params, trial.train, told, self.seed), check)
                for params in ({"fields": chosen}, {})
            )
            self.record["fields"] = {"weights": chosen, "against all 1": gain(with_them, without, self.seed)}
            if self.record["fields"]["against all 1"]["mean"] <= 0:
                return {}
        return chosen

    def _climb(self, kind: str, search: Search, values: dict[str, np.ndarray]) -> None:
        """Search a part's settings; note its values and what was chosen, or that it does not fit."""
        try:
            params, values[kind], tried = search.climb(kind)
        except InputError as error:
            self.record["left_out"][kind] = str(error)
        else:
            self.record["parts"][kind] = {"params": params, "ndcg@100": float(values[kind].mean()), "tried": tried}

    def _choose_by_length(
        self, trial: Trial, half: np.ndarray, check: np.ndarray, weights: dict[str, float]
    ) -> dict[int, dict[str, float]]:
        """Return group of history lengths -> weights, for the groups that are shown to need weights of their own."""
        group, found = lengths(trial.histories), {}
        for g in range(len(LENGTHS) + 1):
            own, other = half[group[half] == g], check[group[check] == g]
            if min(len(own), len(other)) >= LEAST_USERS // 2:
                chosen, reason = self._checked(trial, own, other, weights)
                if chosen != weights:
                    found[g] = chosen
                    self.record.setdefault("by_history", {})[g] = {"weights": chosen, "why": reason}
        return found

    def _checked(
        self, trial: Trial, half: np.ndarray, check: np.ndarray, start: dict[str, float] | None, sure: bool = True
    ) -> tuple[dict[str, float], str]:
        """Return the best blend if choosing one is shown to beat ``start`` (None: the best part), else that; and why.

        Shown by what is chosen on one half and valued on the other, both ways round, so that every user has a say. Not
        ``sure``: the mean difference decides, not its interval.
        """
        both = np.union1d(half, check)
        safe = start or trial.choose(both, steps=0)
        ways = [(trial.choose(own, safe), other) for own, other in ((half, check), (check, half))]
        if all(chosen == safe for chosen, _ in ways):
            return safe, f"no blend beats {_say(safe)} on either half of the users"
        new = np.concatenate([trial.blend(chosen, other) for chosen, other in ways])
        old = np.concatenate([trial.blend(safe, other) for _, other in ways])
        better = gain(new, old, self.seed)
        told = f"blends chosen on half of the users against {_say(safe)} on the others: {better['mean']:+.4f}"
        told += f" [{better['low']:+.4f}, {better['high']:+.4f}]"
        if better["low" if sure else "mean"] <= 0:
            return safe, f"{told}: not shown to help, so not used"
        return trial.choose(both, safe), told

    def _choose_cold(
        self, fresh: Trial, search: Search, kinds: list[str], weights: dict[str, float]
    ) -> dict[str, float]:
        """Return weights that order new items among themselves, none where the other trial shows that they harm.

        Parts keep the settings of the other trial; ``attributes``, which speaks of new items alone, gets its own here.
        """
        half, check = fresh.halves(self.seed)
        if "attributes" in kinds:
            self._climb("attributes", Search(fresh, search.told, half, self.seed, search.fields), {})
        for kind in kinds:
            if kind in CONTENT and kind != "attributes" and kind not in self.record["left_out"]:
                fresh.listen(kind, self._fitted(kind, fresh.train, search.told))
        if not fresh.scores:
            return {}
        chosen, why = self._checked(fresh, half, check, None, sure=False)
        self.record["new_items"] = {"weights": chosen, "why": why, "users": len(fresh.users)}
        harm = self._harm(search.trial, search.told, weights, chosen)
        self.record["new_items"]["among all items"] = harm
        return chosen if harm["high"] >= 0 else {}

    def _harm(
        self, trial: Trial, told: Features | None, weights: dict[str, float], cold: dict[str, float]
    ) -> dict[str, float]:
        """Return what it gains, among all items, to order those that nobody likes by weights of their own."""
        if "attributes" in cold:
            trial.listen("attributes", self._fitted("attributes", trial.train, told))
        plain = trial.mixed(weights)
        new = np.flatnonzero(unliked(trial.train))
        own = ((among(trial.scores[p], new, self.how), np.full(len(plain), w)) for p, w in cold.items())
        order = mix(own, (len(plain), len(new)))
        return gain(trial.value(reordered(plain, new, order)), trial.value(plain), self.seed)

    def _ablate(
        self,
        trial: Trial,
        told: Features | None,
        weights: dict[str, float],
        by_group: dict[int, dict[str, float]],
        values: dict[str, Any],
    ) -> None:
        """Record the choice against its best collaborative part, and against itself with shuffled features."""
        means = {kind: float(v.mean()) for kind, v in values.items()}
        crowd = max((k for k in means if k not in CONTENT), key=lambda k: means[k], default=None)
        content = max((k for k in means if k in CONTENT), key=lambda k: means[k], default=None)
        group = lengths(trial.histories)

        def blended() -> np.ndarray:
            whole = trial.blend(weights)
            for g, own in by_group.items():
                rows = np.flatnonzero(group == g)
                whole[rows] = trial.blend(own, rows)
            return whole

        chosen = blended()
        found: dict[str, Any] = {"hybrid": float(chosen.mean())}
        for name, kind in (("collaborative", crowd), ("content", content)):
            if kind:
                found[name] = {"part": kind, "mean": means[kind], "hybrid_minus_it": gain(chosen, values[kind])}
        used = {kind for own in (weights, *by_group.values()) for kind in own if kind in CONTENT}
        if self.placebo and used and told is not None:
            mixed = shuffle_features(told, self.seed)
            for kind in sorted(used):
                trial.listen(kind, self._fitted(kind, trial.train, mixed))
            placebo = blended()
            found["shuffled"] = {"mean": float(placebo.mean())}
            if crowd:
                found["shuffled"]["minus_collaborative"] = gain(placebo, values[crowd])
        self.record["ablation"] = found

    def _settle(self, weights: dict[str, float], by_group: dict[int, dict[str, float]], cold: dict[str, float]) -> None:
        groups = [by_group.get(g, weights) for g in range(len(LENGTHS) + 1)]
        self.weights_ = np.array([[group.get(name, 0.0) for name in self.members] for group in groups])
        self.cold_weights_ = np.array([cold.get(name, 0.0) for name in self.members])
        self.record["weights"] = weights


def _say(weights: dict[str, float]) -> str:
    return " + ".join(kind if weight == 1 else f"{weight:g} {kind}" for kind, weight in weights.items())
