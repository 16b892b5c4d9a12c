"""The figures of Spark's jobs in the costs of a run; sessions of Spark Connect are refused."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.config import SparkSettings
from recsys.errors import ConfigError
from recsys.meter import Meter

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]


def test_rows_and_tasks_of_a_step_are_counted_and_those_of_others_are_not(spark, tmp_path, caplog):
    from functools import partial

    from recsys.spark.costs import count_tasks

    spark.range(10).count()
    with caplog.at_level(logging.INFO, logger="recsys"), Meter() as meter:
        meter.further_costs = partial(count_tasks, spark)
        with meter.hop("both"):
            with meter.hop("write"):
                spark.range(0, 1_000, 1, 4).write.parquet(str(tmp_path / "table"))
            with meter.hop("shuffle"):
                spark.read.parquet(str(tmp_path / "table")).repartition(2, "id").foreach(lambda row: None)
        with meter.hop("nothing"):
            pass
        spark.range(10).count()
    write, shuffle, both, nothing = (hop["spark"] for hop in meter.hops)
    assert (write["jobs"], write["tasks"], write["rows_written"]) == (1, 4, 1_000)
    assert (shuffle["rows_read"], shuffle["rows_shuffled"], shuffle["rows_written"]) == (1_000, 1_000, 0)
    assert both["tasks"] == write["tasks"] + shuffle["tasks"]
    # What Spark generates counts as read.
    assert (both["rows_read"], both["rows_written"]) == (2_000, 1_000)
    assert both["slowest_task_seconds"] == max(write["slowest_task_seconds"], shuffle["slowest_task_seconds"]) > 0
    assert (nothing["jobs"], nothing["tasks"], nothing["slowest_stage"]) == (0, 0, None)
    for figure in ("failed_tasks", "retried_stages", "killed_tasks", "spilled_mb"):
        assert both[figure] == 0
    messages = [record.getMessage() for record in caplog.records]
    slowest = f"slowest task {write['slowest_task_seconds']:.1f} s"
    assert messages[0].endswith(f" MiB; Spark: 4 tasks, 1,000 rows read, 0 MiB spilled, {slowest}")
    assert "Spark" not in messages[-1]


def test_what_went_wrong_is_summed_over_attempts():
    from recsys.spark.costs import summarise_stages

    fields = ("numCompleteTasks", "inputRecords", "shuffleWriteRecords", "outputRecords", "diskBytesSpilled")
    stage = dict.fromkeys(fields, 0) | {"stageId": 7, "attemptId": 0, "status": "COMPLETE", "numFailedTasks": 0}
    stage |= {"numKilledTasks": 0, "taskMetricsDistributions": None}
    slow = {"diskBytesSpilled": 3 * 2**20, "taskMetricsDistributions": {"duration": [1500.0]}, "numFailedTasks": 2}
    again = {"attemptId": 1, "stageId": 8, "diskBytesSpilled": 2**19, "numKilledTasks": 4}
    skipped = {"status": "SKIPPED", "numFailedTasks": 9}
    costs = summarise_stages([stage, stage | slow, stage | again, stage | skipped])
    assert costs["spilled_mb"] == 3.5
    assert (costs["slowest_task_seconds"], costs["slowest_stage"]) == (1.5, 7)
    assert (costs["failed_tasks"], costs["retried_stages"], costs["killed_tasks"]) == (2, 1, 4)


FAILING_MODEL = """
import os
from pathlib import Path
from recsys.models.sequential.transitions import Transitions

class FailsOnce(Transitions):
    def sum_users(self, histories):
        marker = Path(os.environ["MARKER"])
        if len(histories) and not marker.exists():
            marker.touch()
            raise OSError("this attempt fails")
        return super().sum_users(histories)
"""

FITS = """
import numpy as np, pandas as pd
from failing_model import FailsOnce, Transitions
from recsys.config import SparkSettings
from recsys.spark.costs import count_tasks
from recsys.spark.session import session
from recsys.spark.training.sums import fit_from_sums

spark = session(SparkSettings(master="local[1,2]", driver_memory="1g", conf={"spark.ui.enabled": "false"}))
rows = pd.DataFrame({"user": np.repeat(np.arange(9), 4), "item": np.tile(np.arange(6), 6), "value": 1.0})
rows["timestamp"] = np.arange(36)
models = [FailsOnce(), Transitions()]
for model in models:
    with count_tasks(spark, "fit") as costs:
        fit_from_sums(model, spark.createDataFrame(rows), np.full(6, 6), timed=True)
    print("failed", costs["spark"]["failed_tasks"], costs["spark"]["retried_stages"])
failing, reference = (model.weights_.toarray() for model in models)
print("equal", np.array_equal(failing, reference), np.count_nonzero(reference) > 5)
spark.stop()
"""


@pytest.mark.long
@pytest.mark.subprocess
def test_a_task_that_fails_once_is_counted_and_changes_nothing(tmp_path):
    """In a process of its own: the session of the tests allows a task no second attempt."""
    (tmp_path / "failing_model.py").write_text(FAILING_MODEL)
    variables = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "MARKER": str(tmp_path / "marker")}
    words = [sys.executable, "-c", FITS]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=os.environ | variables)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["failed 1 0", "failed 0 0", "equal True True"]


@pytest.mark.parametrize(
    ("settings", "variables"),
    [
        ({}, {"SPARK_REMOTE": "sc://host"}),
        ({}, {"SPARK_CONNECT_MODE_ENABLED": "1"}),
        ({"master": "sc://host:15002"}, {}),
        ({"conf": {"spark.api.mode": "connect"}}, {}),
        ({"conf": {"spark.remote": "local"}}, {}),
        ({}, {"SPARK_API_MODE": "connect"}),
    ],
)
def test_spark_connect_is_refused_in_one_sentence(monkeypatch, settings, variables):
    from recsys.spark.session import session

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^Spark Connect has no Spark driver in this process.*\.$") as refusal:
        session(SparkSettings(**settings))
    assert "\n" not in str(refusal.value)


def test_a_given_session_of_spark_connect_is_refused():
    from recsys.spark.session import require_classic

    connect_session = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})
    with pytest.raises(ConfigError, match="Spark Connect"):
        require_classic(connect_session())
