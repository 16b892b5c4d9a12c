"""The one way into bench/RESULTS.md: every benchmark writes its own section, and nothing else touches it."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Measured

Every section is written by the command that it names; absolute times vary from machine to machine, so read the ratios.
"""


def write_section(name: str, title: str, command: str, body: str) -> None:
    """Put a section into RESULTS.md, in place of its predecessor, with the command, the machine and the day."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    section = (
        f"<!-- {name} -->\n## {title}\n\n`{command}`, {date.today()}, on {machine}.\n\n{body.strip()}\n<!-- /{name} -->"
    )
    place = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->", re.S)
    text = place.sub(lambda _: section, text) if place.search(text) else f"{text.rstrip()}\n\n{section}\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(section)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; columns after the first are right-aligned."""
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
