"""Pick a model of a run: the model that the report recommends, and that commands use by default.

It is the best model by the first metric of the run, which may be a baseline. Whether the difference
between the best model and the best baseline could be chance is another question. The interval of the
difference and its corrected p-value answer it together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recsys.evaluation.settings import BASELINES

Outcome = Literal["better", "worse", "no difference shown"]
"""What a difference shows, see :func:`difference_outcome`."""

LEVEL = 0.05
"""The significance level: a corrected p-value above it shows no difference."""


@dataclass(frozen=True)
class Pick:
    """The result of :func:`pick_model`: the best model, the best baseline, and which of them is picked.

    Attributes:
        model: the name of the best model that is not a baseline. None if no such model has a mean.
        baseline: the name of the best baseline. None if no baseline has a mean.
        difference: the entry of metrics.json for ``model`` minus ``baseline``, a dict with
            ``mean``, ``ci95``, ``users`` and ``p_holm``. None if ``model`` or ``baseline`` is None.
        by_history: name of a group of users by length of history -> the same entry for this group.
            Empty if ``difference`` is None.
        name: the name of the picked model: the one of ``model`` and ``baseline`` with the better
            mean. At equal means it is the baseline, which is simpler. None if both are None.
        lower_is_better: whether the metric is an error, so that a lower mean is better.
        tests: the number of comparisons for which ``p_holm`` is corrected, see :func:`count_tests`.
    """

    model: str | None
    baseline: str | None
    difference: dict[str, Any] | None
    by_history: dict[str, dict[str, Any]]
    name: str | None
    lower_is_better: bool = False
    tests: int = 0

    @property
    def outcome(self) -> Outcome | None:
        """What ``difference`` shows about ``model``, see :func:`difference_outcome`.

        None if ``difference`` is None.
        """
        if self.difference is None:
            return None
        return difference_outcome(self.difference, self.lower_is_better)

    @property
    def correction(self) -> str:
        """A clause for the verdict if the interval and the corrected p-value disagree, otherwise "".

        There are two cases. If the interval excludes 0 but the corrected p-value is above
        :data:`LEVEL`, the clause has this p-value. If the interval excludes 0 and the run is of an
        older version without this p-value, the clause says that the interval alone decides.
        """
        if self.difference is None:
            return ""
        of_interval = _interval_outcome(self.difference, self.lower_is_better)
        if of_interval != "no difference shown" and self.difference.get("p_holm") is None:
            return ", by the interval alone (this older run has no p-value corrected for all comparisons)"
        if self.outcome == of_interval:
            return ""
        return f", after correction for {self.tests:,} comparisons (p = {self.difference['p_holm']:.4f})"


def pick_model(metrics: dict[str, Any], names: Collection[str] | None = None) -> Pick:
    """Return the best model of a run, the best baseline, and which of the two is picked.

    The best model has the best mean of the first metric over all users: the highest, or the lowest if
    the metric is an error. If several models have this mean, it is the first of them. Models without a
    mean are left out.

    Args:
        metrics: the content of metrics.json.
        names: the models to choose from. None: all models of the run.
    """
    about = metrics["about"]
    primary = about["primary"]
    differences = baseline_differences(metrics)
    means = {name: cells[primary]["mean"] for name, cells in metrics["models"].items()}
    means = {name: mean for name, mean in means.items() if mean is not None and (names is None or name in names)}
    models = [name for name in means if name not in BASELINES and name not in differences]
    baselines = [name for name in means if name in differences]
    is_error = lower_is_better(metrics)
    sign = -1 if is_error else 1

    def quality(name: str) -> float:
        return sign * means[name]

    model = max(models, key=quality, default=None)
    baseline = max(baselines, key=quality, default=None)
    if model is None or baseline is None:
        return Pick(model, baseline, None, {}, model or baseline, is_error)
    by_history = {level: cells[model] for level, cells in differences[baseline]["history"].items()}
    name = model if quality(model) > quality(baseline) else baseline
    difference = differences[baseline]["all"][model]
    return Pick(model, baseline, difference, by_history, name, is_error, count_tests(metrics))


def count_tests(metrics: dict[str, Any]) -> int:
    """Return the number of comparisons for which the p-values ``p_holm`` of a run are corrected.

    Args:
        metrics: the content of metrics.json. In older runs without ``about.tests``, the comparisons
            are the entries of ``differences`` alone.
    """
    cells = [cell for by_metric in metrics.get("differences", {}).values() for cell in by_metric.values()]
    of_differences = sum(cell.get("p") is not None for cell in cells)
    return int(metrics["about"].get("tests", of_differences))


def lower_is_better(metrics: dict[str, Any]) -> bool:
    """Return whether the metrics of a run are errors, so that the best model has the lowest mean.

    Args:
        metrics: the content of metrics.json.
    """
    return bool(metrics["about"].get("lower_is_better", False))


def models_by_quality(means: Mapping[str, float | None], *, is_error: bool = False) -> list[str]:
    """Return the names of models in the order of their means, the best model first.

    Models with equal means keep their order. Models without a mean are last.

    Args:
        means: name of a model -> its mean, or None.
        is_error: whether the metric is an error, so that the lowest mean is the best.

    >>> models_by_quality({"als": 0.2, "ease": 0.3, "new": None})
    ['ease', 'als', 'new']
    """

    def quality(name: str) -> tuple[bool, float]:
        mean = means[name]
        if mean is None:
            return False, 0.0
        return True, -mean if is_error else mean

    return sorted(means, key=quality, reverse=True)


def difference_outcome(cell: dict[str, Any], is_error: bool = False) -> Outcome:
    """Return what a difference shows: "better", "worse" or "no difference shown".

    It is "better" if the whole interval is above 0, and "worse" if the whole interval is below 0.
    For the difference of an error it is the reverse. A corrected p-value above :data:`LEVEL` shows no
    difference, whatever the interval is. A difference without a corrected p-value, such as that of a
    group of users, is judged by its interval alone.

    Args:
        cell: a difference with its interval ``ci95`` and perhaps ``p_holm``, from metrics.json.
        is_error: whether the difference is one of an error such as RMSE, so that lower is better.
    """
    p = cell.get("p_holm")
    if p is not None and p > LEVEL:
        return "no difference shown"
    return _interval_outcome(cell, is_error)


def _interval_outcome(cell: dict[str, Any], is_error: bool) -> Outcome:
    """Return what the interval of a difference shows, see :func:`difference_outcome`."""
    low, high = cell["ci95"]
    outcomes: tuple[Outcome, Outcome] = ("better", "worse")
    if is_error:
        outcomes = ("worse", "better")
    if low is not None and low > 0:
        return outcomes[0]
    if high is not None and high < 0:
        return outcomes[1]
    return "no difference shown"


def baseline_differences(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return how much the models differ from each baseline in the first metric, as a nested dict.

    It is baseline -> "all" -> model -> difference over all users, and baseline -> "history" ->
    group of users by length of history -> model -> difference in this group. A difference is a dict
    with ``mean`` and ``ci95``; that of a model over all users has ``p_holm`` too. The result is the
    entry ``about.baseline_differences`` of metrics.json. A run of recsys 0.1.0 does not have this
    entry. The result then has only the differences from the baseline of its config.

    Args:
        metrics: the content of metrics.json.
    """
    about = metrics["about"]
    if "baseline_differences" in about:
        return dict(about["baseline_differences"])
    if about.get("baseline") is None:
        return {}
    primary = about["primary"]
    by_history = {
        level: {name: cells[primary] for name, cells in models.items()}
        for level, models in about["segment_differences"]["history"].items()
    }
    differences = {name: cells[primary] for name, cells in metrics["differences"].items()}
    return {about["baseline"]: {"all": differences, "history": by_history}}
