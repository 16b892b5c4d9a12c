"""Content -> report.md."""

from __future__ import annotations

import re

from recsys.report.parts import Content, Section, Table


def markdown(content: Content) -> str:
    """Return the report as GitHub-flavoured Markdown; figures are left to the page."""
    parts = [f"# {_text(content.title)}", f"**{_text(content.verdict)}**"]
    for section in content.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}", *map(_text, section.paragraphs)]
    parts += [f"> **Warning:** {_text(warning)}" for warning in section.warnings]
    parts += [_table(table) for table in section.tables]
    if section.code:
        parts.append(f"````toml\n{section.code.strip()}\n````")
    return parts


def _table(table: Table) -> str:
    rule = ["---" if place < table.numbers else "--:" for place in range(len(table.heads))]
    rows = [[_text(cell) for cell in row] for row in table.rows]
    lines = [table.heads, rule, *rows]
    return f"{_text(table.caption)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return text that Markdown shows as it is: names come from users' files."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
