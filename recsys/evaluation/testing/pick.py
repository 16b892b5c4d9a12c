"""The pick of a run: the one model that the verdict names, and that every verb takes when none is
named.

The best model by the first metric of the run is taken, whether it is a baseline or not. Whether
the difference between the best model and the best baseline could be chance is a second question,
which the interval of the difference answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from recsys.evaluation.settings import BASELINES

Outcome = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Pick:
    """The result of :func:`pick_model`; a name is None where the run has no such model with a mean.

    Attributes:
        model: the best model that is no baseline.
        baseline: the best baseline.
        difference: the cell of metrics.json of ``model`` minus ``baseline``, with ``mean``,
            ``ci95`` and ``users``; None where one of them is missing.
        by_history: level of the history -> the same for the users of that level.
        name: the model to take: the better of ``model`` and ``baseline`` by the mean, at equal
            means the baseline, which is simpler.
    """

    model: str | None
    baseline: str | None
    difference: dict[str, Any] | None
    by_history: dict[str, dict[str, Any]]
    name: str | None

    @property
    def outcome(self) -> Outcome | None:
        """Whether the interval of the difference is above 0, below 0, or includes 0."""
        if self.difference is None:
            return None
        return interval_outcome(self.difference)


def pick_model(metrics: dict[str, Any], names: Collection[str] | None = None) -> Pick:
    """Return the best model of a run, the best baseline, and the one of them to take.

    Best is the highest mean of the first metric over all users; of equal means the first. Models
    without a mean are left out.

    Args:
        metrics: the contents of metrics.json.
        names: the models to choose from; None: all of the run.
    """
    about = metrics["about"]
    primary = about["primary"]
    differences = baseline_differences(metrics)
    means = {name: cells[primary]["mean"] for name, cells in metrics["models"].items()}
    means = {name: mean for name, mean in means.items() if mean is not None and (names is None or name in names)}
    models = [name for name in means if name not in BASELINES and name not in differences]
    baselines = [name for name in means if name in differences]
    model = max(models, key=means.__getitem__, default=None)
    baseline = max(baselines, key=means.__getitem__, default=None)
    if model is None or baseline is None:
        return Pick(model, baseline, None, {}, model or baseline)
    by_history = {level: cells[model] for level, cells in differences[baseline]["history"].items()}
    name = model if means[model] > means[baseline] else baseline
    return Pick(model, baseline, differences[baseline]["all"][model], by_history, name)


def models_by_quality(means: Mapping[str, float | None]) -> list[str]:
    """Return the names by their means, the best first; equal means keep their order, and names
    without a mean are last.
    """

    def quality(name: str) -> tuple[bool, float]:
        mean = means[name]
        return mean is not None, mean or 0.0

    return sorted(means, key=quality, reverse=True)


def interval_outcome(cell: dict[str, Any]) -> Outcome:
    """Return what the interval of a difference shows; nothing without an interval."""
    low, high = cell["ci95"]
    if low is not None and low > 0:
        return "better"
    if high is not None and high < 0:
        return "worse"
    return "no difference shown"


def baseline_differences(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return ``about.baseline_differences``; of a run of recsys 0.1.0, which has none, the
    differences from the baseline of its settings.
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
