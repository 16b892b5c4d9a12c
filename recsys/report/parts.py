"""What a page is made of, and how numbers are formatted on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReportTable:
    """A caption, column heads, and rows of text;
    the columns from index ``numbers`` on hold numbers.
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
    """Return a mean with its interval, – if it is undefined."""
    if cell["mean"] is None:
        return "–"
    if sign:
        number = f"{cell['mean']:+.4f}"
    else:
        number = f"{cell['mean']:.4f}"
    return f"{number} {format_interval(cell['ci95'], sign)}"


def format_interval(ends: list[float | None], sign: bool = False) -> str:
    """Return ``[low, high]``, empty if an end is undefined."""
    low, high = ends
    if low is None or high is None:
        return ""
    if sign:
        return f"[{low:+.4f}, {high:+.4f}]"
    return f"[{low:.4f}, {high:.4f}]"
