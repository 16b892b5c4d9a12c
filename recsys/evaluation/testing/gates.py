"""Gates: conditions under which ``recsys compare`` fails, for use in continuous integration.

A gate is one line of text. There are three kinds:

    ndcg@10 drops 0.01       fails if the difference is below -0.01 and its whole interval is below 0,
                             which shows that the new model is worse
    ms_per_user rises 5      fails if the difference is above 5 and its whole interval is above 0
    ndcg@10 within 0.01      fails if the interval goes down to -0.01 or below, so that the new model
                             is not shown to be almost as good; for a cost or an error, if the interval goes
                             up to 0.01 or above

A gate is on a metric, on a guardrail (such as ``coverage``), or on a measure of agreement (such as
``rbo``). Guardrails and measures of agreement have no interval, so only the difference counts. The
difference of a measure of agreement is its value minus 1, because 1 is the agreement of a model with
itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.agreement.system_pairs import DEFAULT_MEASURES
from recsys.evaluation.settings import RATING_METRICS
from recsys.evaluation.testing.choose import GUARDRAILS

KINDS = ("drops", "rises", "within")
"""The kinds of gates, see the description of this module."""
_LIMIT = re.compile(r"\d+\.?\d*([eE][-+]?\d+)?|\.\d+")


@dataclass(frozen=True)
class Change:
    """The difference of a measure between two models, with its interval.

    Attributes:
        measure: the name of a metric, a guardrail or a measure of agreement.
        model, against: the names of the two models.
        difference: the value of ``model`` minus the value of ``against``. NaN if it is unknown.
        low, high: the ends of the interval of the difference. NaN if they are unknown. Both equal
            ``difference`` if the measure has no interval.
    """

    measure: str
    model: str
    against: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Gate:
    """A condition on the change of one measure.

    Attributes:
        measure: the name of the measure.
        kind: "drops", "rises" or "within", see the description of this module.
        limit: the size of the change, ≥ 0, in the unit of the measure.
    """

    measure: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str, measures: Collection[str]) -> Gate:
        """Parse a text such as ``ndcg@10 drops 0.01``, and return its gate.

        Args:
            text: ``MEASURE KIND LIMIT``. KIND is "drops", "rises" or "within". LIMIT is a number
                without a sign, such as ``0.01``, ``5`` or ``1e-3``. It is an absolute difference,
                in the unit of the measure.
            measures: the names of the measures that the comparison has.

        Raises:
            ConfigError: the text has another form, KIND is none of these three, LIMIT is not such a
                number, or the comparison has no such measure. The message names all of these.
        """
        words = text.split()
        if len(words) != 3:
            raise ConfigError(
                f"--fail-if '{text}': write METRIC drops LIMIT, METRIC rises LIMIT, or METRIC within LIMIT.",
            )
        measure, kind, limit = words
        problems = []
        if measure not in measures:
            problems.append(f"this comparison has no '{measure}'.{suggest_nearest(measure, measures)}")
        if kind not in KINDS:
            problems.append(f"no condition '{kind}'.{suggest_nearest(kind, KINDS)}")
        if not _LIMIT.fullmatch(limit):
            problems.append(
                f"'{limit}' is not a limit: write a difference in the unit of the metric, without a sign, such as 0.01."
            )
        if problems:
            raise ConfigError("\n".join(f"--fail-if '{text}': {problem}" for problem in problems))
        return cls(measure, kind, float(limit))

    def fires(self, change: Change) -> bool:
        """Return whether a change makes the comparison fail, as the kind of this gate says.

        If the change is unknown (NaN), only a gate of the kind ``within`` makes it fail.

        Args:
            change: a change of the measure of this gate.
        """
        if self.kind == "drops":
            return bool(change.difference < -self.limit and change.high < 0)
        if self.kind == "rises":
            return bool(change.difference > self.limit and change.low > 0)
        # Negated, so that a NaN fires the gate.
        is_cost = self.measure in RATING_METRICS
        if self.measure in GUARDRAILS:
            is_cost = GUARDRAILS[self.measure][1] >= 1
        if is_cost:
            return not change.high < self.limit
        return not change.low > -self.limit

    def describe(self, change: Change) -> str:
        """Return one line of text with the gate and the change to which it was applied."""
        interval = ""
        if change.low != change.high:
            interval = f" [{change.low:+.4f}, {change.high:+.4f}]"
        return (
            f"{self.measure} {self.kind} {self.limit:g}: {change.model} - {change.against} ="
            f" {change.difference:+.4f}{interval}"
        )


def changes_from(
    first: str,
    differences: pd.DataFrame,
    guardrails: Mapping[str, Mapping[str, float]],
    agreement: pd.DataFrame,
) -> list[Change]:
    """Return the change of each measure of a comparison, from the model ``first`` to each other model.

    The changes are those of the metrics, then of the guardrails, then of the measures of agreement.
    The change of a guardrail is NaN if one of the two values is missing.

    Args:
        first: the name of the model with which the others are compared.
        differences: ``Comparison.differences``. A pair of models may have either order there.
        guardrails: model -> guardrail -> value. If it is not empty, it has the model ``first``.
        agreement: the result of ``choose.mean_agreement``.
    """
    changes = []
    for row in differences.itertuples():
        if row.against == first:
            changes.append(Change(row.metric, row.model, first, row.difference, row.low, row.high))
        elif row.model == first:
            changes.append(Change(row.metric, row.against, first, -row.difference, -row.high, -row.low))
    names = list(dict.fromkeys(name for values in guardrails.values() for name in values))
    for model, values in guardrails.items():
        for name in names if model != first else ():
            size = values.get(name, float("nan")) - guardrails[first].get(name, float("nan"))
            changes.append(Change(name, model, first, size, size, size))
    for row in agreement.to_dict("records"):
        if first in (row["a"], row["b"]):
            model = row["b"] if row["a"] == first else row["a"]
            for measure in DEFAULT_MEASURES:
                size = row[measure] - 1
                changes.append(Change(measure, model, first, size, size, size))
    return changes
