"""What a fit and a flow say to the log, and that they say nothing to those who do not listen."""

import io
import logging
import re
import subprocess
import sys

import pytest
from contract import world
from rich.console import Console
from rich.progress import Progress

from recsys.cli import console, run_verb
from recsys.logging import log_phase, running_step
from recsys.meter import Meter
from recsys.models import build

KINDS = {
    "als": r"als: train factors \(users 60, items 30, pairs \d+, rank 4\)",
    "bpr": r"bpr: train factors \(users 60, items 30, pairs \d+, rank 4\)",
    "ease": r"ease: invert the Gram matrix \(users \d+, items 28\)",
    "itemknn": r"itemknn: nearest items \(users 60, items 30, neighbours 100\)",
    "rp3beta": r"rp3beta: random walks \(users 60, items 30, neighbours 200\)",
    "spectral": r"spectral: singular vectors \(users 60, items 30, rank 30\)",
    "side_ease": r"side_ease: invert the Gram matrix \(users 60, items 30, side 30\)",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_logs_its_phase_with_sizes_and_seconds(kind, caplog):
    train, features = world()
    params = {"rank": 4} if kind in ("als", "bpr") else {}
    with caplog.at_level(logging.INFO, logger="recsys"):
        build(kind, params).fit(train, features)
    messages = [record.getMessage() for record in caplog.records if record.name == "recsys"]
    assert len(messages) == 1
    assert re.fullmatch(KINDS[kind] + r": \d+\.\d\d s", messages[0]), messages


def test_each_sweep_of_als_is_logged_for_debugging(caplog):
    train, _ = world()
    with caplog.at_level(logging.DEBUG, logger="recsys"):
        model = build("als", {"rank": 4, "iterations": 3}).fit(train)
    lines = [record.getMessage() for record in caplog.records if "sweep" in record.getMessage()]
    assert [line.split(", ")[0] for line in lines] == [f"als: sweep {n} of 3" for n in (1, 2, 3)]
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert losses == pytest.approx(model.losses_.tolist(), rel=1e-4)
    assert losses[0] > losses[2]


def test_a_hybrid_logs_the_settings_of_each_part_and_its_choice(caplog):
    train, features = world(users=150)
    with caplog.at_level(logging.INFO, logger="recsys"):
        model = build("hybrid", {"parts": ["als", "content"], "placebo": False}).fit(train, features)
    assert list(model.record["parts"]) == ["als", "content", "als_2"]
    messages = [record.getMessage() for record in caplog.records]
    for kind, part in model.record["parts"].items():
        line = next(message for message in messages if message.startswith(f"hybrid: {kind} has"))
        assert f"ndcg@100 {part['ndcg@100']:.4f}" in line
        assert f"of {part['tried']} settings" in line
        assert all(repr(value) in line for value in part["params"].values())
    assert f"hybrid: weights {model.record['weights']}: {model.record['why']}" in messages


def test_the_hops_of_a_flow_are_logged(caplog):
    with caplog.at_level(logging.INFO, logger="recsys"), Meter() as meter:
        with meter.hop("fit als"):
            pass
        with pytest.raises(ValueError, match="broken"), meter.hop("judge als"):
            raise ValueError("broken")
    (message,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"fit als: 0\.\d\d s, peak [\d,]+ MiB", message)


@pytest.mark.subprocess
def test_nothing_is_printed_unless_asked_for():
    program = (
        "from recsys.data.synthetic import checkerboard; from recsys.models import build;"
        "build('als', {'rank': 2}).fit(checkerboard(6))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    heard = "import logging; logging.basicConfig(level=logging.INFO);" + program
    done = subprocess.run([sys.executable, "-c", heard], capture_output=True, text=True, check=True)
    assert "INFO:recsys:als: train factors" in done.stderr


class NoTerminal(io.StringIO):
    def isatty(self):
        return False


def test_progress_without_a_terminal_is_a_line_from_time_to_time(monkeypatch, capsys):
    """The time is a list of numbers: nothing sleeps. The latest note is printed, from a step or from the log."""
    seconds = iter([0.0, 10.0, 20.0, 30.0])
    lines = console.StatusLines(clock=lambda: next(seconds))
    shown = NoTerminal()
    monkeypatch.setattr(console, "log", Console(file=shown, markup=False, soft_wrap=True))
    lines.print_status()
    assert shown.getvalue() == "", "nothing has begun"
    lines("recommend als", 64, 2_991)
    lines.print_status()
    logging.getLogger("recsys").addHandler(lines)
    logging.getLogger("recsys").setLevel(logging.DEBUG)
    try:
        build("als", {"rank": 2, "iterations": 2}).fit(world()[0])
    finally:
        logging.getLogger("recsys").removeHandler(lines)
        logging.getLogger("recsys").setLevel(logging.NOTSET)
    lines.print_status()
    first, second = shown.getvalue().splitlines()
    assert first == "10 s  recommend als: 64 of 2,991"
    assert second.startswith("20 s  als: train factors (users")


def test_the_step_that_runs_is_shown_after_a_phase_in_it_has_ended(monkeypatch):
    """A phase that has ended, also with an error, does not stand for the step that goes on."""
    lines = console.StatusLines(clock=lambda: 0.0)
    shown = NoTerminal()
    monkeypatch.setattr(console, "log", Console(file=shown, markup=False, soft_wrap=True))
    bars = Progress(console=Console(file=io.StringIO()))
    steps = console.Steps(bars)
    with console._listening(lines), console._listening(steps), Meter() as meter, running_step("write the run folder"):
        with meter.hop("fit als"):
            with log_phase("als: train factors", users=3):
                lines.print_status()
            lines.print_status()
            on_terminal = bars.tasks[0].description
            with pytest.raises(ValueError, match="no"), log_phase("als: train factors", users=4):
                raise ValueError("no")
            lines.print_status()
        lines.print_status()
        with meter.hop("recommend als"):
            lines("recommend als", 1, 2)
            lines.print_status()
            lines("recommend als", 2, 2)
            lines.print_status()
    assert on_terminal == "fit als …"
    assert [line.removeprefix("0 s  ") for line in shown.getvalue().splitlines()] == [
        "als: train factors (users 3) …",
        "fit als …",
        "fit als …",
        "write the run folder …",
        "recommend als: 1 of 2",
        "recommend als …",
    ]


def test_a_terminal_shows_the_latest_line_of_the_log_and_the_steps():
    bars = Progress(console=Console(file=io.StringIO()))
    steps = console.Steps(bars)
    with console._listening(steps):
        logging.getLogger("recsys").debug("fit hybrid …")
        logging.getLogger("recsys").info("hybrid: tries %s", "als")
        steps("recommend hybrid", 64, 2_991)
    logging.getLogger("recsys").info("after it")
    shown = [(task.description, task.completed, task.total) for task in bars.tasks]
    assert shown == [("hybrid: tries als", 0, None), ("recommend hybrid: 64 of 2,991", 64, 2_991)]
    assert logging.getLogger("recsys").level == logging.NOTSET


@pytest.mark.slow
def test_a_run_that_is_piped_prints_its_steps(monkeypatch, world_files, tmp_path, capsys):
    monkeypatch.setattr(console, "STATUS_SECONDS", 0.001)
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", "models={ease={}}"]
    assert run_verb(words) == 0
    said = capsys.readouterr().err
    assert re.search(r"^\d+ s  fit ease …$|^\d+ s  ease: invert", said, re.MULTILINE)
    assert logging.getLogger("recsys").level == logging.NOTSET


@pytest.mark.slow
def test_a_short_run_that_is_piped_says_nothing_in_between(monkeypatch, world_files, tmp_path, capsys):
    # However slow the machine is, this run is short.
    monkeypatch.setattr(console, "STATUS_SECONDS", 600.0)
    words = ["run", str(world_files["events"]), "--set", f"out={tmp_path}/run", "--set", "models={popular={}}"]
    assert run_verb(words) == 0
    assert " s  " not in capsys.readouterr().err
