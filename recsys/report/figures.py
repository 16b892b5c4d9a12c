"""Figures as SVG text. Ink and accent are CSS variables of the page, so that one figure serves light and dark."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"#010101": "var(--ink)", "#020202": "var(--soft)", "#030303": "var(--accent)", "#040404": "var(--line)"}
"""Placeholder that matplotlib draws with -> what the page shows."""

INK, SOFT, ACCENT, LINE = COLOURS

STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "recsys", "font.family": "sans-serif", "font.size": 10}


def dots(cells: dict[str, tuple[float, list[float] | None]], label: str, neutral: float) -> str:
    """Return a row a name: a dot at its value, a line over its interval where it has one; "" without any.

    ``neutral``: where a dashed line stands, the value that says nothing.
    """
    if not cells:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(cells)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(neutral, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for place, (value, ends) in enumerate(cells.values()):
            if ends:
                axes.plot(ends, [place, place], color=ACCENT, linewidth=2.5, solid_capstyle="round")
            axes.plot(value, place, "o", color=ACCENT, markersize=6)
        axes.set_yticks(range(len(cells)), [short(name, 28) for name in cells])
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_xlabel(label, color=INK)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def bare(axes: Axes) -> None:
    """Take away the frame and the tick marks."""
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def short(name: str, most: int = 40) -> str:
    """Return a name cut to fit, with nothing that matplotlib would read as mathematics."""
    name = " ".join(name.split())
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")


def svg(figure: Figure) -> str:
    """Return the figure without XML head, with the page's colours and no size but its widest."""
    text = io.StringIO()
    with warnings.catch_warnings():  # the page's own fonts draw the text; matplotlib's need not have its letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for placeholder, colour in COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(<svg[^>]*?) width="([^"]*)pt"', r'\1 style="max-width: calc(1.4 * \2px)"', svg, count=1)
