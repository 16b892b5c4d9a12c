"""The command line, with one file per verb (sub-command), which has the name of the verb.

Results are printed to stdout, and everything else to stderr. Exit codes: 0 the verb is done, 1 a
bug in recsys, 2 a problem with the user's input or configuration, 3 a condition of ``compare
--fail-if`` holds or ``check`` found a leak, 130 interrupted.
"""

from __future__ import annotations

import errno
import sys
import threading
import traceback
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from recsys.errors import RecsysError

if TYPE_CHECKING:
    from recsys.locations import Uri
    from recsys.storage import RemoteFolder

VERBS = (
    "demo run tune plan route check data reviews recommend predict similar explain onboard"
    " evaluate report compare agree lab ab bundle update serve log track doctor"
).split()
"""The names of the modules of the verbs, in the order of `recsys --help`."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP)
"""The error numbers of a path that the operating system cannot even look up."""

SECONDS_OF_CALLBACK = 0.1
"""The number of seconds after which an ignored Ctrl-C is repeated.

By then the callback in which it was ignored has ended.
"""


@cache
def load_command() -> Any:
    """Import the verbs, and return the command line as a function that can be called.

    A process builds it once.
    """
    from recsys.cli.application import build_command
    from recsys.storage import use_java

    use_java(_open_through_java)
    # A module registers its verb with the application when it is imported.
    for verb in VERBS:
        import_module(f"recsys.cli.{verb}")
    command = build_command()
    # A verb that another one imports registers before it.
    command.commands = {verb: command.commands[verb] for verb in VERBS}
    return command


def _open_through_java(uri: Uri) -> RemoteFolder | None:
    """Return the folder of a URI through the Hadoop client of pyspark, or None without pyspark."""
    if find_spec("pyspark") is None:
        return None
    from recsys.spark.hadoop_folder import open_without_session

    return open_without_session(uri)


def main(arguments: list[str] | None = None) -> None:
    """Run one verb, and end the process with its exit code.

    An error of the user is printed as a message, never as a traceback.

    Args:
        arguments: the arguments after ``recsys``. None: those of the process.
    """
    sys.exit(run_verb(arguments))


def run_verb(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code, as :func:`exit_code_of` defines it.

    Args:
        arguments: the arguments after ``recsys``. None: those of the process.
    """
    # The verbs are imported inside, because that takes a second in which Ctrl-C may come too.
    return exit_code_of(lambda: load_command()(args=arguments))


def exit_code_of(work: Callable[[], object]) -> int:
    """Call ``work`` and return the exit code of the process.

    Errors are printed to stderr, not raised. The code is

    * 0 if ``work`` returns, whatever it returns;
    * ``exit_code`` of a RecsysError;
    * 2 if memory runs out, or if the operating system refuses a path;
    * :data:`INTERRUPTED` after Ctrl-C;
    * the code of a SystemExit: 0 without a code, 1 for a code that is not a number;
    * 1 for any other error, which is a bug in recsys. Its traceback is printed.
    """
    try:
        with _hidden_interruptions_raised():
            work()
    except SystemExit as stop:
        # Typer ends like this, after it has printed what is wrong with the arguments.
        if stop.code == INTERRUPTED:
            return _report_interruption()
        if isinstance(stop.code, int):
            return stop.code
        # SystemExit without a code is success; any other object, such as a message, is a failure.
        return int(stop.code is not None)
    except KeyboardInterrupt:
        return _report_interruption()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except MemoryError as error:
        print(
            f"error: not enough memory: {error or 'no more is left'}. Lower the setting that takes it (k, neighbours,"
            " rank, resamples, memory_mb), or take a machine with more.",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        if error.errno not in UNUSABLE_NAME or not error.filename:
            return _report_bug()
        print(f"error: {error.filename}: {error.strerror}. Check the path and its permissions.", file=sys.stderr)
        return 2
    except Exception:
        return _report_bug()
    return 0


def _report_bug() -> int:
    traceback.print_exc()
    print("This is a bug in recsys: please report the lines above.", file=sys.stderr)
    return 1


@contextmanager
def _hidden_interruptions_raised() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread once more if compiled code had hidden it.

    Python ignores any exception in a function that is called by compiled code, such as the callback
    with which Numba receives a compiled kernel. Without the repetition a verb would go on, or fail
    because the callback did not do its work. A kernel that returns a result in spite of an
    interruption makes Python raise a SystemError, with the interruption as its cause.

    Raises:
        KeyboardInterrupt: an interruption was ignored, and then the block raised another error; or
            the block raised an error whose cause is an interruption.
    """
    report_ignored = sys.unraisablehook
    repetitions: list[threading.Timer] = []

    def repeat_interruption(ignored: Any) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            report_ignored(ignored)
            return
        # Within the callback the interruption would be ignored again.
        repetitions.append(threading.Timer(SECONDS_OF_CALLBACK, interrupt_main))
        repetitions[-1].start()

    sys.unraisablehook = repeat_interruption
    try:
        yield
    except Exception as error:
        if repetitions or _is_caused_by_interruption(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = report_ignored
        for repetition in repetitions:
            repetition.cancel()


def _is_caused_by_interruption(error: BaseException | None) -> bool:
    # An error of a clean-up after Ctrl-C has the interruption as its context only: it is reported.
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def _report_interruption() -> int:
    print("interrupted: no result is half-written", file=sys.stderr)
    return INTERRUPTED
