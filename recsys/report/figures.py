"""Figures as SVG text. Ink and accent are CSS variables of the page, so that one figure serves light and dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = {"#010101": "var(--ink)", "#020202": "var(--soft)", "#030303": "var(--accent)", "#040404": "var(--line)"}
"""Placeholder that matplotlib draws with -> what the page shows."""

INK, SOFT, ACCENT, LINE = COLOURS

STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "recsys", "font.family": "sans-serif", "font.size": 10}


def differences(metrics: dict[str, Any]) -> str:
    """Return a forest plot of every model's difference from the baseline in the primary metric; "" without any."""
    about = metrics["about"]
    primary = about["primary"]
    rows = [
        (name, cells[primary]) for name, cells in metrics["differences"].items() if cells[primary]["mean"] is not None
    ]
    if not rows:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.38 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for place, (_, cell) in enumerate(rows):
            low, high = cell["ci95"]
            axes.plot([low, high], [place, place], color=ACCENT, linewidth=2.5, solid_capstyle="round")
            axes.plot(cell["mean"], place, "o", color=ACCENT, markersize=6)
        axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"{primary} minus that of {about['baseline']}, 95 % interval", color=INK)
        axes.tick_params(colors=INK, length=0)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        return svg(figure)


def _short(name: str) -> str:
    name = name if len(name) <= 40 else name[:39] + "…"
    return name.replace("$", r"\$")  # matplotlib reads $…$ as mathematics


def svg(figure: Figure) -> str:
    """Return the figure without XML head, with the page's colours and no fixed size."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for placeholder, colour in COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
