"""Interrupts verbs at their writes: by SIGKILL, by Ctrl-C, by a disk that is full from then on, or by a file that may
not grow.

    python tests/interruptions.py FOLDER [MOMENTS]

Every verb first writes an older result. It is then run again in child processes, each with one fault, over a fresh copy
of the older result. Afterwards the result is the whole older one or the whole newer one, and what is beside it is
unchanged. A child is a fork, so that imports are paid once; kernels are not compiled, because threads and forks do not
go together.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import blank_figures

STUDY_LOG = "study.log"
FAULTS = ("kill", "interrupt", "full disk", "file size")
SETS = ("report", "tune")
"""Verbs whose result is several files beside others."""

READ_BY_OTHERS = ("run", "bundle", "recommend --out")
"""Verbs whose results other verbs read."""

SIZES = (0, 700)
"""Bytes at which a file stops to grow."""

_REMOVALS = ("os.remove", "os.rmdir", "shutil.rmtree")


class Fault:
    """Counts the writes below ``folder`` and causes a fault at one of them, through an audit hook."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.kind = ""
        self.moment = -1
        self.seen = 0
        self.active = False

    def hook(self, event: str, arguments: tuple) -> None:
        """Cause the fault if this event is the one."""
        if not self.active or not self.is_write(event, arguments):
            return
        self.seen += 1
        if self.kind == "full disk" and self.seen >= self.moment and event not in (*_REMOVALS, "os.rename"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])
        if self.seen != self.moment:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "interrupt":
            raise KeyboardInterrupt

    def is_write(self, event: str, arguments: tuple) -> bool:
        """Whether an event makes, changes, moves or removes something below the folder."""
        if event == "open":
            path, _, flags = arguments
            is_write = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            path = arguments[0] if arguments else ""
            is_write = event in ("os.rename", "os.mkdir", "os.link", *_REMOVALS)
        return is_write and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder)


def interrupt_everywhere(
    folder: Path,
    write: Callable[[], int],
    is_whole: Callable[[], bool],
    result: str,
    moments: int,
    is_set: bool = False,
) -> tuple[Counter[str], list[tuple[str, int, str]]]:
    """Interrupt ``write`` in all ways; return how often by fault, and (fault, moment, complaint) of what went wrong.

    Args:
        folder: where the result and other files are.
        write: writes the result, and returns an exit code.
        is_whole: checks the result.
        result: name of the file or folder in ``folder`` that is written.
        moments: how many writes are interrupted, per kind of fault.
        is_set: the result is several files in a folder that keeps others. Some may be missing after a kill; the next
            call writes them.
    """
    fault = Fault(folder)
    sys.addaudithook(fault.hook)
    kept = folder.with_name(folder.name + "-kept")
    shutil.copytree(folder, kept, symlinks=True)
    count = _in_child(fault, "", 0, write)[1]
    older = digest(kept / result)
    beside = {name: digest(kept / name) for name in os.listdir(kept) if name != result}
    plan = [(kind, moment) for kind in FAULTS[:3] for moment in _spread(count, moments)]
    plan += [("file size", size) for size in SIZES]
    complaints = []
    for kind, moment in plan:
        shutil.rmtree(folder)
        shutil.copytree(kept, folder, symlinks=True)
        code, _, printed = _in_child(fault, kind, moment, write)
        complaint = _complaint(kind, code, printed)
        if kind == "kill" and is_set and _in_child(fault, "", 0, write)[0]:
            complaint += " the next call failed;"
        try:
            whole = is_whole()
        except Exception as error:
            whole = False
            complaint += f" {error!r};"
        if not whole:
            complaint += " the result is not whole;"
        after = {name: digest(folder / name) for name in os.listdir(folder) if name != result}
        leftovers = {name for name in after if name.startswith(f".{result}.recsys-")}
        if kind == "kill":
            after = {name: value for name, value in after.items() if name not in leftovers}
        if after != beside:
            complaint += f" beside it: {sorted(after.items() ^ beside.items())};"
        if kind in ("full disk", "file size") and code and digest(folder / result) != older:
            complaint += " it failed, but the older result has changed;"
        if kind == "kill" and leftovers:
            code = _in_child(fault, "", 0, write)[0]
            left = [name for name in os.listdir(folder) if name.startswith(f".{result}.recsys-")]
            if code or left:
                complaint += f" the next call ended with {code} and left {left};"
        if complaint:
            complaints.append((kind, moment, complaint.strip()))
    return Counter(kind for kind, _ in plan), complaints


def digest(path: Path) -> str:
    """Return a fingerprint of a file or of everything below a folder: names, links, permissions and contents."""
    if not path.exists():
        return "missing"
    paths = [path]
    if path.is_dir() and not path.is_symlink():
        paths += sorted(path.rglob("*"))
    facts = []
    for each in paths:
        content = b""
        if each.is_symlink():
            content = os.readlink(each).encode()
        elif each.is_file():
            content = each.read_bytes()
        name = str(each.relative_to(path))
        # The log of a search only grows.
        if name == STUDY_LOG:
            continue
        facts.append((name, each.lstat().st_mode, hashlib.sha256(content).hexdigest()))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _spread(count: int, moments: int) -> list[int]:
    """Return at most so many of the numbers 1 … count, the first and the last ones among them."""
    if count <= moments:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (moments - 1)) for step in range(moments)})


def _in_child(fault: Fault, kind: str, moment: int, write: Callable[[], int]) -> tuple[int, int, str]:
    """Run ``write`` in a child with a fault; return exit code (-9: killed), number of writes, and what it printed."""
    said, count = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.dup2(said[1], 1)
        os.dup2(said[1], 2)
        os.close(said[1])
        code = 70
        try:
            if kind == "file size":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (moment, resource.RLIM_INFINITY))
            fault.kind = kind
            fault.moment = moment
            fault.active = True
            code = write()
        finally:
            fault.active = False
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(count[1], str(fault.seen).encode())
            os._exit(code)
    os.close(said[1])
    os.close(count[1])
    with os.fdopen(said[0], "rb") as printed, os.fdopen(count[0], "rb") as counted:
        text = printed.read().decode(errors="replace")
        seen = counted.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(seen or 0), text


def _complaint(kind: str, code: int, said: str) -> str:
    """Return what is wrong with how a verb ended: its exit code, or a traceback."""
    expected = {"kill": (-9,), "interrupt": (130,), "full disk": (0, 2), "file size": (0, 2)}[kind]
    complaint = ""
    if code not in expected:
        complaint += f" exit code {code}: {said[-2000:]};"
    if "Traceback" in said:
        complaint += " a traceback;"
    return complaint


EVENTS = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user * step) % 7},{user + 10 * step}\n" for user in range(12) for step in range(1, 6)
)
CONFIG = """
[data]
events = "{place}/beside/events.csv"
[models.popular2]
model = "popular"
[judge]
resamples = 100
[recommend]
k = 3
"""


def prepare(place: Path) -> None:
    """Write what the verbs read, and files of the user."""
    beside = place / "beside"
    beside.mkdir(parents=True)
    (beside / "events.csv").write_text(EVENTS)
    (beside / "config.toml").write_text(CONFIG.format(place=place))
    (beside / "users.txt").write_text("u1\nu2\n")
    (beside / "bad.csv").write_text(EVENTS + "only one field\n")


def verb(*words: str) -> int:
    """Run a verb of the command line and return its exit code."""
    from recsys.cli import run_verb

    return run_verb(list(words))


def cases(place: Path) -> dict[str, tuple[str, Callable[[], int], Callable[[], bool]]]:
    """Return verb -> (name of the result, what writes it, what checks it); all are in ``place/beside``."""
    from recsys.config import load_config
    from recsys.runfolder import RunFolder
    from recsys.saved.open_model import open_model

    beside = place / "beside"
    run, bundle, world = beside / "run", beside / "bundle", beside / "world"
    updated, study = beside / "updated", beside / "study"
    lists, refused, arms = beside / "lists.csv", beside / "refused.csv", beside / "arms.csv"
    agreement = beside / "agreement.csv"

    def run_is_whole() -> bool:
        folder = RunFolder.open(run)
        if not {"models", "about"} <= set(folder.read_json("metrics.json")):
            return False
        return (run / "report.html").read_text().rstrip().endswith("</html>") and bool(os.listdir(run / "tables"))

    def has_rows(path: Path, rows: int) -> Callable[[], bool]:
        return lambda: len(path.read_text().splitlines()) == rows and path.read_text().endswith("\n")

    def world_is_whole() -> bool:
        sums = json.loads((world / "world.json").read_text())["files"]
        return set(os.listdir(world)) == {"world.json", *sums} and all(
            hashlib.sha256((world / name).read_bytes()).hexdigest() == value.removeprefix("sha256:")
            for name, value in sums.items()
        )

    def study_is_whole() -> bool:
        best = json.loads((study / "tuning.json").read_text())
        page = (study / "report.html").read_text()
        return best["model"] == "als" and page.rstrip().endswith("</html>") and bool(load_config(study / "best.toml"))

    config = str(beside / "config.toml")
    tune = ["tune", config, "--no-curve", "--out", str(study), "--set", f"out={run}", "--set", "tune.trials=2"]
    tune += ["--set", 'tune.model="als"', "--set", "models.als={rank=2,iterations=1}", "--set", "tune.parallel=1"]
    make = ["data", "make", str(world), "--users", "30", "--items", "10", "--events", "300"]
    return {
        "run": ("run", lambda: verb("run", config, "--set", f"out={run}"), run_is_whole),
        "report": ("run", lambda: verb("report", str(run)), run_is_whole),
        "bundle": (
            "bundle",
            lambda: verb("bundle", str(run), str(bundle)),
            lambda: bool(open_model(bundle).name),
        ),
        "recommend --out": (
            "lists.csv",
            lambda: verb("recommend", str(run), "--users", str(beside / "users.txt"), "-k", "2", "--out", str(lists)),
            has_rows(lists, 5),
        ),
        "check --refused": (
            "refused.csv",
            lambda: verb("check", str(beside / "bad.csv"), "--refused", str(refused)),
            has_rows(refused, 2),
        ),
        "ab assign --out": (
            "arms.csv",
            lambda: verb("ab", "assign", str(beside / "users.txt"), "--name", "x", "--out", str(arms)),
            has_rows(arms, 3),
        ),
        "update": (
            "updated",
            lambda: verb("update", str(bundle), str(beside / "events.csv"), str(updated)),
            lambda: bool(open_model(updated).name),
        ),
        "update in place": (
            "bundle",
            lambda: verb("update", str(bundle), str(beside / "events.csv"), str(bundle)),
            lambda: bool(open_model(bundle).name),
        ),
        "tune": ("study", lambda: verb(*tune), study_is_whole),
        "agree --out": (
            "agreement.csv",
            lambda: verb("agree", str(lists), str(lists), "--out", str(agreement)),
            has_rows(agreement, 3),
        ),
        "data make": ("world", lambda: verb(*make), world_is_whole),
    }


def main(folder: str, moments: str = "4", *only: str) -> int:
    """Interrupt every verb, print what went wrong, and return the number of verbs for which something did."""
    # Threads and forks do not go together.
    os.environ |= {"NUMBA_DISABLE_JIT": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # What a figure shows does not change how it is written.
    blank_figures(pytest.MonkeyPatch())
    place = Path(folder).resolve()
    prepare(place)
    verbs = cases(place)
    bad = 0
    for name, (result, write, is_whole) in verbs.items():
        if only and name not in (*only, *READ_BY_OTHERS):
            continue
        if write():
            raise SystemExit(f"{name}: does not work without a fault")
        if only and name not in only:
            continue
        counts, complaints = interrupt_everywhere(place / "beside", write, is_whole, result, int(moments), name in SETS)
        shutil.rmtree(place / "beside")
        os.rename(place / "beside-kept", place / "beside")
        print(f"{name}: {len(complaints)} complaints of {dict(counts)}", *complaints, sep="\n  ", file=sys.stderr)
        bad += bool(complaints)
    return bad


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
