"""A run in MLflow: what the file store holds afterwards is what the run folder says."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from builders import run_locally

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed"),
]

TRACK = "from recsys.cli import main; main()"
READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
found = []
for run in client.search_runs([client.get_experiment_by_name("films").experiment_id]):
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    told = {"name": run.info.run_name, "params": run.data.params, "metrics": run.data.metrics, "files": files}
    found.append(told | {"status": run.info.status, "tags": run.data.tags, "id": run.info.run_id})
print(json.dumps(found))
"""


def python(code, *words):
    """Run in a process of its own, where MLflow's own warnings are no errors; its file store asks for a word."""
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true", "GIT_PYTHON_REFRESH": "quiet"}
    return subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(world_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("track") / "films"
    judge = {"metrics": ["ndcg@10", "recall[ips=0.5]@10"]}
    return run_locally(out, world_files, {"itemknn": {"neighbours": 7}}, judge=judge)


def test_what_mlflow_holds(run, tmp_path):
    uri = (tmp_path / "store").as_uri()
    done = python(TRACK, "track", str(run), "--to", uri, "--experiment", "films")
    assert done.returncode == 0, done.stderr[-2000:]
    found = {run["name"]: run for run in json.loads(python(READ, uri).stdout)}
    judged = json.loads((run / "metrics.json").read_text())["models"]
    assert set(found) == {"films", *(f"films/{name}" for name in judged)}
    whole = found["films"]
    assert whole["params"]["judge.resamples"] == "100"
    assert {"metrics.json", "config.toml", "manifest.json"} <= set(whole["files"])
    assert whole["metrics"]["fit itemknn_ s"] >= 0
    for name, metrics in judged.items():
        told = found[f"films/{name}"]
        assert told["tags"]["mlflow.parentRunId"] == whole["id"]
        assert told["status"] == "FINISHED"
        for metric, key in (("ndcg@10", "ndcg_at_10"), ("recall[ips=0.5]@10", "recall_ips_0.5_at_10")):
            ends = [metrics[metric]["mean"], *metrics[metric]["ci95"]]
            assert [told["metrics"][key + end] for end in ("", ".low", ".high")] == ends
    assert found["films/itemknn"]["params"] == {"neighbours": "7"}


def test_what_mlflow_refuses_is_a_message(run):
    done = python(TRACK, "track", str(run), "--to", "nonsense://there")
    assert done.returncode == 2
    assert "error: MLflow at nonsense://there" in done.stderr


def test_a_folder_that_is_no_run(tmp_path):
    done = python(TRACK, "track", str(tmp_path), "--to", tmp_path.as_uri())
    assert done.returncode == 2
