"""The drawings of a run's report, as SVG text; each takes plain numbers and names and computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from recsys.report.figures import ACCENT, INK, LINE, SOFT, STYLE, bare, short, svg

Points = dict[str, tuple[float, float]]


def scatter(panels: dict[str, Points], y_label: str, marked: str | None) -> str:
    """Return a panel a key, its label below: a named dot a model, the ``marked`` one in the accent colour."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1 * len(panels), 3.6), layout="constrained")
        for axes, (label, points) in zip(
            figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True
        ):
            for name, (x, y) in points.items():
                axes.plot(x, y, "o", color=ACCENT if name == marked else SOFT, markersize=7 if name == marked else 5)
            _name(axes, points, marked, longest=14)
            axes.set_xlabel(label, color=INK)
            axes.margins(0.12)
            axes.grid(color=LINE, linewidth=0.8)
            bare(axes)
        figure.axes[0].set_ylabel(y_label, color=INK)
        return svg(figure)


def heat(values: np.ndarray, names: list[str], title: str) -> str:
    """Return a square a pair of names, the deeper the more alike (0 … 1), its number in it."""
    n, labels = len(names), [short(name, 18) for name in names]
    side = 1.6 + 0.45 * n
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        for row, column in np.argwhere(np.isfinite(values)):
            value = values[row, column]
            shade = 0.55 * float(np.clip(value, 0.0, 1.0))  # never so deep that ink on it becomes hard to read
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=ACCENT, alpha=shade, linewidth=0))
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=INK)
        axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
        axes.set_title(title, fontsize=10, color=INK, loc="left")
        axes.set_xticks(range(n), labels, rotation=90)
        axes.set_yticks(range(n), labels)
        bare(axes)
        return svg(figure)


def lines(curves: dict[str, Any], x_label: str, y_label: str, marked: str | None, x: list[float] | None = None) -> str:
    """Return a line a name over ``x`` (default 1, 2, …), each named at its right end."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        ends: Points = {}
        for name, values in curves.items():
            at = x or list(range(1, len(values) + 1))
            colour, width = (ACCENT, 2.2) if name == marked else (SOFT, 1.2)
            axes.plot(at, values, "o-", color=colour, linewidth=width, markersize=3.5)
            if np.isfinite(values).any():
                last = int(np.flatnonzero(np.isfinite(values))[-1])
                ends[name] = (at[last], values[last])
        axes.margins(x=0.16)
        if x is None:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name(axes, ends, marked)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def bars(values: dict[str, float], label: str) -> str:
    """Return a horizontal bar a name, with its number."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.8 + 0.27 * len(values)), layout="constrained")
        axes = figure.add_subplot()
        for place, value in enumerate(values.values()):
            axes.barh(place, value, color=ACCENT, alpha=0.75, height=0.62)
            axes.text(value, place, f" {value:,.1f}", va="center", fontsize=9, color=INK)
        axes.set_yticks(range(len(values)), [short(name) for name in values])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.set_xlabel(label, color=INK)
        bare(axes)
        return svg(figure)


def share_curve(shares: np.ndarray, label: str, y_label: str) -> str:
    """Return how a total gathers over the first x % of its parts; ``shares``: falling, they sum to 1."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        at = np.unique(np.geomspace(1, len(shares), num=min(len(shares), 200)).astype(int))
        axes.plot(100 * at / len(shares), 100 * np.cumsum(shares)[at - 1], color=ACCENT, linewidth=2.2)
        axes.plot([0, 100], [0, 100], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel(label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def cloud(at: np.ndarray, labels: dict[int, str], x_label: str, y_label: str) -> str:
    """Return float[n, 2] points; those in ``labels`` (point -> text) stand out and are named where there is room."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.2), layout="constrained")
        axes = figure.add_subplot()
        named = np.isin(np.arange(len(at)), list(labels))
        axes.plot(*at[~named].T, ".", color=SOFT, markersize=4, alpha=0.55, markeredgewidth=0)
        axes.plot(*at[named].T, "o", color=ACCENT, markersize=5)
        axes.margins(0.1)
        _name(axes, {text: (at[row, 0], at[row, 1]) for row, text in labels.items()}, None, longest=26)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(color=LINE, linewidth=0.8)
        bare(axes)
        return svg(figure)


def _name(axes: Axes, points: Points, marked: str | None, longest: int = 18) -> None:
    """Write each name beside its point, on the side and at the height where it covers none already written."""
    axes.autoscale_view()
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    dot = (0.012 * (right - left), 0.02 * (high - low))
    taken: list[tuple[float, ...]] = [(x - dot[0], y - dot[1], x + dot[0], y + dot[1]) for x, y in points.values()]
    for name, (x, y) in sorted(points.items(), key=lambda point: point[0] != marked):
        text = short(name, longest)
        width, height = 0.013 * (len(text) + 1) * (right - left), 0.055 * (high - low)
        for to_right, dy in _places():
            at = (x + 1.1 * dot[0] if to_right else x - width - 1.1 * dot[0], y + dy * height - height / 2)
            box = (*at, at[0] + width, at[1] + height)
            if not any(_meet(box, other) for other in taken):
                taken.append(box)
                shift = (7 if to_right else -7, 0)
                axes.annotate(
                    text,
                    (x, y + dy * height),
                    shift,
                    textcoords="offset points",
                    ha="left" if to_right else "right",
                    va="center",
                    fontsize=8.5,
                    color=ACCENT if name == marked else INK,
                )
                break


def _places() -> Iterator[tuple[bool, float]]:
    for dy in (0.0, 1.0, -1.0, 2.0, -2.0):
        yield True, dy
        yield False, dy


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
