"""The nightly loop: what a server has kept is trained on, and the server goes over to the new bundle."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from serving_process import ServerProcess

from recsys.saved.pointer import follow_pointer

pytestmark = [pytest.mark.slow, pytest.mark.subprocess, pytest.mark.long]

SCRIPT = Path(__file__).parents[2] / "jobs" / "nightly.sh"


def one_night(folder, night, gate="ndcg@10 drops 0.5"):
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "recsys"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from recsys.cli import main; main()" "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "RECSYS_GATE": gate}
    command = ["sh", str(SCRIPT), str(folder), night]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_three_nights(world_files, tmp_path):
    shutil.copy(world_files["events"], tmp_path / "base.csv")
    (tmp_path / "config.toml").write_text(
        "out = 'runs/x'\n[data]\nevents = 'log/events.parquet'\n[recommend]\nmin_history = 0\n"
        "[judge]\nresamples = 100\n[models.als]\nrank = 4\niterations = 3\n"
    )
    from recsys.serving.event_store import EventStore

    EventStore(str(tmp_path / "events.db")).close()
    done = one_night(tmp_path, "night-0")
    assert done.returncode == 0, done.stderr
    users = [f"newcomer{n}" for n in range(5)]
    with ServerProcess(f"film={tmp_path}/current", "--store", tmp_path / "events.db", "--explore", "0.2") as server:
        for night in (1, 2):
            for user in users:
                status, answer = server.call("GET", f"/recommend?user={user}&k=5")
                assert status == 200
                assert all(0 < item["probability"] <= 1 for item in answer["items"])
                events = [{"user": user, "item": item["item"], "value": 5} for item in answer["items"][:3]]
                assert server.call("POST", "/events", {"events": events})[0] == 202
            before = server.call("GET", "/ready")[1]["models"][0]["version"]
            done = one_night(tmp_path, f"night-{night}")
            assert done.returncode == 0, done.stderr
            for _ in range(20_000):
                after = server.call("GET", "/ready")[1]["models"][0]
                if after["version"] != before:
                    break
            assert after["version"] != before, after
            assert follow_pointer(tmp_path / "current").resolve() == tmp_path / "bundles" / f"night-{night}"
        # A model that fails the gate is not published.
        done = one_night(tmp_path, "night-3", gate="ndcg@10 within 0.0")
        assert done.returncode == 3, done.stderr
        assert follow_pointer(tmp_path / "current").resolve() == tmp_path / "bundles" / "night-2"
    log = pd.read_parquet(tmp_path / "log" / "events.parquet")
    base = pd.read_csv(tmp_path / "base.csv")
    assert len(log) == len(base) + 2 * 3 * len(users)
    assert set(users) <= set(log.user_id)
    shown = pd.read_parquet(tmp_path / "log" / "impressions.parquet")
    assert shown.probability.between(0, 1, inclusive="right").all()
    assert len(shown) == 2 * 5 * len(users)
