"""Figures as SVG text. Their colours are CSS variables of the page,
so that one figure fits light and dark mode.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010101"
SOFT = "#020202"
ACCENT = "#030303"
LINE = "#040404"

# Matplotlib cannot draw with CSS variables, so it draws with placeholders.
COLOURS = {INK: "var(--ink)", SOFT: "var(--soft)", ACCENT: "var(--accent)", LINE: "var(--line)"}
"""Placeholder -> the CSS variable that replaces it."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.family": "sans-serif",
    "font.size": 10,
}


def dots(cells: dict[str, tuple[float, list[float] | None]], label: str, neutral: float) -> str:
    """Return one row per name with a dot at its value and a line over its interval, if any;
    "" without names.

    Args:
        cells: name -> (value, interval or None).
        neutral: the value without meaning, marked by a dashed line.
    """
    if not cells:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.34 * len(cells)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(neutral, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for row, (value, ends) in enumerate(cells.values()):
            if ends:
                axes.plot(ends, [row, row], color=ACCENT, linewidth=2.5, solid_capstyle="round")
            axes.plot(value, row, "o", color=ACCENT, markersize=6)
        axes.set_yticks(range(len(cells)), [shorten_name(name, 28) for name in cells])
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.set_xlabel(label, color=INK)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def bare(axes: Axes) -> None:
    """Remove the frame and the tick marks."""
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def shorten_name(name: str, max_length: int = 40) -> str:
    """Return a name of at most ``max_length`` characters, in which matplotlib sees no formula."""
    name = " ".join(name.split())
    if len(name) > max_length:
        name = name[: max_length - 1] + "…"
    return name.replace("$", r"\$")


def svg(figure: Figure) -> str:
    """Return the SVG text of a figure without its XML head, in the colours of the page,
    as wide as the page allows.
    """
    text = io.StringIO()
    # The browser draws the text with its own fonts, so the fonts of matplotlib need not have its
    # letters.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        # Without a date, two reports of one run are the same file.
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for placeholder, colour in COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # Without a height the browser keeps the proportions of the figure at any width.
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(<svg[^>]*?) width="([^"]*)pt"', r'\1 style="max-width: calc(1.4 * \2px)"', svg, count=1)
