"""Draw the figures of the report of a run as SVG text.

The functions take numbers and names. They do not read a run.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.report.figures import ACCENT, INK, LINE, SOFT, STYLE, bare, shorten_name, svg
from recsys.report.labels import LINE_HEIGHT, Points, name_line_ends, name_points


def scatter(points: Points, x_label: str, y_label: str, marked: str | None) -> str:
    """Return an SVG figure with one dot per model, and its name beside the dot.

    Args:
        points: name of a model -> (x, y).
        x_label, y_label: the texts at the axes.
        marked: the model whose dot has the accent colour.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for name, (x, y) in points.items():
            colour = SOFT
            size = 5
            if name == marked:
                colour = ACCENT
                size = 7
            axes.plot(x, y, "o", color=colour, markersize=size)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.margins(0.15)
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        name_points(axes, points, marked, max_length=14)
        return svg(figure)


def lines(
    curves: dict[str, Any],
    x_label: str,
    y_label: str,
    marked: str | None,
    x: list[float] | None = None,
) -> str:
    """Return an SVG figure with one line per name. The name of a line is at its right end.

    Args:
        curves: name -> float[n], the values of the line. NaN is a missing value.
        x_label, y_label: the texts at the axes.
        marked: the name whose line has the accent colour.
        x: the position of each value on the horizontal axis. None: 1, 2, …
    """
    with matplotlib.rc_context(STYLE):
        # Each name needs a line of its own at the right.
        height = max(3.4, 1.0 + LINE_HEIGHT / 72 * len(curves))
        figure = Figure(figsize=(7.2, height), layout="constrained")
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
        if x is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        bare(axes)
        name_line_ends(axes, ends, marked)
        return svg(figure)


def bars(values: dict[str, float], label: str) -> str:
    """Return an SVG figure with one horizontal bar per name, and its value beside the bar.

    Args:
        values: name -> value.
        label: the text below the axis.
    """
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
    """Return an SVG figure of cumulative shares, for example of the likes on the most liked items.

    At x, the curve has the sum of the largest x % of the shares. A dashed line shows equal shares.

    Args:
        shares: float[n], the shares of a total, largest first. Their sum is 1.
        label, y_label: the texts at the horizontal and the vertical axis.
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
    """Return an SVG figure of many points, some of which have names.

    A point with a name has the accent colour. Its name is written if there is room.

    Args:
        points: float[n, 2], (x, y) of each point.
        labels: row of a point -> its name.
        x_label, y_label: the texts at the axes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.2), layout="constrained")
        axes = figure.add_subplot()
        named = np.isin(np.arange(len(points)), list(labels))
        axes.plot(*points[~named].T, ".", color=SOFT, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot(*points[named].T, "o", color=ACCENT, markersize=5)
        axes.margins(0.1)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        names = {text: (points[row, 0], points[row, 1]) for row, text in labels.items()}
        name_points(axes, names, None, max_length=26)
        return svg(figure)
