"""Every code block of the README and of docs/ is run, in order, in a folder of its own.

``sh`` blocks run line by line, ``python`` blocks in one namespace a page, a ``toml`` block is written to the file
that the sentence before it names. A block under ``<!-- not run: why -->`` is left out.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from recsys.cli import run_verb

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = ("make ", "spark-submit ", "git ", "pip ", "docker", ".venv", "cd ", "kubectl ", "sudo ")
"""Commands that other tests run, or that need what a test machine lacks."""


def blocks(page):
    """Yield (last line of text before it, kind, code) of every fenced block that is to be run."""
    before, kind, code = "", None, []
    for line in page.read_text(encoding="utf-8").splitlines():
        if kind is None and line.startswith("```"):
            kind, code = line[3:], []
        elif kind is None:
            before = line or before
        elif line == "```":
            if "<!-- not run:" not in before:
                yield before, kind, "\n".join(code) + "\n"
            kind = None
        else:
            code.append(line)


def shell(code):
    for line in code.replace("\\\n", " ").splitlines():
        line = line.partition("  #")[0].strip()
        if not line or line.startswith("#") or line.startswith(ELSEWHERE):
            continue
        program, *words = shlex.split(line)
        assert program == "recsys", f"do not know how to run: {line}"
        with contextlib.redirect_stdout(io.StringIO()):
            assert run_verb(words) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for before, kind, code in blocks(page):
        if kind == "sh":
            shell(code)
        elif kind == "toml" and (name := re.search(r"`([\w./-]+\.toml)`", before)):
            Path(name[1]).write_text(code)
        elif kind == "python":
            exec(compile(code, str(page), "exec"), namespace)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
