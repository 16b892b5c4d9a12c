"""Jobs on Spark and verbs that are interrupted over an older whole result, and what is left afterwards.

    python bench/kills.py jobs 40 [SEED]    40 runs of each job, each ended by SIGKILL or Ctrl-C at a random moment
    python bench/kills.py verbs 6           each verb at 6 of its writes, by each fault of tests/interruptions.py

Of a job, the signal goes to the driver, its Java and its Python workers at once. After each run the result is a whole
older or a whole newer one, every other file is what it was, and Ctrl-C ends with code 130 and no traceback.
"""

from __future__ import annotations

import ast
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from results import table, write_section

from recsys.cli import run_verb
from recsys.runfolder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from interruptions import digest

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """
out = "run"
engine = "spark"
[data]
events = "world/events.csv"
items = "world/items.csv"
[models.als]
rank = 2
iterations = 2
[judge]
metrics = ["ndcg@5"]
resamples = 100
[recommend]
k = 3
min_history = 0
"""
JOBS = {
    "train_als": ["jobs/train_als.py", "--config", "kills.toml"],
    "recommend": ["jobs/recommend.py", "run", "--out", "lists"],
}
RESULTS = {"train_als": "run", "recommend": "lists"}
EARLIEST, LATEST = 0.3, 1.05
"""Moments of the signal, as shares of the seconds of an undisturbed job. Before the first, Python starts."""


def main(kind: str, *options: str) -> int:
    """Interrupt jobs or verbs, print each fault, write the section, and return the number of faults."""
    return {"jobs": interrupt_jobs, "verbs": interrupt_verbs}[kind](*options)


def interrupt_verbs(moments: str) -> int:
    """Interrupt each verb at ``moments`` writes per kind of fault, and return the number of faults."""
    with tempfile.TemporaryDirectory() as folder:
        script = [sys.executable, str(ROOT / "tests" / "interruptions.py"), str(Path(folder, "place")), moments]
        messages = subprocess.run(script, stderr=subprocess.PIPE, text=True, check=False).stderr
    print(messages)
    # It prints a line per verb, and below it a line per complaint.
    found = re.findall(r"^(\S.*): (\d+) complaints of (\{.*\})$", messages, re.M)
    if not found:
        raise SystemExit("no verb was interrupted")
    counts = {verb: ast.literal_eval(by_kind) for verb, _, by_kind in found}
    faults = sum(int(complaints) for _, complaints, _ in found)
    kinds = list(next(iter(counts.values())))
    rows = [[verb, *(str(by_kind[kind]) for kind in kinds)] for verb, by_kind in counts.items()]
    runs = sum(sum(by_kind.values()) for by_kind in counts.values())
    body = f"{runs:,} runs, {faults} faults.\n\n" + table(["verb", *kinds], rows)
    write_section("kills_verbs", "Verbs that are interrupted", f"python bench/kills.py verbs {moments}", body)
    return faults


def interrupt_jobs(count: str, seed: str = "0") -> int:
    """Kill each job ``count`` times, print each fault, and return the number of faults."""
    rng = random.Random(int(seed))
    outcomes: Counter[tuple[str, str]] = Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_verb(["data", "make", str(folder / "world"), "--users", "200", "--items", "80"])
        (folder / "kills.toml").write_text(CONFIG)
        (folder / "somebody_elses.txt").write_text("keep")
        for job in JOBS:
            start = time.monotonic()
            run = start_job(job, folder)
            errors = run.communicate()[1]
            if run.returncode:
                raise SystemExit(f"{job} fails undisturbed: {errors}")
            seconds = time.monotonic() - start
            for number in range(int(count)):
                kind = rng.choice(["SIGKILL", "SIGKILL", "SIGINT"])
                moment = rng.uniform(EARLIEST, LATEST) * seconds
                start = time.monotonic()
                ended, complaints = interrupt(job, folder, getattr(signal, kind), moment)
                if ended:
                    # On a machine with other work, jobs become faster and slower.
                    seconds = time.monotonic() - start
                outcomes[job, "ended before the signal" if ended else kind] += 1
                if complaints:
                    faults += 1
                    print(f"{job} {number} {kind} after {moment:.1f} s: {complaints}", flush=True)
    labels = ["SIGKILL", "SIGINT", "ended before the signal"]
    rows = [[job, *(str(outcomes[job, label]) for label in labels)] for job in JOBS]
    body = f"{sum(outcomes.values()):,} runs, faults: {faults}.\n\n" + table(["job", *labels], rows)
    write_section("kills", "Jobs on Spark that are killed", f"python bench/kills.py jobs {count}", body)
    return faults


def start_job(job: str, folder: Path) -> subprocess.Popen[str]:
    """Start a job under spark-submit in a group of processes of its own."""
    script, *words = JOBS[job]
    settings = ["--driver-memory", "1g", "--conf", "spark.log.level=ERROR"]
    return subprocess.Popen(
        ["spark-submit", *settings, str(ROOT / script), *words],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupt(job: str, folder: Path, number: signal.Signals, moment: float) -> tuple[bool, list[str]]:
    """Run a job over its older result, and end it after ``moment`` seconds.

    The result is whether the job ended before, and what is wrong afterwards.
    """
    result = RESULTS[job]
    if job == "recommend":
        # This job replaces nothing: it refuses a table that exists already.
        shutil.rmtree(folder / result, ignore_errors=True)
    before = contents(folder, result)
    run = start_job(job, folder)
    ended = True
    try:
        run.wait(moment)
    except subprocess.TimeoutExpired:
        ended = False
        os.killpg(run.pid, number)
    errors = run.communicate(timeout=300)[1]
    complaints = []
    if number == signal.SIGINT and not ended:
        # Java may be the first to end, and then its launcher reports the signal.
        if run.returncode not in (130, -signal.SIGINT, 0):
            complaints.append(f"code {run.returncode}: {errors[-1000:]}")
        if "Traceback" in errors:
            complaints.append(f"traceback: {errors[-1000:]}")
    try:
        require_whole(folder)
    except Exception as error:
        complaints.append(f"not whole: {error!r}")
    if contents(folder, result) != before:
        complaints.append("other files changed")
    for leftover in folder.glob(f".{result}.recsys-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return ended, complaints


def contents(folder: Path, result: str) -> dict[str, str]:
    """Return the digest of each file and folder but the result of the job and what it writes aside."""
    aside = f".{result}.recsys-"
    return {
        path.name: digest(path) for path in folder.iterdir() if path.name != result and not path.name.startswith(aside)
    }


def require_whole(folder: Path) -> None:
    """Raise an error if the run, or the folder of lists where there is one, is not whole."""
    run = RunFolder.open(folder / "run")
    run.read_json("metrics.json")
    assert (folder / "run" / "report.html").read_text().rstrip().endswith("</html>")
    lists = folder / "lists"
    if lists.exists():
        assert (lists / "_SUCCESS").exists()
        assert list(lists.glob("*.parquet"))


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
