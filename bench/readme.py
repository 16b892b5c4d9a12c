"""Put the table of `make demo` into the README:  python bench/readme.py   (after `make demo`, in the same folder)."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from recsys.cli import run_verb

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    """Run the report verb over both runs and write what it prints between the README's markers."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = run_verb(["report", "runs/demo", "runs/als_demo"])
    if code:
        raise SystemExit(code)
    table = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
    text = README.read_text(encoding="utf-8")
    section = re.compile(r"(<!-- demo -->\n)```.*?```(\n<!-- /demo -->)", re.S)
    README.write_text(section.sub(lambda m: f"{m[1]}```text\n{table}\n```{m[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
