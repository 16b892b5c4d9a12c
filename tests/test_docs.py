"""Every code block of the README and of docs/ is run, in order, in a folder of its own.

``sh`` blocks run line by line, ``python`` blocks in one namespace a page, a ``toml`` block is written to the file
that the sentence before it names, and so is a ``python`` block after "Save this as".
A block under ``<!-- not run: why -->`` is left out.
"""

import contextlib
import io
import re
import runpy
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from recsys.cli import load_command, run_verb
from recsys.cli.application import app
from recsys.config import Config
from recsys.evaluation.judging.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NEWCOMER = re.compile(r"<!-- newcomer -->\n```sh\n(.*?)```", re.S)
ELSEWHERE = ("make ", "spark-submit ", "git ", "pip ", "docker", ".venv", ". .venv", "cd ", "kubectl ", "sudo ")
"""Commands that other tests run, or that need what a test machine lacks."""

FILE_NAME = {"toml": r"`([\w./-]+\.toml)`", "python": r"Save this as `([\w/]+\.py)`"}
"""Kind of block -> how the sentence before it names the file that it is."""


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


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page, tmp_path, monkeypatch, world_files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as ``python`` has its current folder
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody answers
    if page.name == "README.md":
        shutil.copy(world_files["events"], "events.csv")  # the reader's own
    namespace = {}
    for before, kind, code in blocks(page):
        if kind == "sh":
            shell(code)
        elif name := re.search(FILE_NAME.get(kind, "$^"), before):
            Path(name[1]).write_text(code)
        elif kind == "python":
            exec(compile(code, str(page), "exec"), namespace)


@pytest.mark.slow
def test_five_commands_lead_to_a_verdict(tmp_path, monkeypatch, world_files, capsys):
    """``git`` and ``make setup`` are what ``make test`` itself came through; the rest runs here on a log as text."""
    commands = NEWCOMER.search((ROOT / "README.md").read_text(encoding="utf-8"))[1].splitlines()
    assert len(commands) == 5
    monkeypatch.chdir(tmp_path)
    shutil.copy(world_files["events"], "events.csv")
    for command in commands[3:]:
        assert run_verb(shlex.split(command)[1:]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^events: .*(beats|worse|No difference)", told, re.M)
    assert "report: runs/events/report.html" in told
    assert Path("runs/events/report.html").exists()
    targets = re.findall(r"^(\w+): ", (ROOT / "Makefile").read_text(), re.M)
    assert "setup" in targets


def test_the_reference_of_settings_is_current():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))["page"]()
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == made, "run: python docs/reference.py"


def test_the_reference_has_every_key_of_every_section():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for name, field in Config.model_fields.items():
        if keys := getattr(field.annotation, "model_fields", None):
            section = page.partition(f"\n## [{name}]\n")[2].partition("\n## ")[0]
            assert [key for key in keys if f"\n| `{key}` |" not in section] == [], name


@pytest.mark.parametrize("key", ["at", "until"])
def test_the_reference_types_the_ends_of_a_split_as_dates(key):
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{key}` \| date or number \| unset \|", page, re.M)


@pytest.mark.parametrize("name", METRICS)
def test_the_page_on_metrics_defines_every_metric(name):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}\b", page, re.M), "add a row to its table of definitions"


def test_the_help_of_every_verb_has_an_example_of_it():
    def leaves(group, words):
        for name, verb in group.commands.items():
            if hasattr(verb, "commands"):
                yield from leaves(verb, [*words, name])
            else:
                yield [*words, name], verb

    for words, verb in leaves(load_command(), []):
        assert f"Example: recsys {' '.join(words)}" in verb.help, words


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@cache
def verb_names():
    load_command()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    return verbs | {group.name for group in app.registered_groups}


@pytest.mark.parametrize("path", sorted((ROOT / "recsys").rglob("*.py")), ids=lambda path: path.name)
def test_the_architecture_names_every_file(path):
    """Verbs and sections of the report have one row together, which names them by their folder."""
    name = path.relative_to(ROOT / "recsys")
    has_row_of_its_folder = name.parent.as_posix() == "report/sections" or (
        name.parent.as_posix() == "cli" and name.stem in verb_names()
    )
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"`{name.as_posix()}`" in page or has_row_of_its_folder or name.name == "__init__.py"
