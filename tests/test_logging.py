"""What a fit and a flow say to the log, and that they say nothing to those who do not listen."""

import logging
import re
import subprocess
import sys

import pytest
from contract import world

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
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert [line.split(", ")[0] for line in lines] == [f"als: sweep {n} of 3" for n in (1, 2, 3)]
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert losses == pytest.approx(model.losses_.tolist(), rel=1e-4)
    assert losses[0] > losses[2]


def test_a_hybrid_logs_the_settings_of_each_part_and_its_choice(caplog):
    train, features = world(users=200)
    with caplog.at_level(logging.INFO, logger="recsys"):
        model = build("hybrid", {"parts": ["popular", "content"], "placebo": False}).fit(train, features)
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
