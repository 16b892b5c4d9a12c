"""Write a report as Markdown."""

from __future__ import annotations

import re

from recsys.report.parts import Report, ReportTable, Section


def render_markdown(report: Report) -> str:
    """Return the text of a report as GitHub-flavoured Markdown, without its figures."""
    parts = [f"# {_escape(report.title)}", f"**{_escape(report.verdict)}**"]
    for section in report.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    """Return the paragraphs of a section in Markdown: title, text, warnings, tables, code."""
    parts = [f"## {_escape(section.title)}", *map(_escape, section.paragraphs)]
    parts += [f"> **Warning:** {_escape(warning)}" for warning in section.warnings]
    parts += [_table(table) for table in section.all_tables]
    if section.code:
        # Four backticks allow a fence of three inside the config.
        parts.append(f"````toml\n{section.code.strip()}\n````")
    return parts


def _table(table: ReportTable) -> str:
    """Return a table with its caption in Markdown."""
    alignment = ["---" if column < table.numbers else "--:" for column in range(len(table.heads))]
    rows = [[_escape(cell) for cell in row] for row in table.rows]
    for row, column in table.bold:
        rows[row][column] = f"**{rows[row][column]}**"
    for source, cells in zip(table.rows, rows, strict=True):
        cells[0] += _note(table, source[0])
    heads = [_escape(head) + _note(table, head) for head in table.heads]
    lines = [heads, alignment, *rows]
    return f"{_escape(table.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _note(table: ReportTable, name: str) -> str:
    """Return the note of a table on a name, in parentheses, or "" if there is none."""
    if name not in table.notes:
        return ""
    return f" ({_escape(table.notes[name])})"


def _escape(text: str) -> str:
    """Return a text with all characters escaped that have a meaning in Markdown.

    The names of users, items and models may have such characters.
    """
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
