"""Gates: conditions under which ``recsys compare`` fails, for continuous integration, one line
each.

    ndcg@10 drops 0.01       fails if the difference is below -0.01 and its interval below 0: harm is
                             shown
    ms_per_user rises 5      fails if the difference is above 5 and its interval above 0
    ndcg@10 within 0.01      fails unless the lower end of the interval is above -0.01: harmlessness
                             is not shown; for a cost, unless the upper end is below 0.01

A gate is on a metric, on a guardrail (``coverage`` …) or on a measure of agreement (``rbo`` …). The
last two have no interval, so only their value counts. Agreement is compared with 1, which is the
agreement of a model with itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.agreement.system_pairs import DEFAULT_MEASURES
from recsys.evaluation.testing.choose import GUARDRAILS

KINDS = ("drops", "rises", "within")
_PATTERN = re.compile(r"(?P<measure>\S+)\s+(?P<kind>\w+)\s+(?P<limit>\d*\.?\d+)")


@dataclass(frozen=True)
class Change:
    """The difference of a measure between ``model`` and ``against``, with its interval. Unknown
    values are NaN."""

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
        limit: the size of the change, ≥ 0, in the unit of the measure.
    """

    measure: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str, measures: Collection[str]) -> Gate:
        """Return the gate of a text ``MEASURE drops LIMIT``, ``… rises LIMIT`` or ``… within
        LIMIT``.

        Raises:
            ConfigError: the text has another form, or the comparison has no such measure.
        """
        match = _PATTERN.fullmatch(text.strip())
        if not match:
            raise ConfigError(
                f"--fail-if '{text}': write METRIC drops LIMIT, METRIC rises LIMIT, or METRIC within LIMIT.",
            )
        measure = match["measure"]
        kind = match["kind"]
        if kind not in KINDS:
            raise ConfigError(
                f"--fail-if '{text}': no condition '{kind}'.{suggest_nearest(kind, KINDS)}",
            )
        if measure not in measures:
            raise ConfigError(
                f"--fail-if '{text}': this comparison has no '{measure}'.{suggest_nearest(measure, measures)}",
            )
        return cls(measure, kind, float(match["limit"]))

    def fires(self, change: Change) -> bool:
        """Return whether a change makes the comparison fail. An unknown change only fails
        ``within``."""
        if self.kind == "drops":
            return bool(change.difference < -self.limit and change.high < 0)
        if self.kind == "rises":
            return bool(change.difference > self.limit and change.low > 0)
        # Negated, so that a NaN fires the gate.
        if self.measure in GUARDRAILS and GUARDRAILS[self.measure][1] >= 1:
            return not change.high < self.limit
        return not change.low > -self.limit

    def describe(self, change: Change) -> str:
        """Return one line with the gate and the change that it was applied to."""
        return (
            f"{self.measure} {self.kind} {self.limit:g}: {change.model} - {change.against} ="
            f" {change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
        )


def changes_from(
    first: str,
    differences: pd.DataFrame,
    guardrails: Mapping[str, Mapping[str, float]],
    agreement: pd.DataFrame,
) -> list[Change]:
    """Return the changes of all measures of a comparison, of every other model against ``first``.

    Args:
        differences: ``Comparison.differences``.
        guardrails: model -> guardrail -> value.
        agreement: ``choose.mean_agreement``.
    """
    changes = [
        Change(row.metric, row.model, first, row.difference, row.low, row.high)
        for row in differences[differences["against"] == first].itertuples()
    ]
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
