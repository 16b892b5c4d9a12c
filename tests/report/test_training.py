"""What the report says of a training: whether more sweeps would go on lowering the objective."""

from datetime import UTC, datetime

import pytest

from recsys.report.run_reader import Run
from recsys.report.sections.training import training
from recsys.runfolder import RunFolder

MODEL = {"ndcg@10": {"mean": 0.2, "ci95": [0.1, 0.3], "users": 9}}


def told(place, losses, curves=None):
    with RunFolder.writing(place / "run") as folder:
        folder.write_json("metrics.json", {"models": {"als": MODEL}, "about": {"primary": "ndcg@10"}})
        folder.write_json("training.json", losses)
        if curves:
            from recsys.spark.engine import _write_curves

            _write_curves(curves, folder)
        folder.write_manifest(seed=0, inputs={}, hops=[], started=datetime.now(UTC))
    return training(Run(RunFolder.open(place / "run")))


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([200.0, 101.0, 100.0], "the objective is 50.0% of its value after the first one"),
        ([200.0, 101.0, 100.0], "the last sweep lowered it by 0.99%"),
        ([200.0, 101.0, 100.0], "It has settled"),
        ([200.0, 102.0, 100.0], "More iterations would lower it further"),
    ],
)
def test_what_is_said(tmp_path, losses, says):
    section = told(tmp_path, {"als": losses})
    assert says in section.paragraphs[0]
    assert len(section.figures) == 1


@pytest.mark.spark
@pytest.mark.parametrize("short_histories", [None, {"min_history": 5, "groups": []}])
def test_what_spark_writes_of_users_held_out_is_said(tmp_path, short_histories):
    from recsys.spark.training.training_curve import TrainingCurve

    curve = TrainingCurve([3.0, 2.0], [0.25, 0.125], "ndcg@10", 42, short_histories)
    section = told(tmp_path, {"als": curve.losses}, {"als": curve})
    assert "42 users were not trained on" in section.paragraphs[1]
    assert "it was best, 0.2500, after sweep 1" in section.paragraphs[1]
    assert len(section.figures) == 2


def test_one_sweep_is_no_curve(tmp_path):
    assert told(tmp_path, {"als": [200.0]}) is None
