"""Compiled kernels: found again from another clone, and compiled again when the kernels that they call changed."""

import contextlib
import importlib
import os
import pkgutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import recsys
from recsys.cli import run_verb
from recsys.kernel_cache import CompilationNotice

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


REPORTING = """
from recsys import kernel_cache
kernel_cache.SILENT_SECONDS = 0.0
with kernel_cache.compilation_reported(lambda notice: print("said:", notice)):
    from caller import twice
    print(twice(1), twice(1.0))
"""


def test_the_notice_comes_once_and_only_where_something_is_compiled(tmp_path):
    (tmp_path / "callee.py").write_text(CALLEE.format(number=1))
    (tmp_path / "caller.py").write_text(CALLER)
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    command = [sys.executable, "-c", REPORTING]
    printed = [
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout for _ in range(2)
    ]
    assert printed[0].count("said: Compiling kernels") == 1
    assert printed[1].split() == ["3", "3.0"]


def test_a_second_in_all_is_worth_the_notice():
    """Compilations last 0.6 s each, the inner one of the second is within it; pauses of 9 s do not count."""
    said, now = [], [100.0]
    notice = CompilationNotice(said.append, clock=lambda: now[0])

    def compiling(*steps):
        for seconds, step in steps:
            now[0] += seconds
            step(None)

    compiling((0.0, notice.on_start), (0.6, notice.on_end))
    compiling((9.0, notice.on_start), (0.3, notice.on_start))
    assert said == []
    compiling((0.2, notice.on_end), (0.1, notice.on_end), (9.0, notice.on_start))
    assert len(said) == 1
    compiling((9.0, notice.on_end), (9.0, notice.on_start), (9.0, notice.on_end))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "none.csv"], True),
        (["check", "none.csv"], True),
        (["tune", "none.toml"], True),
        (["recommend", "none", "--user", "a"], True),
        (["evaluate", "none.csv", "none.csv"], True),
        (["compare", "none", "other"], True),
        (["bundle", "none", "bundle"], True),
        (["ab", "analyse", "none.csv"], False),
    ],
)
def test_every_verb_that_uses_kernels_has_the_notice(words, says, monkeypatch, tmp_path, capsys):
    entered = []

    @contextmanager
    def recorded(report):
        report("the notice")
        entered.append(words[0])
        yield

    monkeypatch.setattr("recsys.kernel_cache.compilation_reported", recorded)
    monkeypatch.chdir(tmp_path)
    assert run_verb(words) == 2
    captured = capsys.readouterr()
    assert entered == [words[0]] * says
    assert ("the notice" in captured.err) == says
    assert "the notice" not in captured.out


def increment(x):
    return x + 1


def fail(x):
    return x.nothing


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Return a function from a Python function to two caches of it, as two processes have them."""
    from numba.core import config

    from recsys.kernel_cache import CompiledOnce

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return lambda function: (CompiledOnce(function), CompiledOnce(function))


def test_who_comes_while_a_kernel_is_compiled_waits_and_loads_it(caches, monkeypatch):
    from numba import int64, njit
    from numba.core.caching import FunctionCache

    dispatcher = njit(int64(int64))(increment)
    (compiled,) = dispatcher.overloads.values()
    compiling, waiting = caches(increment)
    assert compiling.load_overload(compiled.signature, dispatcher.targetctx) is None
    has_looked, results = threading.Event(), []
    look = FunctionCache.load_overload

    def look_and_tell(*arguments):
        loaded = look(*arguments)
        has_looked.set()
        return loaded

    monkeypatch.setattr(FunctionCache, "load_overload", look_and_tell)
    thread = threading.Thread(
        target=lambda: results.append(waiting.load_overload(compiled.signature, dispatcher.targetctx))
    )
    thread.start()
    has_looked.wait()
    compiling.save_overload(compiled.signature, compiled)
    thread.join(timeout=60)
    assert [loaded and loaded.signature for loaded in results] == [compiled.signature]


def test_a_kernel_that_cannot_be_compiled_keeps_nobody_waiting(caches, monkeypatch):
    from numba import njit
    from numba.core.errors import TypingError

    failing, following = caches(fail)
    dispatcher = njit(fail)
    monkeypatch.setattr(dispatcher, "_cache", failing)
    with pytest.raises(TypingError):
        dispatcher(1)
    results = []
    thread = threading.Thread(target=lambda: results.append(following.load_overload((), dispatcher.targetctx)))
    thread.start()
    thread.join(timeout=60)
    following.release()
    assert results == [None]


def test_only_parallel_kernels_call_parallel_kernels():
    """Numba starts its threads when Python calls a parallel kernel.

    A kernel that calls one, and that a process loads from the cache, crashes if the process has called none before.
    """
    kernels = set()
    for info in pkgutil.walk_packages(recsys.__path__, "recsys."):
        if info.name.endswith("__main__"):
            continue
        # The extra of the models that need JAX may be absent.
        with contextlib.suppress(ImportError):
            module = importlib.import_module(info.name)
            kernels |= {value for value in vars(module).values() if isinstance(value, Dispatcher)}
    assert len(kernels) > 50
    calls = [
        (kernel.py_func.__qualname__, name)
        for kernel in kernels
        if not kernel.targetoptions.get("parallel")
        for name in kernel.py_func.__code__.co_names
        if isinstance(called := kernel.py_func.__globals__.get(name), Dispatcher)
        and called.targetoptions.get("parallel")
    ]
    assert calls == []
