"""The command line: one verb a function, grouped in files by what they serve.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 our bug, 2 the user's input or config,
3 a gate fired, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import typer

from recsys.cli import ab, agree, bundle, compare, data, doctor, judge, lab, lists, onboard, plan, route, run, tune
from recsys.errors import RecsysError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Recommend, judge and compare, on a laptop or on Spark."
)
for room in (run, plan, lists, onboard, bundle, data, judge, route, compare, tune, ab, agree, lab, doctor):
    room.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code; an error of the user's is a message, never a traceback."""
    sys.exit(run_verb(arguments))


def run_verb(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    return guarded(lambda: app(args=arguments))


def guarded(work: Callable[[], object]) -> int:
    """Do some work and return the exit code that says how it ended."""
    try:
        work()
    except SystemExit as stop:  # how typer ends, after it has told what is wrong with the words
        if stop.code == 130:
            print("interrupted: nothing half-written was left behind", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        traceback.print_exc()
        print("This is a bug in recsys: please report the lines above.", file=sys.stderr)
        return 1
    return 0
