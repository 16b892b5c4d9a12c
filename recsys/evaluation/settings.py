"""Settings of the evaluation: the section ``[judge]`` of a config, for both engines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from recsys.errors import InputError, RecsysError
from recsys.evaluation.judging.judge import Ties
from recsys.evaluation.judging.metrics import Metric, parse, parse_all

BASELINES = ("random", "popular", "recent", "repeat")
"""Names of simple models that other models should beat.

``random`` orders items at random, ``popular`` by all likes, ``recent`` by the latest likes, and
``repeat`` by the user's own history. A run adds those of :func:`baselines_of` to its models."""


Candidates = Literal["train", "items", "cold"]
"""Which items lists rank; see ``candidates`` of :class:`EvaluationSettings`."""


def baselines_of(*, timed: bool, exclude_seen: bool, candidates: Candidates) -> list[str]:
    """Return the names of the baselines of a run, in the order of :data:`BASELINES`.

    Args:
        timed: whether events have times. Without times, ``recent`` is left out, because it would
            be the same as ``popular``.
        exclude_seen: whether lists leave out items of the user's history. If they do, ``repeat`` is
            left out, because it lists only such items.
        candidates: which items lists rank. If it is "cold", only ``random`` is left: to the others
            all items without an event in train are equal, and their lists would be in the order of
            the item ids.

    >>> baselines_of(timed=False, exclude_seen=True, candidates="items")
    ['random', 'popular']
    """
    absent = set()
    if not timed:
        absent.add("recent")
    if exclude_seen:
        absent.add("repeat")
    if candidates == "cold":
        absent |= {"popular", "recent", "repeat"}
    return [name for name in BASELINES if name not in absent]


RATING_METRICS = ("rmse", "mae")
"""The metrics of predicted ratings, for ``task = "ratings"``. Lower is better."""

RATING_BASELINES = ("mean", "biases")
"""The models of ratings that every run with ``task = "ratings"`` has. The second one is the fallback of
the other models."""

TEXT_FALLBACK = "text_score"
"""The fallback of the models of ratings in a run with ``[data] reviews``."""

DEFAULT_METRICS = ("ndcg@10", "recall@10", "precision@10", "map@10", "mrr@10", "hit_rate@10")
"""The metrics of an evaluation whose settings name none. The first one is the primary metric."""


class EvaluationSettings(BaseModel):
    """The settings of an evaluation: the metrics, and which test pairs count as relevant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    all_candidates: ClassVar[bool] = False
    """Whether every candidate of a user has a score. Only then is the metric ``auc`` allowed."""

    metrics: tuple[str, ...] = Field(DEFAULT_METRICS, min_length=1, description="the first is the primary one")
    relevant: float | None = Field(
        None,
        description="a test pair is relevant when its value is above 0 and at least this; unset: value > 0",
    )
    candidates: Candidates | None = Field(
        None,
        description=(
            "which items the lists of the run rank: `train`: those with an event in train; `items`: those of the items"
            " table too; `cold`: only those without an event in train, so that new items compete with new items alone"
            " (relevant pairs on other items are then not judged); unset: `cold` for `[split] rule = 'items'`, else"
            " `items`"
        ),
    )
    missing_users: Literal["zero", "skip"] = Field(
        "zero",
        description="users with something relevant but no list: count them as 0, or leave them out",
    )
    ties: Ties = Field(
        "stable",
        description="equal scores: the order as it is, the average over all orders, the worst, or the best",
    )
    baseline: str = Field(
        "popular", description="the model that differences are taken from; `random` where a run does not have it"
    )
    segments: tuple[str, ...] = Field(
        (),
        description="columns of the users or items table: results are shown for each of their groups too",
    )
    attribute: str | None = Field(
        None,
        description="column of the items table for diversity and calibration; unset: the first that holds lists",
    )
    cold_start: tuple[int, ...] = Field(
        (0, 1, 2, 5, 10),
        description="numbers of events that histories are cut to, for the cold-start curve; local runs only; none: no"
        " curve",
    )
    sampled: int | None = Field(
        None,
        ge=1,
        description=(
            "also judge each model by ranking the relevant items among this number of sampled candidates per user, as"
            " many papers do; such numbers are biased, and the report shows them beside those of all candidates; local"
            " runs only"
        ),
    )
    resamples: int = Field(1000, ge=100, le=1_000_000, description="bootstrap resamples of an interval")

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(map(str, parse_all(metrics, complete=cls.all_candidates)))
        except RecsysError as error:
            raise ValueError(str(error)) from error

    @property
    def parsed_metrics(self) -> list[Metric]:
        """The metrics as :class:`Metric` objects, in the order of ``metrics``."""
        return parse_all(self.metrics, complete=self.all_candidates)

    @property
    def debiased(self) -> bool:
        """Whether a metric has an option ``ips`` above 0, and so needs propensities of items."""
        return any(dict(metric.options).get("ips") for metric in self.parsed_metrics)

    def baseline_among(self, models: Collection[str]) -> str:
        """Return the name of the model from which differences are taken.

        It is ``baseline``. If a run does not have that model but has ``random``, it is "random".

        Args:
            models: the names of the models of the run.
        """
        if self.baseline not in models and "random" in models:
            return "random"
        return self.baseline

    def candidates_for(self, rule: str) -> Candidates:
        """Return which items lists rank: "train", "items" or "cold", as in ``candidates``.

        If ``candidates`` is None, the result is "cold" for the split rule "items", and "items" for
        all other rules.

        Args:
            rule: the rule by which events were split into train and test, see ``[split] rule``.
        """
        if self.candidates is not None:
            return self.candidates
        if rule == "items":
            return "cold"
        return "items"

    def is_relevant(self, values: Any) -> Any:
        """Return for each value whether a test pair with this value is relevant.

        A pair is relevant if its value is above 0 and, if ``relevant`` is set, at least
        ``relevant``. So a dislike (< 0) and a value of 0 are never relevant. The threshold is
        rounded to float32, because a run stores values in float32. So a value of 0.7 reaches a
        threshold of 0.7 on both engines.

        Args:
            values: a float32 array; the result is a bool array of the same shape. Or a Spark column
                of type float; the result is a Spark column of conditions.
        """
        positive = values > 0
        if self.relevant is None:
            return positive
        return positive & (values >= float(np.float32(self.relevant)))


def choose_ranked_items(candidates: Literal["train", "items", "cold"], is_trained: np.ndarray) -> np.ndarray | None:
    """Return which items lists rank, bool[items], or None if they rank all items.

    Args:
        candidates: "train" for the items with an event in train, "cold" for the other items, or
            "items" for all.
        is_trained: bool[items], whether each item of the catalogue has an event in train.

    Raises:
        InputError: ``candidates`` is "cold", but every item has an event in train.
    """
    if candidates == "items" or (candidates == "train" and is_trained.all()):
        return None
    if candidates == "train":
        return is_trained
    if is_trained.all():
        raise InputError(
            "[judge] candidates = 'cold', the default for [split] rule = 'items', ranks the items that have no event in"
            " train, and there is none. Name an items table that has the new items under [data] items, or set"
            " candidates = 'items'."
        )
    return ~is_trained


def describe_ranked(candidates: str, n_items: int, ranked_items: np.ndarray | None) -> dict[str, Any]:
    """Return the entry of split.json about the items that lists rank.

    The result is a dict: ``candidates`` -> the argument ``candidates``, ``items`` -> the number of
    ranked items.

    Args:
        candidates: "train", "items" or "cold".
        n_items: the number of all items of the catalogue.
        ranked_items: bool[items], as :func:`choose_ranked_items` returns it. None: all items.
    """
    if ranked_items is not None:
        n_items = int(ranked_items.sum())
    return {"candidates": candidates, "items": n_items}


class RunEvaluationSettings(EvaluationSettings):
    """The settings of the evaluation of a run: how its models are judged.

    A run can score all candidates. So, unlike :class:`EvaluationSettings`, this class allows the
    metric ``auc``, but not as the first metric. With ``task = "ratings"``, the metrics are
    ``rmse``, ``mae`` or both.
    """

    all_candidates: ClassVar[bool] = True

    task: Literal["lists", "ratings"] = Field(
        "lists",
        description=(
            "what models are judged by: `lists`: the items that they recommend; `ratings`: the values that they"
            " predict, by rmse and mae, on the local engine (docs/ratings.md)"
        ),
    )
    metrics: tuple[str, ...] = Field(
        DEFAULT_METRICS,
        min_length=1,
        description=(
            "the first is the primary one; `auc`, which is never the first, is computed from the scores of all"
            " candidates, on the local engine; the others judge the lists (docs/metrics.md); for `task = 'ratings'`:"
            " rmse and mae, which are its default"
        ),
    )
    scale: tuple[float, float] | None = Field(
        None,
        description=(
            "for `task = 'ratings'`: the smallest and the largest possible rating; predictions are clipped to them;"
            " unset: those of the log"
        ),
    )

    refits: int = Field(
        0,
        ge=0,
        le=100,
        description=(
            "for `task = 'ratings'`: how often train is divided at random into two halves; each model is fitted again"
            " on both, and on a quarter from each, for its learning curve and for the part of its error that is"
            " variance; 0: not at all"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _default_of_ratings(cls, raw: Any) -> Any:
        """Use the metrics and the baseline of ratings if the task is that, and none are named."""
        if isinstance(raw, dict) and raw.get("task") == "ratings":
            return {"metrics": RATING_METRICS, "baseline": RATING_BASELINES[1]} | raw
        return raw

    @model_validator(mode="after")
    def _require_metrics_of_task(self) -> RunEvaluationSettings:
        of_ratings = [name for name in self.metrics if name in RATING_METRICS]
        if self.task == "ratings" and len(of_ratings) < len(self.metrics):
            list_metric = next(name for name in self.metrics if name not in RATING_METRICS)
            raise ValueError(f"task = 'ratings' is judged by rmse and mae, and {list_metric} judges lists: remove it")
        if self.task == "lists" and of_ratings:
            try:
                parse(of_ratings[0])
            except RecsysError as error:
                raise ValueError(f"{error} To judge models by it, set [judge] task = 'ratings'.") from error
        if self.scale is not None and self.task == "lists":
            raise ValueError("scale is for task = 'ratings': remove it")
        if self.refits and self.task == "lists":
            raise ValueError("refits is for task = 'ratings': remove it")
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError("scale is [smallest, largest], two different numbers")
        return self

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if set(metrics) <= set(RATING_METRICS):
            return tuple(dict.fromkeys(metrics))
        of_lists = [name for name in metrics if name not in RATING_METRICS]
        try:
            parsed = map(str, parse_all(of_lists, complete=cls.all_candidates))
        except RecsysError as error:
            raise ValueError(str(error)) from error
        return (*parsed, *(name for name in metrics if name in RATING_METRICS))

    @field_validator("metrics")
    @classmethod
    def _require_lists_first(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        if metrics[0] not in RATING_METRICS and needs_all_scores(metrics[0]):
            raise ValueError(
                f"the first metric is {metrics[0]}, but the first one also judges groups of items and shortened"
                " histories, by lists: put a metric of lists before it, such as ndcg@10"
            )
        return metrics

    @property
    def score_metrics(self) -> tuple[str, ...]:
        """The names in ``metrics`` that need the scores of all candidates, in the same order.

        There are none with ``task = "ratings"``.
        """
        if self.task == "ratings":
            return ()
        return tuple(filter(needs_all_scores, self.metrics))

    def for_lists(self) -> EvaluationSettings:
        """Return a copy of the settings with only the metrics of lists, so without ``auc``."""
        lists = tuple(name for name in self.metrics if not needs_all_scores(name))
        shared = self.model_dump(include=set(EvaluationSettings.model_fields))
        return EvaluationSettings(**shared | {"metrics": lists})


def needs_all_scores(metric: str) -> bool:
    """Return whether a metric needs the scores of all candidates. Only ``auc`` does.

    Args:
        metric: the name of the metric, such as "ndcg@10".

    Raises:
        ConfigError: the name is not that of a metric.
    """
    return parse(metric).name == "auc"


class AllCandidatesSettings(EvaluationSettings):
    """Settings for tables that score every candidate of each user, which metrics such as AUC need."""

    all_candidates: ClassVar[bool] = True
