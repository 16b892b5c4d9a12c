"""Gates: conditions under which a comparison fails, for continuous integration; one line of text
each.

    ndcg@10 drops 0.01       fires when the estimate falls by more than 0.01 and the interval
    excludes
                             0: harm is shown
    ms_per_user rises 5      the same for an increase ndcg@10 within 0.01      fires unless the
    interval's lower end is above -0.01: harmlessness is not
                             shown; of a cost, unless the upper end is below 0.01
 A gate is on a metric, on a guardrail (``coverage`` …) or on a measure of agreement (``rbo`` …).
The last two have no interval: their value alone counts. Agreement is compared with 1, that of a
model with itself.
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
    """A measure of ``model`` minus that of ``against``, with its interval; NaN where it is
    unknown.
    """

    measure: str
    model: str
    against: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Gate:
    """A condition on one measure; ``limit`` ≥ 0 is in the measure's unit."""

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
        """Return whether a change fails; an unknown one fails ``within`` only."""
        if self.kind == "drops":
            return bool(change.difference < -self.limit and change.high < 0)
        if self.kind == "rises":
            return bool(change.difference > self.limit and change.low > 0)
        # Negated, so that a NaN fires the gate.
        if self.measure in GUARDRAILS and GUARDRAILS[self.measure][1] >= 1:
            return not change.high < self.limit
        return not change.low > -self.limit

    def describe(self, change: Change) -> str:
        """Return the gate and the change that it was applied to, in one line."""
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
    """Return how every other model differs from the first, in everything that a comparison prints.

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
