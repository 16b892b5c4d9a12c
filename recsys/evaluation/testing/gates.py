"""Gates: conditions under which a comparison fails, for continuous integration;
one line of text each.

"ndcg@10 drops 0.01"     fires when the estimate falls by more than 0.01 and the interval excludes
0: harm is shown "ndcg@10 within 0.01"    fires unless the interval's lower end is above -0.01:
harmlessness is not shown
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from recsys.errors import ConfigError, suggest_nearest

KINDS = ("drops", "within")
_PATTERN = re.compile(r"(?P<metric>\S+)\s+(?P<kind>\w+)\s+(?P<limit>\d*\.?\d+)")


@dataclass(frozen=True)
class Gate:
    """A condition on one metric; ``limit`` ≥ 0 is in the metric's unit."""

    metric: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str, metrics: list[str]) -> Gate:
        """Return the gate of a text ``METRIC drops LIMIT`` or ``METRIC within LIMIT``.

        Raises:
            ConfigError: the text has another form, or the metric was not judged.
        """
        match = _PATTERN.fullmatch(text.strip())
        if not match:
            raise ConfigError(
                f"--fail-if '{text}': write METRIC drops LIMIT, or METRIC within LIMIT.",
            )
        metric = match["metric"]
        kind = match["kind"]
        if kind not in KINDS:
            raise ConfigError(
                f"--fail-if '{text}': '{kind}' is neither 'drops' nor 'within'.{suggest_nearest(kind, KINDS)}",
            )
        if metric not in metrics:
            raise ConfigError(
                f"--fail-if '{text}': these runs have no metric '{metric}'.{suggest_nearest(metric, metrics)}",
            )
        return cls(metric, kind, float(match["limit"]))

    def fires(self, row: Any) -> bool:
        """Return whether a row of ``Comparison.differences`` fails;
        an undefined difference fails ``within`` only.
        """
        if self.kind == "drops":
            return bool(row.difference < -self.limit and row.high < 0)
        # Negated, so that a NaN fires the gate.
        return not row.low > -self.limit

    def describe(self, row: Any) -> str:
        """Return the gate and the difference that it was applied to, in one line."""
        return (
            f"{self.metric} {self.kind} {self.limit:g}: {row.model} - {row.against} ="
            f" {row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
        )
