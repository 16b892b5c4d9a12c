"""What a page is made of, and how numbers are written on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BASELINES = ("random", "popular", "recent")


@dataclass(frozen=True)
class Table:
    """A caption, column heads, rows of text; the columns from ``numbers`` on are numbers."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: int = 1


@dataclass(frozen=True)
class Drawing:
    """A figure: SVG of our own making, and what it shows in words."""

    svg: str
    label: str


@dataclass(frozen=True)
class Section:
    """A headed part: paragraphs, warnings, figures, tables, code."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    code: str | None = None


@dataclass(frozen=True)
class Content:
    """``verdict`` stands first."""

    title: str
    verdict: str
    sections: list[Section]


def mean(cell: dict[str, Any], sign: bool = False) -> str:
    """Return a mean and its interval, – where undefined."""
    if cell["mean"] is None:
        return "–"
    return f"{cell['mean']:{'+' if sign else ''}.4f} {interval(cell['ci95'], sign)}"


def interval(ends: list[float | None], sign: bool = False) -> str:
    """Return [low, high]."""
    form = "+.4f" if sign else ".4f"
    return "" if ends[0] is None or ends[1] is None else f"[{ends[0]:{form}}, {ends[1]:{form}}]"
