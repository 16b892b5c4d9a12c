"""The command line: one verb a function, grouped in files by what they serve.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 our bug, 2 the user's input or config,
3 a gate fired, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback

import click
import typer

from recsys.cli import agree, data, doctor, judge, lab, run
from recsys.errors import RecsysError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Recommend, judge and compare, on a laptop or on Spark."
)
for room in (run, data, judge, agree, lab, doctor):
    room.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code; an error of the user's is a message, never a traceback."""
    sys.exit(run_verb(arguments))


def run_verb(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    try:
        result = app(args=arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("interrupted: nothing half-written was left behind", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        print("This is a bug in recsys: please report the lines above.", file=sys.stderr)
        return 1
