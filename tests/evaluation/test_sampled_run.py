"""A run can rank among sampled candidates too, beside all of them and under another name."""

import json

import numpy as np
import pytest

from recsys.config import parse_config
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import Fraction
from recsys.errors import ConfigError
from recsys.evaluation.judging.full_ranking import FullRanking, evaluate_scores
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.flow import run
from recsys.models import build
from recsys.runfolder import RunFolder, to_plain_json


def config_of(out, world_files, n, **more):
    return {
        "out": str(out),
        "data": {"events": str(world_files["events"]), "items": str(world_files["items"])},
        "split": {"rule": "fraction", "test": 0.3},
        "models": {"itemknn": {"neighbours": 9}},
        "recommend": {"min_history": 0},
        "judge": {"metrics": ["ndcg@5", "mrr@5"], "cold_start": [], "sampled": n},
    } | more


@pytest.mark.slow
def test_a_sample_of_all_candidates_is_the_full_ranking(tmp_path, world_files):
    metrics = run(parse_config(config_of(tmp_path / "run", world_files, 10_000)))
    record = json.loads((tmp_path / "run" / "sampled.json").read_text())
    assert record["metrics"] == {"ndcg@5": "ndcg@5[sampled=10000]", "mrr@5": "mrr@5[sampled=10000]"}
    for model, cells in metrics["models"].items():
        for name, cell in cells.items():
            sampled = record["models"][model][record["metrics"][name]]
            for key in ("mean", "ci95", "users"):
                assert sampled[key] == pytest.approx(to_plain_json(cell)[key], abs=1e-12), (model, name, key)
    assert "orders the models" not in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.slow
def test_a_small_sample_is_easier_the_same_each_time_and_marked_as_biased(tmp_path, world_files):
    records = []
    for name in ("one", "two"):
        metrics = run(parse_config(config_of(tmp_path / name, world_files, 5, seed=4)))
        records.append(json.loads((tmp_path / name / "sampled.json").read_text()))
    assert records[0] == records[1]
    assert records[0]["seed"] == 4
    for model in ("random", "popular", "itemknn"):
        assert records[0]["models"][model]["ndcg@5[sampled=5]"]["mean"] > metrics["models"][model]["ndcg@5"]["mean"]
    again = run(parse_config(config_of(tmp_path / "three", world_files, 5, seed=5, split={"rule": "time"})))
    other = run(parse_config(config_of(tmp_path / "four", world_files, 5, seed=6, split={"rule": "time"})))
    means = [
        json.loads((tmp_path / name / "sampled.json").read_text())["models"]["popular"]["ndcg@5[sampled=5]"]["mean"]
        for name in ("three", "four")
    ]
    assert again["models"]["popular"]["ndcg@5"]["mean"] == other["models"]["popular"]["ndcg@5"]["mean"]
    assert means[0] != means[1], "another seed draws another sample"
    assert "ndcg@5[sampled=5]" not in metrics["models"]["popular"], "the metrics of the run are those of all candidates"
    report = (tmp_path / "one" / "report.md").read_text()
    assert "## Sampled candidates" in report
    assert "Such numbers are biased" in report
    RunFolder.require_writable(tmp_path / "one")


def test_sampled_candidates_are_among_the_ranked_ones(world):
    """Where lists rank a part of the items, the others are not drawn either."""
    parts = split(world.events, Fraction(test=0.3), items=world.items)
    truth = Truth.from_split(parts, EvaluationSettings(metrics=("ndcg@5",)))
    model = build("popular", {}).fit(parts.train)
    alone = np.zeros(len(truth.candidates), dtype=bool)
    columns = np.unique(truth.relevant.indices)
    alone[columns[columns < len(alone)][:1]] = True
    restricted = Truth(**vars(truth) | {"ranked_items": alone})
    ranking = FullRanking(sampled=10_000)
    values = evaluate_scores(model, restricted, ["mrr@5"], name="x", ranking=ranking).per_user["mrr@5[sampled=10000]"]
    has_it = np.array(
        [alone[row[row < len(alone)]].any() for row in np.split(truth.relevant.indices, truth.relevant.indptr[1:-1])]
    )
    defined = values.notna().to_numpy()
    # The only candidate is first in the list of everyone for whom it is relevant.
    assert (values[has_it & defined] == 1).all()
    assert (values[~has_it & defined] == 0).all()
    assert has_it.any()


def test_spark_refuses_it_before_it_starts(tmp_path, world_files):
    pytest.importorskip("pyspark")
    from recsys.spark.engine import SparkEngine

    config = parse_config(config_of(tmp_path / "run", world_files, 5, models={"popular": {}}, engine="spark"))
    with pytest.raises(ConfigError, match=r"\[judge\] sampled .* local engine only"):
        SparkEngine(config)
