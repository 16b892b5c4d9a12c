"""A report's tables as files for other programs: CSV, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
import re

from recsys.report.parts import Content, Table

_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "−": "$-$"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "✓": r"$\checkmark$ "}
)


def files(content: Content) -> dict[str, str]:
    """Return file name -> text: each table as NN-caption.csv and .tex, numbered in the order of the report."""
    found = {}
    tables = [table for section in content.sections for table in section.tables]
    for place, table in enumerate(tables, start=1):
        name = f"{place:02d}-{re.sub(r'[^a-z0-9]+', '-', table.caption.lower()).strip('-')[:40].strip('-')}"
        found[f"{name}.csv"], found[f"{name}.tex"] = _csv(table), _latex(table)
    return found


def is_table_name(name: str) -> bool:
    """Return whether :func:`files` makes file names like this one."""
    return re.fullmatch(r"\d{2,}-[a-z0-9-]*\.(csv|tex)", name) is not None


def _csv(table: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.heads, *table.rows])
    return text.getvalue()


def _latex(table: Table) -> str:
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (table.heads, *table.rows)]
    columns = "l" * table.numbers + "r" * (len(table.heads) - table.numbers)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(table.caption)}}}",
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


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
