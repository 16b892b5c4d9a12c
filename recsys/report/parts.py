"""The parts of a page (tables, figures, sections), and the format of its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ReportTable:
    """A table of text cells with a caption and column heads.

    Attributes:
        caption: the text above the table.
        heads: the head of each column.
        rows: the cells of each row.
        numbers: position of the first column with numbers, from 0. All later columns have numbers
            too, which are aligned at the right.
        bold: (row, column) of the cells in bold, from (0, 0), such as the best mean of a metric.
        notes: text of a cell of the first column or of a head -> a short note that is shown beside
            it.
        is_glossary: whether the first column has terms and the second their definitions.
        has_terms: whether a head that is a term of a glossary of the page links to its definition.
    """

    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: int = 1
    bold: frozenset[tuple[int, int]] = frozenset()
    notes: dict[str, str] = field(default_factory=dict)
    is_glossary: bool = False
    has_terms: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        svg: the figure as SVG text. It goes into the page as it is, so it must come from this
            package.
        label: a text that says what the figure shows.
    """

    svg: str
    label: str


@dataclass(frozen=True)
class Details:
    """A part of a page with tables, which the reader shows or hides by a click on its first line.

    Attributes:
        summary: the first line, which is always visible.
        tables: the tables.
        is_open: whether the tables are visible at first.
    """

    summary: str
    tables: list[ReportTable]
    is_open: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a page with a title: paragraphs, warnings, figures, tables, details, code.

    Attributes:
        title: the title.
        paragraphs, warnings: the texts.
        tables, figures: the tables and figures that are always visible.
        details: parts that the reader shows or hides.
        search: the label of a search box above the details. Empty: there is no box.
        code: a text in TOML that is shown as it is, or None.
    """

    title: str
    paragraphs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[ReportTable] = field(default_factory=list)
    figures: list[Drawing] = field(default_factory=list)
    details: list[Details] = field(default_factory=list)
    search: str = ""
    code: str | None = None

    @property
    def all_tables(self) -> list[ReportTable]:
        """The tables of the section: ``tables``, then those of the details."""
        return [*self.tables, *(table for details in self.details for table in details.tables)]


@dataclass(frozen=True)
class Report:
    """A whole page.

    Attributes:
        title: the title of the page.
        verdict: the result in a few sentences, at the top of the page.
        sections: the sections, in order.
    """

    title: str
    verdict: str
    sections: list[Section]

    @property
    def tables(self) -> list[ReportTable]:
        """The tables of all sections, in order."""
        return [table for section in self.sections for table in section.all_tables]


def format_mean(cell: dict[str, Any], sign: bool = False) -> str:
    """Return a mean and its interval as the text ``mean [low, high]``, with four decimals.

    The text is a dash (–) if the mean is None.

    Args:
        cell: a dict with ``mean`` and ``ci95``.
        sign: whether a positive number has a plus sign.

    >>> format_mean({"mean": 0.25, "ci95": [0.2, 0.3]})
    '0.2500 [0.2000, 0.3000]'
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
        ends: low and high.
        sign: whether a positive number has a plus sign.
    """
    low, high = ends
    if low is None or high is None:
        return ""
    if sign:
        return f"[{low:+.4f}, {high:+.4f}]"
    return f"[{low:.4f}, {high:.4f}]"


def best_places(means: list[float | None]) -> list[int]:
    """Return the positions of the highest mean in a list; several positions if means are equal.

    The result is empty if all means are undefined (None).

    >>> best_places([0.1, None, 0.3, 0.3])
    [2, 3]
    """
    highest = max((mean for mean in means if mean is not None), default=None)
    if highest is None:
        return []
    return [index for index, mean in enumerate(means) if mean == highest]
