"""The figures of the report of a run, as SVG text;
each takes numbers and names and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from recsys.report.figures import ACCENT, INK, LINE, SOFT, STYLE, bare, shorten_name, svg

Points = dict[str, tuple[float, float]]
Box = tuple[float, float, float, float]
"""(x_min, y_min, x_max, y_max)."""


def scatter(panels: dict[str, Points], y_label: str, marked: str | None) -> str:
    """Return one panel per label with one named dot per model;
    the ``marked`` one has the accent colour.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1 * len(panels), 3.6), layout="constrained")
        for axes, (label, points) in zip(
            figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True
        ):
            for name, (x, y) in points.items():
                colour = SOFT
                size = 5
                if name == marked:
                    colour = ACCENT
                    size = 7
                axes.plot(x, y, "o", color=colour, markersize=size)
            _write_names(axes, points, marked, longest=14)
            axes.set_xlabel(label, color=INK)
            axes.margins(0.12)
            axes.grid(color=LINE, linewidth=0.8)
            bare(axes)
        figure.axes[0].set_ylabel(y_label, color=INK)
        return svg(figure)


def heat(values: np.ndarray, names: list[str], title: str) -> str:
    """Return one square per pair of names with its number in it; a higher value (0 … 1)
    has a deeper colour.
    """
    n = len(names)
    labels = [shorten_name(name, 18) for name in names]
    side = 1.6 + 0.45 * n
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        for row, column in np.argwhere(np.isfinite(values)):
            value = values[row, column]
            # Text on a deeper colour would be hard to read.
            shade = 0.55 * float(np.clip(value, 0.0, 1.0))
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=ACCENT, alpha=shade, linewidth=0))
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=INK)
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xticks(range(n), labels, rotation=90)
        axes.set_yticks(range(n), labels)
        bare(axes)
        return svg(figure)


def lines(
    curves: dict[str, Any],
    x_label: str,
    y_label: str,
    marked: str | None,
    x: list[float] | None = None,
) -> str:
    """Return one line per name over ``x`` (default 1, 2, …), with its name at its right end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        ends: Points = {}
        for name, values in curves.items():
            positions = x or list(range(1, len(values) + 1))
            colour = SOFT
            width = 1.2
            if name == marked:
                colour = ACCENT
                width = 2.2
            axes.plot(positions, values, "o-", color=colour, linewidth=width, markersize=3.5)
            # A curve may end in undefined values; its name belongs to its last defined point.
            if np.isfinite(values).any():
                last = int(np.flatnonzero(np.isfinite(values))[-1])
                ends[name] = (positions[last], values[last])
        axes.margins(x=0.16)
        if x is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _write_names(axes, ends, marked)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def bars(values: dict[str, float], label: str) -> str:
    """Return one horizontal bar per name, with its number."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.8 + 0.27 * len(values)), layout="constrained")
        axes = figure.add_subplot()
        for row, value in enumerate(values.values()):
            axes.barh(row, value, color=ACCENT, alpha=0.75, height=0.62)
            axes.text(value, row, f" {value:,.1f}", va="center", fontsize=9, color=INK)
        axes.set_yticks(range(len(values)), [shorten_name(name) for name in values])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.set_xlabel(label, color=INK)
        bare(axes)
        return svg(figure)


def share_curve(shares: np.ndarray, label: str, y_label: str) -> str:
    """Return the cumulative share of a total over the first x % of its parts.

    Args:
        shares: the share of each part, in falling order; their sum is 1.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        # A catalogue may have millions of items, but 200 points on a logarithmic scale draw the
        # same curve in a much smaller file.
        counts = np.unique(np.geomspace(1, len(shares), num=min(len(shares), 200)).astype(int))
        axes.plot(
            100 * counts / len(shares),
            100 * np.cumsum(shares)[counts - 1],
            color=ACCENT,
            linewidth=2.2,
        )
        axes.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def cloud(points: np.ndarray, labels: dict[int, str], x_label: str, y_label: str) -> str:
    """Return a figure of points; those with a label have the accent colour,
    and a name if there is room.

    Args:
        points: float[n, 2].
        labels: row of a point -> its name.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.2), layout="constrained")
        axes = figure.add_subplot()
        named = np.isin(np.arange(len(points)), list(labels))
        axes.plot(*points[~named].T, ".", color=SOFT, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot(*points[named].T, "o", color=ACCENT, markersize=5)
        axes.margins(0.1)
        _write_names(
            axes,
            {text: (points[row, 0], points[row, 1]) for row, text in labels.items()},
            None,
            longest=26,
        )
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def _write_names(axes: Axes, points: Points, marked: str | None, longest: int = 18) -> None:
    """Write each name beside its point, at the first position where it covers no point and no other
    name.
    """
    axes.autoscale_view()
    x_min, x_max = axes.get_xlim()
    y_min, y_max = axes.get_ylim()
    dot_x = 0.012 * (x_max - x_min)
    dot_y = 0.02 * (y_max - y_min)
    taken: list[Box] = [(x - dot_x, y - dot_y, x + dot_x, y + dot_y) for x, y in points.values()]
    # The marked name is placed first, before others can take its position.
    for name, (x, y) in sorted(points.items(), key=lambda point: point[0] != marked):
        text = shorten_name(name, longest)
        width = 0.013 * (len(text) + 1) * (x_max - x_min)
        height = 0.055 * (y_max - y_min)
        colour = INK
        if name == marked:
            colour = ACCENT
        # A name that fits nowhere is left out: the table below the figure has it.
        for side, lines_up in _positions():
            if side == "left":
                x_start = x + 1.1 * dot_x
            else:
                x_start = x - width - 1.1 * dot_x
            y_start = y + lines_up * height - height / 2
            box = (x_start, y_start, x_start + width, y_start + height)
            if any(_overlap(box, other_box) for other_box in taken):
                continue
            taken.append(box)
            axes.annotate(
                text,
                (x, y + lines_up * height),
                (7 if side == "left" else -7, 0),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=8.5,
                color=colour,
            )
            break


def _positions() -> Iterator[tuple[Literal["left", "right"], float]]:
    """Yield (side of the text that is at the point, lines above the point),
    the best position first.
    """
    for lines_up in (0.0, 1.0, -1.0, 2.0, -2.0):
        yield "left", lines_up
        yield "right", lines_up


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
