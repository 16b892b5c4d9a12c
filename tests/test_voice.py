"""How readable the code is, in numbers: names, density, comments. The bounds are where the code is today or better."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "recsys"
FILES = sorted(PACKAGE.rglob("*.py"))

VAGUE = set(
    """
    found known told asked wanted given made kept met said shown seen_by own place at of where why
    how what which who whom whose other others both everyone everything all_of here there anew alike
    left right toward near far same twice once fresh together listen settle turn also only with say
    plain whole upto inside outside within beyond behind before after between among another again
    alone sure stranger strangers speaks speaker spoken speaking gone lean worth harm wide wider
    around later early late fits able ready because they so
    """.split()
)
"""Pronouns, adverbs, prepositions and participles: as the name of a variable or a function they say nothing of it."""

LONG_SIGNATURES = {"ranking/rank.py:recommend"}
"""The public entry point whose options are all optional keywords."""


class Tree:
    """One file: its lines, its syntax tree, and its path below the package."""

    def __init__(self, path):
        self.path = path.relative_to(PACKAGE).as_posix()
        text = path.read_text(encoding="utf-8")
        self.lines = [line for line in text.splitlines() if line.strip()]
        self.nodes = list(ast.walk(ast.parse(text)))


@cache
def trees():
    """Return every file, read once by the worker that runs these tests."""
    return [Tree(path) for path in FILES]


def kilolines():
    return sum(len(tree.lines) for tree in trees()) / 1000


def nodes(kind):
    return [(tree.path, node) for tree in trees() for node in tree.nodes if isinstance(node, kind)]


def bound_names():
    for path, node in nodes(ast.Name):
        if isinstance(node.ctx, ast.Store):
            yield path, node.id
    for path, node in nodes(ast.arg):
        yield path, node.arg


def is_compiled_or_a_verb(node):
    return any(re.search(r"jit|command", ast.unparse(decorator)) for decorator in node.decorator_list)


def test_variables_are_named_by_what_they_hold():
    names = list(bound_names())
    vague = [f"{path}: {name}" for path, name in names if name.strip("_") in VAGUE]
    assert len(vague) / len(names) < 0.005, vague[:40]


def test_functions_are_named_by_what_they_do():
    functions = nodes((ast.FunctionDef, ast.AsyncFunctionDef))
    assert [f"{path}: {node.name}" for path, node in functions if node.name.strip("_") in VAGUE] == []


def test_functions_take_at_most_six_parameters():
    long = set()
    for path, node in nodes(ast.FunctionDef):
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
        if count > 6 and not is_compiled_or_a_verb(node):
            long.add(f"{path}:{node.name}")
    assert long <= LONG_SIGNATURES


def test_one_statement_does_one_thing():
    pairs = [
        f"{path}:{node.lineno}"
        for path, node in nodes(ast.Assign)
        if isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)
    ]
    assert len(pairs) / kilolines() <= 4, pairs[:40]


def test_choices_are_statements():
    ternaries = [f"{path}:{node.lineno}" for path, node in nodes(ast.IfExp)]
    assert len(ternaries) / kilolines() <= 9, ternaries[:20]


def test_comments_say_why():
    comments = sum(line.lstrip().startswith("#") for tree in trees() for line in tree.lines)
    assert comments / kilolines() >= 10


def test_lines_are_short():
    lengths = sorted(len(line) for tree in trees() for line in tree.lines)
    assert lengths[int(0.95 * len(lengths))] <= 100


@pytest.mark.parametrize("path", [path.relative_to(PACKAGE).as_posix() for path in FILES])
def test_rooms_are_at_most_two_folders_deep(path):
    assert path.count("/") <= 2
