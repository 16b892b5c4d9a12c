"""Write names beside the points and lines of a figure, so that no two names overlap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from recsys.report.figures import ACCENT, INK, SOFT, missing_letters_ignored, shorten_name

Points = dict[str, tuple[float, float]]
"""Name of a point -> its coordinates (x, y)."""
Box = tuple[float, float, float, float]
"""A rectangle in a figure: (x_min, y_min, x_max, y_max) from the lower left corner of the figure, in
points (1/72 inch)."""

FONT_SIZE = 8.5
"""The size of the letters of a name, in points (1/72 inch)."""
LINE_HEIGHT = 12.0
"""The height that a name takes, in points."""
LINE_STYLE: dict[str, Any] = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
"""The style of the line from a point to its name."""

DOT = 4.0
"""Half the side of the square around a point that stays free of names, in points (1/72 inch)."""


def name_points(axes: Axes, points: Points, marked: str | None, max_length: int = 18) -> None:
    """Write the name of each point near the point, where it covers no point and no other name.

    All names are inside the axes. A line connects a name with its point if the name is not directly
    beside it. A name without a free position is left out; the table below the figure has it.

    Args:
        points: name -> (x, y) in the coordinates of the data.
        marked: the name that is written in the accent colour, and is placed first.
        max_length: longer names are cut to this number of characters.
    """
    scale = _lay_out(axes)
    centres = {name: scale * axes.transData.transform(point) for name, point in points.items()}
    taken: list[Box] = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in centres.values()]
    x_min, y_min, x_max, y_max = (scale * end for end in axes.bbox.extents)
    # The marked name is placed first, before others can take its position.
    for name in sorted(points, key=lambda name: name != marked):
        text = shorten_name(name, max_length)
        width = text_width(text)
        x, y = centres[name]
        for x_offset, y_offset in _offsets(width):
            start = x + x_offset
            bottom = y + y_offset - LINE_HEIGHT / 2
            box = (start, bottom, start + width, bottom + LINE_HEIGHT)
            if box[0] < x_min or box[1] < y_min or box[2] > x_max or box[3] > y_max:
                continue
            if any(_overlap(box, other_box) for other_box in taken):
                continue
            taken.append(box)
            _write(axes, text, points[name], (x_offset, y_offset), is_marked=name == marked)
            break


def name_line_ends(axes: Axes, ends: Points, marked: str | None, max_length: int = 24) -> None:
    """Write the names of curves in a column at the right of the axes.

    The names are in the vertical order of the right ends of the curves. A thin line connects each
    end with its name.

    Args:
        ends: name -> (x, y) of the right end of the curve, in the coordinates of the data.
        marked: the name that is written in the accent colour.
        max_length: longer names are cut to this number of characters.
    """
    scale = _lay_out(axes)
    y_min = scale * axes.bbox.y0
    y_max = scale * axes.bbox.y1
    names = sorted(ends, key=lambda name: ends[name][1])
    heights = [scale * float(axes.transData.transform(ends[name])[1]) for name in names]
    for name, height in zip(names, spread(heights, y_min, y_max), strict=True):
        colour = INK
        if name == marked:
            colour = ACCENT
        axes.annotate(
            shorten_name(name, max_length),
            ends[name],
            (1.03, (height - y_min) / (y_max - y_min)),
            textcoords=axes.transAxes,
            ha="left",
            va="center",
            fontsize=FONT_SIZE,
            color=colour,
            annotation_clip=False,
            arrowprops=LINE_STYLE | {"relpos": (0.0, 0.5)},
        )


def spread(heights: list[float], lowest: float, highest: float) -> list[float]:
    """Move heights apart, so that neighbours differ by at least the height of a line of text.

    The result is ascending, and as close as possible to ``heights``. It is between ``lowest`` and
    ``highest`` if there is room; otherwise it starts at ``lowest``.

    Args:
        heights: ascending, in points (1/72 inch).
        lowest, highest: in the same unit.
    """
    lines = [height - row * LINE_HEIGHT for row, height in enumerate(heights)]
    # Without the lines between them the heights only have to ascend: neighbours that do not are
    # put at their mean (isotonic regression).
    pools: list[list[float]] = []
    for height in lines:
        pools.append([height])
        while len(pools) > 1 and _mean(pools[-2]) >= _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    ascending = [_mean(pool) for pool in pools for _ in pool]
    ceiling = highest - (len(heights) - 1) * LINE_HEIGHT
    return [max(min(height, ceiling), lowest) + row * LINE_HEIGHT for row, height in enumerate(ascending)]


def text_width(text: str) -> float:
    """Return an upper bound of the width of a text in the usual fonts of browsers, in points."""
    # The browser chooses the font. DejaVu Sans, the font measured here, is one of the widest; other
    # letters than those of ASCII count as the widest one, because it may not have them.
    letters = "".join(letter if letter.isascii() else "W" for letter in text)
    font = FontProperties(family="DejaVu Sans", size=FONT_SIZE)
    width, _, _ = TextToPath().get_text_width_height_descent(letters, font, ismath=False)
    return 1.1 * width


def _offsets(width: float) -> Iterator[tuple[float, float]]:
    """Yield the possible positions of a name relative to its point, the best position first.

    A position is the offset (x, y) of the left end of the name from the point, in points (1/72 inch).

    Args:
        width: the width of the name, in points.
    """
    for lines_up in (0, 1, -1, 2, -2, 3, -3, 4, -4):
        for x_offset in (DOT + 3, -width - DOT - 3, -width / 2):
            yield x_offset, lines_up * LINE_HEIGHT


def _write(axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], *, is_marked: bool) -> None:
    """Write a name at an offset from its point, with a line to the point if it is not beside it.

    Args:
        point: (x, y) in the coordinates of the data.
        offset: from the point to the left end of the name, in points (1/72 inch).
        is_marked: whether the name has the accent colour.
    """
    colour = INK
    if is_marked:
        colour = ACCENT
    line = None
    if abs(offset[1]) > LINE_HEIGHT:
        # The line ends at the letter of the name that is nearest to the point.
        line = LINE_STYLE | {"relpos": (min(max(-offset[0] / text_width(text), 0.0), 1.0), 0.5)}
    axes.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        ha="left",
        va="center",
        fontsize=FONT_SIZE,
        color=colour,
        arrowprops=line,
    )


def _lay_out(axes: Axes) -> float:
    """Compute the position of the axes in the figure, and return the number of points per pixel."""
    figure = cast(Figure, axes.figure)
    with missing_letters_ignored():
        figure.draw_without_rendering()
    return float(72 / figure.dpi)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _overlap(a: Box, b: Box) -> bool:
    """Return whether two rectangles overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
