"""Conditions under which a comparison fails, for continuous integration: one line of text each.

"ndcg@10 drops 0.01"     fires when the estimate falls by more than 0.01 and the interval excludes 0: proof of harm
"ndcg@10 within 0.01"    fires unless the interval's lower end is above -0.01: no proof of harmlessness
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from recsys.errors import ConfigError, suggest_nearest

_FORM = re.compile(r"(?P<metric>\S+)\s+(?P<kind>\w+)\s+(?P<limit>\d*\.?\d+)")


@dataclass(frozen=True)
class Gate:
    """``kind``: drops or within; ``limit``: ≥ 0, in the metric's unit."""

    metric: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str, metrics: list[str]) -> Gate:
        """Read ``METRIC drops|within LIMIT``.

        Raises:
            ConfigError: of another form, or a metric that was not judged.
        """
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ConfigError(f"--fail-if '{text}': write METRIC drops LIMIT, or METRIC within LIMIT.")
        if match["kind"] not in ("drops", "within"):
            raise ConfigError(
                f"--fail-if '{text}': '{match['kind']}'?{suggest_nearest(match['kind'], ['drops', 'within'])}"
            )
        if match["metric"] not in metrics:
            raise ConfigError(
                f"--fail-if '{text}': no such metric in these runs.{suggest_nearest(match['metric'], metrics)}"
            )
        return cls(match["metric"], match["kind"], float(match["limit"]))

    def fires(self, row: Any) -> bool:
        """Whether a row of ``Comparison.differences`` trips it; an undefined difference trips ``within`` only."""
        if self.kind == "drops":
            return bool(row.difference < -self.limit and row.high < 0)
        return not row.low > -self.limit

    def says(self, row: Any) -> str:
        """Return the finding in words."""
        return (
            f"{self.metric} {self.kind} {self.limit:g}: {row.model} - {row.against} = {row.difference:+.4f}"
            f" [{row.low:+.4f}, {row.high:+.4f}]"
        )
