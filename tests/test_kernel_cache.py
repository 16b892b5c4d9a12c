"""Compiled kernels: found again from another clone, and compiled again when the kernels that they call changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.subprocess
ROOT = Path(__file__).resolve().parents[1]

CALLEE = "from numba import njit\n\n@njit(cache=True)\ndef add(x):\n    return x + {number}\n"
CALLER = "from callee import add\nfrom numba import njit\n\n@njit(cache=True)\ndef twice(x):\n    return add(add(x))\n"
CALL = "from caller import twice; print(twice(1), sum(twice.stats.cache_hits.values()))"


@pytest.fixture
def call(tmp_path):
    """Run the kernel of a clone, whose callee adds ``number``; return its result and how often the cache had it."""

    def run(clone, number):
        place = tmp_path / clone
        place.mkdir(exist_ok=True)
        (place / "callee.py").write_text(CALLEE.format(number=number))
        (place / "caller.py").write_text(CALLER)
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "NUMBA_CACHE_LOCATOR_CLASSES": "recsys.kernel_cache.ByContent",
            "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)]),
        }
        done = subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return tuple(map(int, done.stdout.split()))

    return run


def test_a_second_clone_compiles_nothing(call):
    assert call("one", 1) == (3, 0)
    assert call("two", 1) == (3, 1)


def test_a_kernel_is_compiled_again_when_its_callee_changes(call):
    assert call("one", 1) == (3, 0)
    assert call("one", 5) == (11, 0)


@pytest.mark.parametrize("locator", [None, "recsys.kernel_cache.ByContent"], ids=["numba", "by content"])
def test_a_run_says_that_it_compiles_only_if_nothing_is_cached(locator, tmp_path, monkeypatch, capsys):
    """The first kernel of a module ``pairs`` that Numba caches ends the note."""
    from recsys.cli import run_verb

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    # The run ends after the note, because the log has no items.
    (tmp_path / "events.csv").write_text("user_id\na\n")
    words = ["run", str(tmp_path / "events.csv"), "--set", f"out={tmp_path / 'run'}"]
    assert run_verb(words) == 2
    captured = capsys.readouterr()
    assert "Compiling kernels: the first run on this machine" in captured.err
    assert "Compiling" not in captured.out
    (tmp_path / "pairs.py").write_text(CALLEE.format(number=1))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment.pop("NUMBA_CACHE_LOCATOR_CLASSES", None)
    if locator:
        environment["NUMBA_CACHE_LOCATOR_CLASSES"] = locator
    command = [sys.executable, "-c", "from pairs import add; add(1)"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert run_verb(words) == 2
    assert "Compiling" not in capsys.readouterr().err
