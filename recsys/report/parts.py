"""What a page is made of, and how numbers are formatted on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReportTable:
    """A table of text cells with a caption and column heads.

    ``numbers``: index of the first column that holds numbers. All later columns hold numbers too.
    """

    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: int = 1


@dataclass(frozen=True)
class Drawing:
    """A figure: SVG made by this package, and a label that says what it shows."""

    svg: str
    label: str


@dataclass(frozen=True)
class Section:
    """A part of a page with a title: paragraphs, warnings, figures, tables, code."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    code: str | None = None


@dataclass(frozen=True)
class Report:
    """A whole page; ``verdict`` is the sentence that it opens with."""

    title: str
    verdict: str
    sections: list[Section]


def format_mean(cell: dict[str, Any], sign: bool = False) -> str:
    """Return a mean and its interval as the text ``mean [low, high]``, with four decimals.

    The text is a dash (–) if the mean is None.

    Args:
        cell: a dict with ``mean`` and ``ci95``.
        sign: whether a positive number has a plus sign.
    """
    if cell["mean"] is None:
        return "–"
    if sign:
        number = f"{cell['mean']:+.4f}"
    else:
        number = f"{cell['mean']:.4f}"
    return f"{number} {format_interval(cell['ci95'], sign)}"


def format_interval(ends: list[float | None], sign: bool = False) -> str:
    """Return an interval as the text ``[low, high]``, with four decimals.

    The text is empty if one of the two ends is None.

    Args:
        sign: whether a positive number has a plus sign.
    """
    low, high = ends
    if low is None or high is None:
        return ""
    if sign:
        return f"[{low:+.4f}, {high:+.4f}]"
    return f"[{low:.4f}, {high:.4f}]"
