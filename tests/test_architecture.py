"""The floors of the house: who may import whom, no cycles, and what ``import recsys`` costs."""

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "recsys"

FLOOR = {"errors": 0, "locations": 0, "logging": 0, "types": 0, "schema": 0, "recommender": 0, "rating_model": 0}
FLOOR |= dict.fromkeys(
    (
        "array_files",
        "atomic_writing",
        "config",
        "fingerprint",
        "kernels",
        "kernel_cache",
        "linalg",
        "parameters",
        "replacing",
        "run_files",
        "runfolder",
        "run_versions",
        "storage",
        "engine",
        "hop_log",
        "meter",
        "java",
        "data",
        "features",
        "ranking",
        "evaluation",
        "als",
    ),
    1,
)
FLOOR |= {"models": 2, "spark": 2}
FLOOR |= dict.fromkeys(("flow", "local_engine", "ratings_engine", "route", "tune", "saved", "report", "serving"), 3)
FLOOR |= {"cli": 4}
"""Room -> floor. A room imports from its own floor and from those below; models and spark never from each other."""

THIRD_PARTY = {
    0: {"numpy", "scipy", "pandas"},
    1: {"pyarrow", "pydantic", "sklearn", "numba", "threadpoolctl", "tomli_w"},
    2: set(),
    3: {"optuna", "jinja2", "markupsafe", "matplotlib"},
    4: {"typer", "click", "rich"},
}
ONLY_IN = {
    "implicit": {"models/collaborative/bpr.py"},
    "pyspark": {"spark/"},
    "py4j": {"spark/"},  # part of pyspark: errors that pyspark does not wrap
    "mlflow": {"saved/track.py"},
    "jax": {"models/sequential/training.py"},
    "optax": {"models/sequential/training.py"},
    "optuna": {"tune/", "spark/tune.py"},
    "starlette": {"serving/", "cli/serve.py"},
    "uvicorn": {"serving/", "cli/serve.py"},
    "sqlalchemy": {"serving/", "cli/serve.py"},
    "typing_extensions": {"serving/"},  # pydantic reads no other TypedDict before Python 3.12
}


def imports(path):
    """Yield every module that a file imports, also inside functions, but not what only the type checker reads."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if _is_module(name) else node.module for name in names)


def _is_module(name):
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "recsys":
            if not rest:
                continue
            assert FLOOR[rest[0]] <= FLOOR[here], f"{here} imports {name}"
            assert {here, rest[0]} != {"models", "spark"}, f"{here} imports {name}"
        elif top not in sys.stdlib_module_names:
            if top in ONLY_IN:
                allowed = ONLY_IN[top]
                assert any(str(path.relative_to(PACKAGE)).startswith(place) for place in allowed), name
            else:
                allowed = set().union(*(THIRD_PARTY[floor] for floor in range(FLOOR[here] + 1)))
                assert top in allowed, f"{here} (floor {FLOOR[here]}) imports {name}"


def test_no_import_cycle():
    """Depth-first search over what modules import at their top, and over what only the type checker reads.

    Imports inside functions do not count.
    """
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        for_types = [node.body for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node)]
        graph[module] = set()
        for node in [*tree.body, *itertools.chain(*for_types)]:
            if isinstance(node, ast.ImportFrom):
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                graph[module] |= {name if _is_module(name) else node.module for name in names}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done or module not in graph:
            return
        path.append(module)
        for other in graph[module] - {module}:
            visit(other)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


def python(code, **environment):
    import os

    environ = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=ROOT)


@pytest.mark.subprocess
def test_importing_recsys_loads_nothing_heavy():
    code = "import recsys, sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    loaded = set(json.loads(python(code).stdout))
    assert not loaded & {"numpy", "pandas", "pyspark", "implicit", "numba", "sklearn", "scipy", "pyarrow"}


@pytest.mark.subprocess
def test_every_public_name_exists():
    code = "import recsys; [getattr(recsys, name) for name in recsys.__all__]; print(*dir(recsys))"
    found = python(code)
    assert found.returncode == 0, found.stderr
    assert "evaluate" in found.stdout.split()


@pytest.mark.subprocess
def test_the_small_path_needs_neither_pyspark_nor_java(tmp_path, world_files):
    (tmp_path / "config.toml").write_text(
        f"out = '{tmp_path}/run'\n[data]\nevents = '{world_files['events']}'\n[models.als]\nrank = 4\niterations = 2\n"
    )
    code = (
        "import sys\nsys.modules['pyspark'] = None\n"  # any import of it now fails
        "from recsys.cli import run_verb\n"
        f"sys.exit(run_verb(['run', '{tmp_path}/config.toml']))"
    )
    found = python(code, JAVA_HOME="/nonexistent", PATH="/nonexistent")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "run" / "report.html").exists()
