"""The model ``hybrid``: a blend that chooses its members, settings and weights by trials on train."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.features.encoding import shuffle_features
from recsys.linalg import one_blas_thread
from recsys.logging import logger
from recsys.models.combining.blend import (
    LENGTHS,
    Blended,
    Scaling,
    length_groups,
    reassign_scores,
    rescale_columns,
    unliked_items,
    weighted_mean,
)
from recsys.models.combining.search import (
    CHEAP_SHARE,
    CONTENT,
    LADDERS,
    SECOND,
    Attempt,
    Deadline,
    Search,
    Settings,
    fit_part,
    kind_of,
    uses_features,
)
from recsys.models.combining.trial import Trial, gain, hide_items, hide_latest, hide_pairs
from recsys.parameters import STRICT
from recsys.recommender import Recommender
from recsys.types import Features, Interactions

MIN_USERS = 60
"""Smallest number of users of a trial; with fewer, a hybrid makes no trial.

A group of users with similar history lengths gets its own weights only if each half of the trial
has at least ``MIN_USERS / 2`` users of the group.
"""

HIDDEN_SHARE = 0.2
"""The share of likes, of events or of items that a trial of a hybrid hides."""

WORKING_ARRAYS = 6
"""Number of arrays of float32[users, items] that a trial has in memory besides the scores of each kind."""

ACCEPTED_LOSS = 0.005
"""Largest relative loss of NDCG for which a better order of new items is still accepted.

The NDCG is that of lists of all items.
"""

SEARCH_SHARE = 0.5
"""The share of the parameter ``minutes`` after which a hybrid tries no further setting.

The rest of the time is for the fits on all of train.
"""

Weights = dict[str, float]
"""Name of a member -> its weight in a blend. The name is the kind of the model, or that with ``SECOND``."""


@plain_dataclass(frozen=True)
class Choice:
    """The weights that a hybrid has chosen.

    Attributes:
        weights: the general weights.
        by_group: number of a group of users by history length (``blend.length_groups``) -> the
            weights that replace the general ones for this group.
        new_items: the weights that order the new items relative to each other.
    """

    weights: Weights
    by_group: dict[int, Weights] = field(default_factory=dict)
    new_items: Weights = field(default_factory=dict)

    def names(self) -> list[str]:
        """Return the names of all members that occur in the three sets of weights, each once.

        Those of ``weights`` are first, then those of ``by_group``, then those of ``new_items``.
        """
        of_groups = [name for weights in self.by_group.values() for name in weights]
        return list(dict.fromkeys([*self.weights, *of_groups, *self.new_items]))


@dataclass(config=STRICT)
class Hybrid(Blended):
    """Blend that chooses its models, their settings and their weights by trials on a part of train.
    The chosen models, its *members*, are then fitted on all of train.

    1. *Settings.* A trial hides 20 % of the likes, in the way that ``hold_out`` names (see
       ``combining.trial``). Each kind is fitted once. Then the settings of the best kind with and of the
       best without content, and of those that are cheap to fit, are improved step by step, judged on
       half of the trial's users. Then those of the other members of the best blend are improved.
       The best kind may get a second member, with other settings and the name of the kind and
       ``_2``.
    2. *Weights.* Members are added to a blend one by one as long as each addition helps. A blend that
       is chosen on one half of the users must beat the best single member on the other half. This is
       done in both directions, and the 95 % interval of the pooled difference must be above 0. Then
       the mean of the two blends is used. Otherwise the best single member is used alone. Groups of
       history length get their own weights under the same condition.
    3. *New items.* If train has new items with features, a second trial hides whole items and chooses
       the weights that order new items relative to each other. Here the better mean decides, because
       no single member is a safe default. But the weights are not used if the first trial shows that
       they harm. If no member scores new items, they come last.
    4. *Fields.* The weights of the feature fields are chosen with ``content`` on new items. Each kind
       is tried with and without them.

    If there are too few users for a trial (for example because each has one event), content models
    are used without a trial. If a chosen member does not fit in memory on all of train, the best
    member that does fit replaces it.

    ``record`` says what was tried, what was chosen and why. It includes an ablation: the results of
    the best collaborative member, of the best content member, of the choice, and of the choice with
    shuffled features.

    A fit takes some fifty fits on most of train, cheap kinds first, and one fit of each chosen kind
    on all of train. After half of ``minutes`` no further setting is tried. A fit that is stopped by
    this limit may choose differently on another machine, and ``record`` says so. Models that do not
    fit in memory, or that invert a matrix so large that one fit would take more than about a tenth
    of the search, are left out and named in ``record``. A trial has fewer than ``users`` users (but
    at least 60) if the scores of all members for these users, at 4 bytes per score, and
    :data:`WORKING_ARRAYS` arrays of the same size would not fit in ``memory_mb``.
    """

    parts: Annotated[
        list[str],
        Field(description="kinds of models to choose among; empty: all of them"),
    ] = Field(default_factory=list)
    scaling: Scaling = "standard"
    users: Annotated[int, Field(ge=MIN_USERS, description="number of users in a trial, at most")] = 2000
    memory_mb: Annotated[
        int,
        Field(ge=1, description="memory for the scores of a trial, in MiB; a trial has fewer users if they need more"),
    ] = 4096
    placebo: Annotated[bool, Field(description="whether the ablation has the choice with shuffled features")] = True
    hold_out: Annotated[
        Literal["newest", "latest", "random"],
        Field(
            description="what the trial hides: newest (the newest likes of each user), latest (all events after a"
            " time) or random (any likes of each user); a run takes what is like its split, unless it is set"
        ),
    ] = "newest"
    minutes: Annotated[
        float, Field(gt=0, description="minutes for a fit, about; after half of them no other setting is tried")
    ] = 30.0
    seed: Annotated[int, Field(ge=0, description="seed of the trials and of every member that has one")] = 0

    def __post_init__(self) -> None:
        """Check the kinds.

        Raises:
            ConfigError: ``parts`` names kinds that a hybrid cannot use. The message has a line for each.
        """
        problems = [
            f"model 'hybrid': parts: it cannot use '{kind}'.{suggest_nearest(kind, LADDERS)}"
            for kind in self.parts
            if kind not in LADDERS
        ]
        if problems:
            raise ConfigError("\n".join(problems))

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Choose members, settings and weights, fit the members on all of ``train``, and return the
        model.

        Raises:
            ConfigError: all parts need features and there are none, or no kind could be fitted.
        """
        # A trial makes many small products between compiled loops, and threads of BLAS would still
        # occupy the cores when the next loop starts.
        with one_blas_thread():
            return self._fit(train, features)

    def _fit(self, train: Interactions, features: Features | None) -> Self:
        """Do what :meth:`fit` does."""
        if features is not None and not features.matrix.nnz:
            features = None
        kinds = self._usable_kinds(features)
        self.cold_ = unliked_items(train)
        self.record: dict[str, Any] = {"parts": {}, "left_out": {}}
        deadline = Deadline(SEARCH_SHARE * self.minutes)
        trial = self._trial(train, kinds)
        if len(trial.users) < MIN_USERS:
            choice = Choice(self._default_weights(kinds, len(trial.users)))
        else:
            choice = self._choose(trial, train, features, kinds, deadline)
        self.members = {}
        for name in choice.names():
            self._fit_part(name, train, features)
        weights = self._fitted_only(choice.weights)
        for kind in sorted(kinds, key=self._replacement_order, reverse=True):
            if not weights and kind not in self.record["left_out"]:
                self._fit_part(kind, train, features)
                weights = self._fitted_only({kind: 1.0})
        if not weights:
            raise ConfigError(f"model 'hybrid': no part could be fitted: {self.record['left_out']}")
        by_group = {group: self._fitted_only(own_weights) for group, own_weights in choice.by_group.items()}
        by_group = {group: own_weights for group, own_weights in by_group.items() if own_weights}
        self._store_weights(Choice(weights, by_group, self._fitted_only(choice.new_items)))
        return self

    def _usable_kinds(self, features: Features | None) -> list[str]:
        """Return the kinds of models to choose from. Without features, kinds that need them are left out.

        Raises:
            ConfigError: no kind is left.
        """
        kinds = [kind for kind in self.parts or LADDERS if features is not None or kind not in CONTENT]
        if not kinds:
            raise ConfigError("model 'hybrid': all of its parts need item features: give [data] items a table.")
        return kinds

    def _trial(self, train: Interactions, kinds: list[str]) -> Trial:
        """Return the trial on which settings and weights are chosen."""
        size = self._trial_size(train, kinds)
        trial = hide_pairs(train, HIDDEN_SHARE, size, self.seed, newest=self.hold_out != "random")
        if self.hold_out == "latest":
            by_time = hide_latest(train, HIDDEN_SHARE, size, self.seed)
            # Few users may have events on both sides of a time.
            if len(by_time.users) >= MIN_USERS:
                trial = by_time
        return replace(trial, scaling=self.scaling)

    def _trial_size(self, train: Interactions, kinds: list[str]) -> int:
        """Return the largest number of users that a trial may have."""
        # One kind may have a second member.
        arrays = len(kinds) + 1 + WORKING_ARRAYS
        fitting = self.memory_mb * 2**20 // (4 * arrays * len(train.items))
        return min(self.users, max(MIN_USERS, fitting))

    def _default_weights(self, kinds: list[str], users: int) -> Weights:
        """Return the weights to use without a trial, and record why there is none."""
        default_kinds = [kind for kind in ("side_ease", "content_als") if kind in kinds] or kinds[:1]
        uses_content = bool(set(default_kinds) & set(CONTENT))
        self.record["why"] = (
            f"only {users} users have enough likes for a trial, fewer than {MIN_USERS}: "
            f"{'content is used' if uses_content else 'the first part is used'} without a choice"
        )
        return dict.fromkeys(default_kinds, 1.0)

    def _fit_part(self, name: str, train: Interactions, features: Features | None) -> None:
        """Fit a member on all of train, or record that it does not fit in memory."""
        try:
            self.members[name] = self._fit_chosen(name, train, features)
        except InputError as error:
            self.record["left_out"][name] = str(error)

    def _fit_chosen(self, name: str, train: Interactions, features: Features | None) -> Recommender:
        """Return the model of a member, fitted with the settings that the search chose for it."""
        params = self.record["parts"].get(name, {}).get("params", {})
        return fit_part(kind_of(name), params, train, features, self.seed)

    def _fitted_only(self, weights: Weights) -> Weights:
        """Return the weights of the members that could be fitted, without those of the others."""
        return {name: weight for name, weight in weights.items() if name in self.members}

    def _replacement_order(self, kind: str) -> tuple[bool, float]:
        """Return the sort key by which a kind is chosen to replace members that could not be fitted.

        The kind with the largest key is chosen first. The key grows with the NDCG in the first trial.
        ``attributes`` has the smallest key, because it was judged in another trial.
        """
        return kind != "attributes", self.record["parts"].get(kind, {}).get("ndcg@100", -1.0)

    def _choose(
        self, trial: Trial, train: Interactions, features: Features | None, kinds: list[str], deadline: Deadline
    ) -> Choice:
        """Run the trials, record their results, and return the weights that they choose."""
        half, check = trial.halves(self.seed)
        new_item_trial = self._new_item_trial(train, features, kinds)
        field_weights: Settings = {}
        if set(kinds) & set(CONTENT):
            field_weights = self._choose_field_weights(new_item_trial or trial, features, deadline)
        search = Search(trial, features, half, self.seed, field_weights, deadline)
        # Among known items `attributes` is ALS, so it is tried on new items only, unless it is the
        # only kind.
        attempts = self._search_settings(
            [kind for kind in LADDERS if kind in kinds and kind != "attributes"] or kinds, search
        )
        if not attempts:
            raise ConfigError(f"model 'hybrid': no part could be fitted: {self.record['left_out']}")
        self._add_second_member(max(attempts, key=lambda attempt: attempt.value), search)
        values = {name: trial.ndcg_per_user(scores) for name, scores in trial.scores.items()}
        weights, reason = self._checked_choice(trial, half, check, None)
        self.record |= {"why": reason, "users": len(trial.users), "metric": "ndcg@100 on hidden likes"}
        by_group = self._choose_by_length(trial, half, check, weights)
        new_items: Weights = {}
        if new_item_trial is not None:
            new_items = self._choose_for_new_items(new_item_trial, search, kinds, weights)
        choice = Choice(weights, by_group, new_items)
        self._record_ablation(trial, features, choice, values)
        return choice

    def _new_item_trial(self, train: Interactions, features: Features | None, kinds: list[str]) -> Trial | None:
        """Return a trial that hides whole items, to judge models on new items.

        The result is None if no kind uses features, if train has no new items with features, or if
        the trial would have too few users.
        """
        if features is None or not set(kinds) & set(CONTENT):
            return None
        has_features = np.diff(features.matrix.indptr) > 0
        if not (self.cold_ & has_features).any():
            return None
        trial = hide_items(train, HIDDEN_SHARE, self._trial_size(train, kinds), self.seed)
        return replace(trial, scaling=self.scaling) if len(trial.users) >= MIN_USERS else None

    def _choose_field_weights(self, trial: Trial, features: Features | None, deadline: Deadline) -> Settings:
        """Choose the weights of the feature fields, and return them as a dict: field -> weight.

        They are chosen by the NDCG of the model ``content`` on half of the trial's users. The result
        is empty (all weights are 1) if they do not raise the mean NDCG of the other half.
        """
        half, check = trial.halves(self.seed)
        if features is None:
            return {}
        chosen = Search(trial, features, half, self.seed, {}, deadline).weigh_fields()
        if not chosen:
            return {}
        weighted, unweighted = (
            trial.judge(fit_part("content", params, trial.train, features, self.seed), check)
            for params in ({"fields": chosen}, {})
        )
        difference = gain(weighted, unweighted, self.seed)
        self.record["fields"] = {"weights": chosen, "against all 1": difference}
        return chosen if difference["mean"] > 0 else {}

    def _search_settings(self, kinds: list[str], search: Search) -> list[Attempt]:
        """Search the best settings of each kind, record them, and return the state of each search.

        Every kind is first tried once. Then the settings of the best kind that uses features, of the
        best kind that does not, and of the kinds that are cheap to fit are searched, the best kind
        first. After that a blend is chosen, and the settings of those of its members that were not
        searched are searched too, because a kind can help a blend more than it promises by itself.
        The trial of the search stores the scores of the best settings.
        A kind that does not fit in memory, or for which there was no time, is recorded as left out.
        """
        attempts: list[Attempt] = []
        for kind in kinds:
            if attempts and search.deadline.is_over():
                self.record["left_out"][kind] = "there was no time left to try it: raise `minutes`"
                continue
            logger.info("hybrid: tries %s", kind)
            try:
                attempts.append(search.start(kind))
            except InputError as error:
                self.record["left_out"][kind] = str(error)
                logger.info("hybrid: %s is left out: %s", kind, error)
        attempts.sort(key=lambda attempt: -attempt.value)
        searched = [attempt for attempt in attempts if _is_searched_first(attempt, attempts, search.deadline)]
        for attempt in searched:
            search.climb(attempt)
        unsearched = [attempt for attempt in attempts if attempt not in searched]
        if unsearched and not search.deadline.is_over():
            logger.info("hybrid: looks for members that help a blend")
            best_member = search.trial.choose(search.rows, steps=0)
            blend = search.trial.choose(search.rows, best_member)
            for attempt in unsearched:
                if attempt.kind in blend:
                    search.climb(attempt)
        for attempt in attempts:
            mean = float(search.trial.ndcg_per_user(search.trial.scores[attempt.kind]).mean())
            self._record_attempt(attempt, mean)
        if search.deadline.is_over():
            self.record["stopped"] = f"no other setting was tried after {SEARCH_SHARE * self.minutes:g} minutes"
        return attempts

    def _add_second_member(self, attempt: Attempt, search: Search) -> None:
        """Let the weights choose also a second member of a kind, and record its settings.

        Args:
            attempt: the search of the kind.
            search: the search, whose trial stores the scores of the second member.
        """
        name = attempt.kind + SECOND
        logger.info("hybrid: looks for a second member of kind %s", attempt.kind)
        params = search.add_second(attempt)
        if params is not None:
            mean = float(search.trial.ndcg_per_user(search.trial.scores[name]).mean())
            self._record_part(name, {"params": params, "ndcg@100": mean, "tried": len(attempt.runners_up)})

    def _record_attempt(self, attempt: Attempt, mean: float) -> None:
        """Record the settings that were chosen for a kind, and their mean NDCG over all users of
        the trial."""
        about = {"params": attempt.params, "ndcg@100": mean, "tried": len(attempt.values)}
        if attempt.last_rungs:
            about["on the last rung"] = attempt.last_rungs
        self._record_part(attempt.kind, about)

    def _record_part(self, name: str, about: dict[str, Any]) -> None:
        """Record and log the settings of a member, their mean NDCG, and how many settings were tried."""
        self.record["parts"][name] = about
        numbers = (name, about["ndcg@100"], about["params"], about["tried"])
        logger.info("hybrid: %s has ndcg@100 %.4f with %s, the best of %d settings", *numbers)

    def _choose_by_length(
        self, trial: Trial, half: np.ndarray, check: np.ndarray, weights: Weights
    ) -> dict[int, Weights]:
        """Return the weights for groups of users with similar history lengths: group -> weights.

        The result has only the groups for which weights other than the general ones are shown to be
        better.

        Args:
            half, check: the rows of the two halves of the users.
            weights: the general weights.
        """
        group_of_user = length_groups(trial.histories)
        by_group: dict[int, Weights] = {}
        for group in range(len(LENGTHS) + 1):
            group_half = half[group_of_user[half] == group]
            group_check = check[group_of_user[check] == group]
            if min(len(group_half), len(group_check)) < MIN_USERS // 2:
                continue
            chosen, reason = self._checked_choice(trial, group_half, group_check, weights)
            if chosen != weights:
                by_group[group] = chosen
                self.record.setdefault("by_history", {})[group] = {"weights": chosen, "why": reason}
        return by_group

    def _checked_choice(
        self,
        trial: Trial,
        half: np.ndarray,
        check: np.ndarray,
        start: Weights | None,
        conclusive: bool = True,
    ) -> tuple[Weights, str]:
        """Return the weights of a chosen blend and the reason, or the baseline if no blend is shown to beat it.

        A blend is chosen on one half of the users and judged on the other half. This is done in
        both directions, so that every user is judged once. The result is the mean of the two blends,
        which depends less on single users than one blend that is chosen on all of them. Caruana et al.
        2004 average blends of random parts for the same reason.

        The baseline is ``start``, or the best single member.

        Args:
            half, check: the rows of the two halves of the users.
            start: the weights to beat, to which members are added. None: those of the best single
                member, and the blend may be without it.
            conclusive: whether the whole 95 % interval of the difference must be above 0. If False,
                only its mean must be.
        """
        users = np.union1d(half, check)
        logger.info("hybrid: chooses the weights of its members")
        baseline = start or trial.choose(users, steps=0)
        directions = [(trial.choose(half, start), check), (trial.choose(check, start), half)]
        if all(chosen == baseline for chosen, _ in directions):
            return baseline, f"no blend beats {_format_weights(baseline)} on either half of the users"
        new = np.concatenate([trial.blend_ndcg(chosen, rows) for chosen, rows in directions])
        old = np.concatenate([trial.blend_ndcg(baseline, rows) for _, rows in directions])
        difference = gain(new, old, self.seed)
        reason = (
            f"blends chosen on one half of the users against {_format_weights(baseline)} on the other half: "
            f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
        )
        if difference["low" if conclusive else "mean"] <= 0:
            return baseline, f"{reason}: not shown to help, so not used"
        return _mean_blend([chosen for chosen, _ in directions]), reason

    def _choose_for_new_items(self, trial: Trial, search: Search, kinds: list[str], weights: Weights) -> Weights:
        """Return the weights that order new items relative to each other.

        The result is empty if the first trial shows that these weights lower the NDCG among all items
        by more than :data:`ACCEPTED_LOSS`. Kinds keep the settings that were chosen in the first trial.
        Only the settings of ``attributes`` are searched here, because this kind differs from ALS only
        on new items.

        Args:
            trial: the trial that hides whole items.
            search: the search on the first trial.
            weights: the general weights, chosen on the first trial.
        """
        half, check = trial.halves(self.seed)
        if "attributes" in kinds:
            new_item_search = Search(trial, search.features, half, self.seed, search.field_weights, search.deadline)
            self._search_settings(["attributes"], new_item_search)
        for kind in kinds:
            if kind in CONTENT and kind != "attributes" and kind not in self.record["left_out"]:
                trial.cache_scores(kind, self._fit_chosen(kind, trial.train, search.features))
        if not trial.scores:
            return {}
        chosen, reason = self._checked_choice(trial, half, check, None, conclusive=False)
        effect = self._effect_on_all_items(search.trial, search.features, weights, chosen)
        self.record["new_items"] = {
            "weights": chosen,
            "why": reason,
            "users": len(trial.users),
            "among all items": effect,
        }
        # Among all items a change of the few new ones is small, however much better they are ordered.
        smallest = -ACCEPTED_LOSS * effect["without"]
        return chosen if effect["high"] >= smallest else {}

    def _effect_on_all_items(
        self, trial: Trial, features: Features | None, weights: Weights, new_items: Weights
    ) -> dict[str, float]:
        """Return how much the mean NDCG of a trial changes if new items have weights of their own.

        The result is the mean change and its interval, as from :func:`gain`, and ``without``, the mean
        NDCG without such weights. The lists rank all items.
        The new items are those that nobody likes in the train part of the trial; they are reordered
        among themselves.

        Args:
            weights: the general weights.
            new_items: the weights that order the new items.
        """
        if "attributes" in new_items:
            trial.cache_scores("attributes", self._fit_chosen("attributes", trial.train, features))
        scores = trial.blend_scores(weights)
        columns = np.flatnonzero(unliked_items(trial.train))
        rescaled = (
            (rescale_columns(trial.scores[kind], columns, self.scaling), np.full(len(scores), weight))
            for kind, weight in new_items.items()
        )
        order = weighted_mean(rescaled, (len(scores), len(columns)))
        reordered = trial.ndcg_per_user(reassign_scores(scores, columns, order))
        without = trial.ndcg_per_user(scores)
        return gain(reordered, without, self.seed) | {"without": float(without.mean())}

    def _record_ablation(
        self, trial: Trial, features: Features | None, choice: Choice, values: dict[str, np.ndarray]
    ) -> None:
        """Record the NDCG of the chosen blend, of its best members, and of the blend with shuffled features.

        Args:
            values: name of a member -> NDCG of each user of the trial.
        """
        means = {name: float(ndcg.mean()) for name, ndcg in values.items()}
        collaborative = max((name for name in means if not uses_features(name)), key=means.__getitem__, default=None)
        content = max(filter(uses_features, means), key=means.__getitem__, default=None)
        chosen_values = _ndcg_of_choice(trial, choice)
        ablation: dict[str, Any] = {"hybrid": float(chosen_values.mean())}
        for family, name in (("collaborative", collaborative), ("content", content)):
            if name:
                difference = gain(chosen_values, values[name])
                ablation[family] = {"part": name, "mean": means[name], "hybrid_minus_it": difference}
        used = {name for weights in (choice.weights, *choice.by_group.values()) for name in weights}
        used_content = sorted(filter(uses_features, used))
        if self.placebo and used_content and features is not None:
            shuffled = shuffle_features(features, self.seed)
            for name in used_content:
                trial.cache_scores(name, self._fit_chosen(name, trial.train, shuffled))
            placebo_values = _ndcg_of_choice(trial, choice)
            ablation["shuffled"] = {"mean": float(placebo_values.mean())}
            if collaborative:
                ablation["shuffled"]["minus_collaborative"] = gain(placebo_values, values[collaborative])
        self.record["ablation"] = ablation

    def _store_weights(self, choice: Choice) -> None:
        """Store the chosen weights as arrays, in the order of the members."""
        groups = [choice.by_group.get(group, choice.weights) for group in range(len(LENGTHS) + 1)]
        self.weights_ = np.array([[weights.get(name, 0.0) for name in self.members] for weights in groups])
        self.cold_weights_ = np.array([choice.new_items.get(name, 0.0) for name in self.members])
        self.record["weights"] = choice.weights
        logger.info("hybrid: weights %s: %s", choice.weights, self.record["why"])


def _ndcg_of_choice(trial: Trial, choice: Choice) -> np.ndarray:
    """Return the NDCG of each user of a trial, float64[n], with the weights for the user's group."""
    group_of_user = length_groups(trial.histories)
    values = trial.blend_ndcg(choice.weights)
    for group, weights in choice.by_group.items():
        rows = np.flatnonzero(group_of_user == group)
        values[rows] = trial.blend_ndcg(weights, rows)
    return values


def _mean_blend(blends: list[Weights]) -> Weights:
    """Return the mean of blends, each scaled to weights that add up to 1, rounded to four decimals.

    >>> _mean_blend([{"als": 1.0}, {"als": 2.0, "content": 3.0}])
    {'als': 0.7, 'content': 0.3}
    """
    names = dict.fromkeys(name for blend in blends for name in blend)
    shares = [{name: weight / sum(blend.values()) for name, weight in blend.items()} for blend in blends]
    return {name: round(sum(share.get(name, 0.0) for share in shares) / len(blends), 4) for name in names}


def _is_searched_first(attempt: Attempt, attempts: list[Attempt], deadline: Deadline) -> bool:
    """Return whether the settings of a kind are searched whether a blend uses it or not.

    This is so for the best kind of either family, and for a kind that is cheap to fit.

    Args:
        attempts: all attempts, best first.
        deadline: the time limit of the search.
    """
    is_cheap = attempt.seconds <= CHEAP_SHARE * 60 * deadline.minutes
    return is_cheap or _is_best_of_family(attempt, attempts)


def _is_best_of_family(attempt: Attempt, attempts: list[Attempt]) -> bool:
    """Return whether an attempt is the best one of the kinds that use features, or of those that do not.

    The settings of both are always searched. Only kinds that use features can score new items, and a
    blend gains most from a part that learns from other things than the best kind does.

    Args:
        attempts: all attempts, best first.
    """
    family = uses_features(attempt.kind)
    return attempt is next(candidate for candidate in attempts if uses_features(candidate.kind) == family)


def _format_weights(weights: Weights) -> str:
    """Return weights as text, for example ``als + 0.5 content``."""
    return " + ".join(kind if weight == 1 else f"{weight:g} {kind}" for kind, weight in weights.items())
