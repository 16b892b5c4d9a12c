"""Write the tables of a report for other programs: as CSV, and as LaTeX for the package booktabs."""

from __future__ import annotations

import csv
import io
import re

from recsys.report.parts import Report, ReportTable

_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "−": "$-$",
    }
    | {"<": r"\textless{}", ">": r"\textgreater{}", "✓": r"$\checkmark$ "}
)


def table_files(report: Report) -> dict[str, str]:
    """Return the files with the tables of a report, as a dict: file name -> text.

    Each table is in two files, for example ``01-metric-by-model.csv`` and
    ``01-metric-by-model.tex``. The name has the number of the table in the report, from 01, and the
    first words of its caption.
    """
    files = {}
    for number, table in enumerate(report.tables, start=1):
        words = re.sub(r"[^a-z0-9]+", "-", table.caption.lower()).strip("-")
        name = f"{number:02d}-{words[:40].strip('-')}"
        files[f"{name}.csv"] = _csv(table)
        files[f"{name}.tex"] = _latex(table)
    return files


def is_table_name(name: str) -> bool:
    """Return whether a file name has the form of the names that :func:`table_files` gives."""
    return re.fullmatch(r"\d{2,}-[a-z0-9-]*\.(csv|tex)", name) is not None


def _csv(table: ReportTable) -> str:
    """Return a table as CSV, with the heads in the first line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.heads, *table.rows])
    return text.getvalue()


def _latex(table: ReportTable) -> str:
    """Return a table as a LaTeX ``table`` environment."""
    cells = [[_escape_latex(cell) for cell in row] for row in (table.heads, *table.rows)]
    for row, column in table.bold:
        # The first line has the heads.
        cells[row + 1][column] = rf"\textbf{{{cells[row + 1][column]}}}"
    lines = [" & ".join(row) + r" \\" for row in cells]
    columns = "l" * table.numbers + "r" * (len(table.heads) - table.numbers)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape_latex(text: str) -> str:
    """Return a text that LaTeX shows unchanged, with single spaces."""
    return " ".join(text.split()).translate(_LATEX)
