"""Draw figures as SVG text. Their colours are CSS variables of the page,
so that the same figure fits light and dark mode.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#010101"
"""The placeholder for the colour of text."""
SOFT = "#020202"
"""The placeholder for the colour of what is less important."""
ACCENT = "#030303"
"""The placeholder for the colour of what is most important."""
LINE = "#040404"
"""The placeholder for the colour of grid lines."""

# Matplotlib cannot draw with CSS variables, so it draws with placeholders.
COLOURS = {INK: "var(--ink)", SOFT: "var(--soft)", ACCENT: "var(--accent)", LINE: "var(--line)"}
"""Placeholder colour -> the CSS variable of the page that replaces it."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.family": "sans-serif",
    "font.size": 10,
}
"""The settings of matplotlib for all figures. The seed of ids makes equal figures equal files."""


def dots(cells: dict[str, tuple[float, list[float] | None]], label: str, neutral: float) -> str:
    """Return an SVG figure with one row per name: a dot at the value, and a line over the interval.

    The first name is at the top. The result is "" if there are no names.

    Args:
        cells: name -> (value, its interval [low, high] or None).
        label: the text below the axis.
        neutral: the value that means no effect, such as 0. A dashed line marks it.
    """
    if not cells:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 0.9 + 0.34 * len(cells)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(neutral, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        for row, (value, ends) in enumerate(cells.values()):
            if ends:
                axes.plot(ends, [row, row], color=ACCENT, linewidth=2.5, solid_capstyle="round")
            axes.plot(value, row, "o", color=ACCENT, markersize=6)
        axes.set_yticks(range(len(cells)), [shorten_name(name, 18) for name in cells])
        axes.set_ylim(len(cells) - 0.4, -0.6)
        # Long names leave the axes too little room for the label, which the figure has.
        figure.supxlabel(label, color=INK, fontsize=10)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def bare(axes: Axes) -> None:
    """Remove the frame and the tick marks of the axes."""
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def shorten_name(name: str, max_length: int = 40) -> str:
    """Return a name for a figure, cut to ``max_length`` characters and with dollar signs escaped.

    A name that is cut ends in "…". Runs of spaces become one space. Without the escape, matplotlib
    would read the text between two dollar signs as a formula.

    >>> shorten_name("a long name", 6)
    'a lon…'
    """
    name = " ".join(name.split())
    if len(name) > max_length:
        name = name[: max_length - 1] + "…"
    return name.replace("$", r"\$")


def svg(figure: Figure) -> str:
    """Return the SVG text of a figure without its XML head, in the colours of the page."""
    text = io.StringIO()
    with missing_letters_ignored():
        # Without a date, two reports of one run are the same file.
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    for placeholder, colour in COLOURS.items():
        svg = svg.replace(placeholder, colour)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # The page draws a figure 1.4 times as large where there is room, and never smaller than it is,
    # because its text could not be read.
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', svg[: svg.index(">")])
    size = f"width: calc(1.4 * {width}px); max-width: max(100%, {width}px)"
    return re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}" style="{size}">', svg, count=1)


@contextmanager
def missing_letters_ignored() -> Iterator[None]:
    """Suppress matplotlib's warnings about letters that its fonts do not have, in a ``with`` block.

    The letter is shown nevertheless, because the browser draws the text with its own fonts.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield
