"""A run with [judge] task = "ratings": folder, report, compare, evaluate, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from recsys import models, run_files
from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.data.splitting.strategies import Folds, fold_of_pairs
from recsys.errors import ConfigError, RunFolderError
from recsys.flow import run
from recsys.runfolder import RunFolder
from recsys.saved.open_model import open_model

KNN = {"rating_knn": {"neighbours": 5}}


def log_of(seed=0, users=60, items=30):
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(users, 1)) * rng.normal(size=(1, items))
    value = np.clip(np.round(2 * (3 + rng.normal(0, 0.5, (users, 1)) + taste)) / 2, 0.5, 5)
    user, item = np.nonzero(rng.random((users, items)) < 0.4)
    return pd.DataFrame({"user_id": user, "item_id": item, "value": value[user, item]})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folder with a log, a run with folds and one with a fraction; both have kNN."""
    folder = tmp_path_factory.mktemp("ratings")
    log_of().to_csv(folder / "log.csv", index=False)
    for name, split in {"folds": {"rule": "folds", "folds": 3}, "fraction": {"rule": "fraction"}}.items():
        run(parse_config(raw(folder, name, split)))
    return folder


def raw(folder, name, split, **sections):
    return {
        "out": str(folder / name),
        "data": {"events": str(folder / "log.csv")},
        "judge": {"task": "ratings"},
        "split": split,
        "models": KNN,
    } | sections


def biases_by_loops(train, users, items):
    """Return the predictions of the biases with the defaults, by the sweeps of their definition."""
    mean = train["value"].mean()
    b_u = dict.fromkeys(train["user_id"], 0.0)
    b_i = dict.fromkeys(train["item_id"], 0.0)
    for _ in range(10):
        for item, rows in train.groupby("item_id"):
            b_i[item] = sum(v - mean - b_u[u] for u, v in zip(rows["user_id"], rows["value"], strict=True)) / (
                len(rows) + 10
            )
        for user, rows in train.groupby("user_id"):
            b_u[user] = sum(v - mean - b_i[i] for i, v in zip(rows["item_id"], rows["value"], strict=True)) / (
                len(rows) + 15
            )
    return np.array([mean + b_u.get(u, 0.0) + b_i.get(i, 0.0) for u, i in zip(users, items, strict=True)])


@pytest.mark.slow
def test_every_pair_is_predicted_from_the_other_folds(runs):
    log = log_of()
    fold = fold_of_pairs(log["user_id"], log["item_id"], Folds(folds=3))
    expected = np.empty(len(log))
    for number in (1, 2, 3):
        test = log[fold == number]
        expected[fold == number] = biases_by_loops(log[fold != number], test["user_id"], test["item_id"])
    folder = RunFolder.open(runs / "folds")
    table = folder.read_table(run_files.predictions("biases")).sort_values(["user_id", "item_id"])
    np.testing.assert_allclose(table["score"], np.clip(expected, 0.5, 5), rtol=1e-6)
    np.testing.assert_array_equal(table["fold"], fold)
    assert set(table["source"]) == {"biases"}
    metrics = folder.read_json(run_files.METRICS)
    error = np.clip(expected, 0.5, 5) - log["value"].to_numpy()
    cell = metrics["models"]["biases"]["rmse"]
    assert cell["mean"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert (cell["pairs"], cell["users"]) == (len(log), log["user_id"].nunique())
    assert metrics["about"]["scale"] == [0.5, 5.0]
    assert [record["pairs"] for record in metrics["about"]["folds"]] == np.bincount(fold)[1:].tolist()


@pytest.mark.slow
def test_the_saved_model_is_fitted_on_all_ratings_with_folds_and_else_on_train(runs):
    log = log_of()
    at = np.array([0, 5, 7]), np.array([1, 2, 3])
    saved = models.load(runs / "folds" / run_files.model_folder("biases"))
    np.testing.assert_allclose(saved.predict(*at), biases_by_loops(log, *at), rtol=1e-6)
    train = RunFolder.open(runs / "fraction").read_table(run_files.TRAIN)
    saved = models.load(runs / "fraction" / run_files.model_folder("biases"))
    rows = [np.searchsorted(np.unique(train[name]), ids) for name, ids in zip(("user_id", "item_id"), at, strict=True)]
    np.testing.assert_allclose(saved.predict(*rows), biases_by_loops(train, *at), rtol=1e-6)


@pytest.mark.slow
def test_pairs_without_an_opinion_get_the_biases_and_are_counted(runs):
    folder = RunFolder.open(runs / "folds")
    table = folder.read_table(run_files.predictions("rating_knn"))
    of_biases = folder.read_table(run_files.predictions("biases"))
    is_fallback = (table["source"] == "biases").to_numpy()
    assert 0 < is_fallback.sum() < len(table)
    np.testing.assert_array_equal(table["score"][is_fallback], of_biases["score"][is_fallback])
    counts = folder.read_json(run_files.METRICS)["about"]["counts"]["rating_knn"]
    assert counts["no_opinion"] == is_fallback.sum()


@pytest.mark.slow
def test_evaluate_and_compare_give_the_numbers_of_the_run(runs, capsys):
    metrics = RunFolder.open(runs / "folds").read_json(run_files.METRICS)
    words = [str(runs / "folds" / name) for name in (run_files.predictions("rating_knn"), run_files.TEST)]
    assert run_verb(["evaluate", *words, "-m", "rmse", "-m", "mae", "--json"]) == 0
    pooled = json.loads(capsys.readouterr().out)["about"]["pooled"]
    for metric in ("rmse", "mae"):
        assert pooled[metric] == pytest.approx(metrics["models"]["rating_knn"][metric]["mean"], rel=1e-12)
    assert run_verb(["compare", str(runs / "folds"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["pick"] == "rating_knn"
    row = next(
        row
        for row in record["differences"]
        if (row["model"], row["against"], row["metric"]) == ("rating_knn", "biases", "rmse")
    )
    cell = metrics["differences"]["rating_knn"]["rmse"]
    assert [row["difference"], row["low"], row["high"]] == pytest.approx([cell["mean"], *cell["ci95"]])
    assert [row["low_pairs"], row["high_pairs"]] == pytest.approx(cell["ci95_pairs"])


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_pairs_and_gates_fire(runs, capsys):
    config = raw(runs, "more", {"rule": "folds", "folds": 3}, models={"rating_knn": {"neighbours": 5, "damping": 5}})
    run(parse_config(config))
    names = [str(runs / "folds"), str(runs / "more"), "--model", "rating_knn"]
    assert run_verb(["compare", *names]) == 0
    assert "more - folds" in capsys.readouterr().out
    assert run_verb(["compare", *names, "--fail-if", "rmse rises 0.001"]) == 3
    assert run_verb(["compare", *names, "--fail-if", "rmse within 0.0001"]) == 3
    assert run_verb(["compare", *names, "-m", "mae", "--fail-if", "mae rises 0.001"]) == 3
    assert run_verb(["compare", *names, "-m", "ndcg@10"]) == 2
    # The mean is not shown to be as good as the biases, the best baseline.
    assert run_verb(["compare", str(runs / "folds"), "--fail-if", "rmse within 0.001"]) == 3
    assert run_verb(["compare", *reversed(names[:2]), *names[2:], "--fail-if", "rmse within 0.0001"]) == 0
    capsys.readouterr()
    assert run_verb(["compare", str(runs / "folds"), str(runs / "fraction")]) == 2
    assert "predict other pairs" in capsys.readouterr().err


@pytest.mark.slow
def test_the_report_and_the_verdict(runs, capsys):
    assert run_verb(["report", str(runs / "folds")]) == 0
    printed = capsys.readouterr().out
    assert "folds: rating_knn has smaller errors than the best baseline, biases: rmse" in printed
    assert "recsys recommend" not in printed
    report = (runs / "folds" / run_files.REPORT_MARKDOWN).read_text(encoding="utf-8")
    for title in ("Errors", "By support", "Calibration", "Folds", "Split", "Reproduce"):
        assert f"## {title}" in report
    table = report[report.index("Errors by model") : report.index("Difference from biases")]
    assert table.index("knn") < table.index("biases") < table.index("| mean")


@pytest.mark.slow
def test_predictions_are_clipped_to_the_scale_and_counted(runs, capsys):
    config = raw(runs, "narrow", {"rule": "fraction"}, judge={"task": "ratings", "scale": [2.5, 3.2]})
    metrics = run(parse_config(config))
    table = RunFolder.open(runs / "narrow").read_table(run_files.predictions("biases"))
    assert (table["score"].min(), table["score"].max()) == (2.5, 3.2)
    clipped = table["score"].isin([2.5, 3.2]).sum()
    assert metrics["about"]["counts"]["biases"]["clipped"] == clipped
    table[["user_id", "item_id"]].to_csv(runs / "pairs.csv", index=False)
    words = ["predict", str(runs / "narrow"), str(runs / "pairs.csv"), "--model", "biases"]
    assert run_verb([*words, "--out", str(runs / "predicted.csv")]) == 0
    np.testing.assert_allclose(pd.read_csv(runs / "predicted.csv")["score"], table["score"], rtol=1e-12)
    [pair] = table[table["score"] == 3.2].head(1).to_dict("records")
    pair_words = ["--user", str(pair["user_id"]), "--item", str(pair["item_id"])]
    assert run_verb(["explain", str(runs / "narrow"), *pair_words, "--model", "biases"]) == 0
    first, *parts = capsys.readouterr().out.splitlines()
    assert first.startswith("biases: 3.2 for ")
    assert float(first.split("clipped from ")[1].split()[0]) > 3.2
    assert sum(float(line.split()[0]) for line in parts) > 3.2


@pytest.mark.slow
def test_pairs_are_read_with_the_names_of_the_log(runs, tmp_path, capsys):
    """Pairs may be named as the log of the run, as recsys does, or as --column says."""
    log = pd.read_csv(runs / "log.csv")
    named = log.set_axis(["userId", "movieId", *log.columns[2:]], axis="columns")
    named.to_csv(tmp_path / "named.csv", index=False)
    log.to_csv(tmp_path / "plain.csv", index=False, header=False)
    by_position = {"user_id": "0", "item_id": "1", "value": str(list(log.columns).index("value"))}
    mappings = {"named": {"user_id": "userId", "item_id": "movieId"}, "plain": by_position}
    pairs = log[["user_id", "item_id"]].head(5)
    pairs.to_csv(tmp_path / "ours.csv", index=False)
    pairs.to_csv(tmp_path / "bare.csv", index=False, header=False)
    pairs.set_axis(["userId", "movieId"], axis="columns").to_csv(tmp_path / "theirs.csv", index=False)
    pairs.set_axis(["userId", "movieId"], axis="columns").to_parquet(tmp_path / "theirs.parquet", index=False)
    pairs.set_axis(["a", "b"], axis="columns").to_csv(tmp_path / "odd.csv", index=False, sep=";")
    odd = ["odd.csv", "--column", "user_id=a", "--column", "item_id=b", "--delimiter", ";"]
    words = {"named": [["ours.csv"], ["theirs.csv"], ["theirs.parquet"], odd], "plain": [["ours.csv"], ["bare.csv"]]}
    for name, mapping in mappings.items():
        data = {"events": str(tmp_path / f"{name}.csv"), "columns": mapping}
        run(parse_config(raw(tmp_path, name, {"rule": "fraction"}, models={}, data=data)))
        for file, *options in words[name]:
            assert run_verb(["predict", str(tmp_path / name), str(tmp_path / file), *options]) == 0, (name, file)
            rows = [line.split(",")[:2] for line in capsys.readouterr().out.splitlines()]
            assert rows == [["user_id", "item_id"], *pairs.astype(str).to_numpy().tolist()], (name, file)


@pytest.mark.slow
def test_verbs_of_lists_refuse_such_a_run(runs, capsys):
    with pytest.raises(RunFolderError, match="predict ratings and make no lists"):
        open_model(runs / "folds")
    assert run_verb(["onboard", str(runs / "folds")]) == 2
    assert "predict ratings and make no lists" in " ".join(capsys.readouterr().err.split())
    for verb in ("route", "plan", "tune"):
        assert run_verb([verb, str(runs / "folds" / run_files.CONFIG)]) == 2
        assert f"recsys {verb} is for models that make lists" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_the_saved_model_of_a_filtered_log_has_the_filtered_ratings(runs):
    config = raw(runs, "filtered", {"rule": "folds", "folds": 3}, filter={"min_item_events": 20}, models={"biases": {}})
    run(parse_config(config))
    log = log_of()
    common = log[log.groupby("item_id")["value"].transform("size") >= 20]
    assert 0 < common["item_id"].nunique() < log["item_id"].nunique()
    folder = RunFolder.open(runs / "filtered")
    train = folder.read_table(run_files.TRAIN)
    assert len(train) == len(common)
    assert len(folder.read_table(run_files.TEST)) == len(log)
    item = common["item_id"].iloc[0]
    row = np.searchsorted(folder.read_table(run_files.ITEMS)["item_id"], item)
    saved = models.load(runs / "filtered" / run_files.model_folder("biases"))
    expected = biases_by_loops(common, [0], [item])
    user = np.searchsorted(np.unique(common["user_id"]), 0)
    np.testing.assert_allclose(saved.predict(np.array([user]), np.array([row])), expected, rtol=1e-6)


@pytest.mark.slow
def test_predict_gives_the_ratings_of_a_table_of_pairs(runs, tmp_path, capsys):
    folder = RunFolder.open(runs / "fraction")
    judged = folder.read_table(run_files.predictions("rating_knn"))
    unknown = pd.DataFrame({"user_id": ["999", "x", "3"], "item_id": ["2", "2", "zz"]})
    pairs = pd.concat([judged[["user_id", "item_id"]].astype(str), unknown])
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    words = ["predict", str(runs / "fraction"), str(tmp_path / "pairs.csv")]
    assert run_verb([*words, "--out", str(tmp_path / "out.csv")]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(table["score"][:-3], judged["score"], rtol=1e-12)
    assert table["source"][:-3].tolist() == judged["source"].tolist()
    train = folder.read_table(run_files.TRAIN)
    expected = biases_by_loops(train, [999, 998, 3], [2, 2, 999])
    np.testing.assert_allclose(table["score"][-3:], expected, rtol=1e-6)
    assert set(table["source"][-3:]) == {"biases"}
    assert run_verb([*words, "--out", str(tmp_path / "out.csv"), "--model", "biases"]) == 0
    assert run_verb([*words, "--model", "bias"]) == 2
    assert "Did you mean 'biases'" in capsys.readouterr().err
    (tmp_path / "mine.csv").write_text("my notes\n")
    assert run_verb([*words, "--out", str(tmp_path / "mine.csv")]) == 2
    assert (tmp_path / "mine.csv").read_text() == "my notes\n"


@pytest.mark.slow
def test_predict_counts_pairs_that_the_run_does_not_know(runs, tmp_path, capsys):
    judged = RunFolder.open(runs / "fraction").read_table(run_files.predictions("biases"))
    user, item = judged[["user_id", "item_id"]].astype(str).iloc[0]
    rows = [(user, item), ("nobody", item), ("noone", "nothing"), (user, "nothing"), ("nobody", item)]
    pd.DataFrame(rows, columns=["user_id", "item_id"]).to_csv(tmp_path / "pairs.csv", index=False)
    words = ["predict", str(runs / "fraction"), str(tmp_path / "pairs.csv"), "--model", "biases"]
    assert run_verb(words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "4 of 5 pairs have a user or an item that the run does not know (unknown user: 3, unknown item: 2)" in said
    pd.DataFrame(rows[:1], columns=["user_id", "item_id"]).to_csv(tmp_path / "pairs.csv", index=False)
    assert run_verb(words) == 0
    assert "does not know" not in capsys.readouterr().err


@pytest.mark.slow
def test_explain_gives_the_parts_of_a_predicted_rating(runs, capsys):
    folder = RunFolder.open(runs / "fraction")
    judged = folder.read_table(run_files.predictions("rating_knn"))
    counted = judged[(judged["source"] == "rating_knn") & judged["score"].between(0.6, 4.9)]
    # The user with the most ratings has several that are compared with the item.
    train = folder.read_table(run_files.TRAIN)
    ratings_of_user = counted["user_id"].map(train["user_id"].value_counts()).fillna(0)
    [pair] = counted.loc[[ratings_of_user.idxmax()]].to_dict("records")
    words = ["explain", str(runs / "fraction"), "--user", str(pair["user_id"]), "--item", str(pair["item_id"])]
    assert run_verb([*words, "--model", "rating_knn"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert float(first.split()[1]) == pytest.approx(pair["score"], abs=1e-4)
    of_items = [float(line.split()[2]) for line in lines if line.startswith("  of which ")]
    parts = [float(line.split()[0]) for line in lines if not line.startswith(" ")]
    assert sum(parts) == pytest.approx(pair["score"], abs=1e-5)
    assert sum(of_items) == pytest.approx(parts[-1], abs=1e-5)
    assert 1 < len(of_items) <= 5
    rated = train["item_id"][train["user_id"] == pair["user_id"]].astype(str)
    assert run_verb([*words[:5], rated.iloc[0]]) == 0
    assert re.match(rf"user {pair['user_id']} has rated {rated.iloc[0]}.* already\n", capsys.readouterr().out)
    assert {line.split()[-1] for line in lines if "rating of" in line} <= set(rated)
    assert run_verb([*words, "--model", "rating_knn", "-k", "1"]) == 0
    largest, rest = capsys.readouterr().out.splitlines()[-2:]
    assert "  rating of " in largest
    assert re.fullmatch(rf"  of which \S+  {len(of_items) - 1} more ratings?", rest)
    assert float(largest.split()[2]) + float(rest.split()[2]) == pytest.approx(parts[-1], abs=1e-5)


@pytest.mark.slow
def test_explain_says_who_predicts_for_a_stranger(runs, capsys):
    folder = RunFolder.open(runs / "fraction")
    [[expected]] = [biases_by_loops(folder.read_table(run_files.TRAIN), [999], [2])]
    words = ["explain", str(runs / "fraction"), "--user", "999", "--item", "2", "--model", "rating_knn"]
    assert run_verb(words) == 0
    said = capsys.readouterr()
    assert "rating_knn: no opinion on this pair, so biases predicts" in said.out
    assert float(said.out.splitlines()[1].split()[1]) == pytest.approx(expected, abs=1e-4)
    assert "user 999: no history" in said.err
    assert run_verb([*words[:-1], "bias"]) == 2
    assert run_verb([*words[:4], "--item", "nothing"]) == 2
    assert "no item 'nothing' in this run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bundle_predicts_as_its_run_does_and_makes_no_lists(runs, tmp_path, capsys):
    judged = RunFolder.open(runs / "fraction").read_table(run_files.predictions("rating_knn"))
    pairs = judged[["user_id", "item_id"]].astype(str)
    pd.concat([pairs, pd.DataFrame({"user_id": ["3"], "item_id": ["zz"]})]).to_csv(tmp_path / "pairs.csv", index=False)
    bundle = str(tmp_path / "bundle")
    for _ in range(2):
        assert run_verb(["bundle", str(runs / "fraction"), bundle, "--model", "rating_knn"]) == 0
    words = ["predict", bundle, str(tmp_path / "pairs.csv"), "--out", str(tmp_path / "out.csv")]
    assert run_verb(words) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    of_biases = biases_by_loops(RunFolder.open(runs / "fraction").read_table(run_files.TRAIN), [3], [999])
    np.testing.assert_allclose(table["score"], [*judged["score"], *of_biases], rtol=1e-6)
    assert table["source"].tolist() == [*judged["source"], "biases"]
    assert sorted(path.name for path in (tmp_path / "bundle" / "model").iterdir()) == ["biases", "rating_knn"]
    capsys.readouterr()
    assert run_verb([*words, "--model", "mean"]) == 2
    assert "a bundle of model rating_knn, not of mean" in " ".join(capsys.readouterr().err.split())
    assert run_verb(["explain", bundle, "--user", "1", "--item", "1"]) == 0
    assert run_verb(["explain", bundle, "--user", "1", "--item", "1", "--model", "mean"]) == 2
    for verb in (["recommend", bundle, "--user", "1"], ["similar", bundle, "1"]):
        assert run_verb(verb) == 2
        assert "predict ratings and make no lists" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(RunFolderError, match="predict ratings and make no lists"):
        open_model(bundle)
    card = tmp_path / "bundle" / run_files.model_folder("biases") / "mean_.npy"
    card.write_bytes(card.read_bytes() + b"x")
    assert run_verb(words) == 2
    assert "was cut short or changed" in " ".join(capsys.readouterr().err.split())


OWN = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from recsys.rating_model import RatingModel
from recsys.recommender import Recommender

@dataclass
class ItemMean(RatingModel):
    STATE: ClassVar = {"means_": "float64[items]"}
    shift: float = 0.0

    def fit(self, train, features=None):
        total = np.bincount(train.item, train.value, len(train.items))
        count = np.bincount(train.item, minlength=len(train.items))
        self.means_ = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return self

    def predict(self, users, items):
        if self.shift > 9:
            return np.zeros(1)
        if self.shift > 5:
            raise ValueError("too far")
        return np.where(items >= 0, self.means_[items], np.nan) + self.shift

class Lists(Recommender):
    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return np.zeros(histories.shape, np.float32)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return the words of a run of a class of the user's own, whose module is in the working folder."""
    name = "own_" + tmp_path.name.rstrip("0123456789")[-30:]
    (tmp_path / f"{name}.py").write_text(OWN)
    log_of().to_csv(tmp_path / "log.csv", index=False)
    monkeypatch.chdir(tmp_path)
    words = ["run", "log.csv", "--set", "judge.task=ratings", "--set", "out=run", "--set", "split.rule=fraction"]
    return [*words, "--set", f"models.mine.model={name}:ItemMean"]


@pytest.mark.slow
def test_a_model_of_ratings_of_the_users_own(own, tmp_path, capsys):
    assert run_verb(own) == 2
    assert "add --own-models" in " ".join(capsys.readouterr().err.split())
    assert run_verb([*own, "--own-models", "--set", "models.mine.shift=0.25"]) == 0
    train = pd.read_parquet(tmp_path / "run" / run_files.TRAIN)
    table = pd.read_parquet(tmp_path / "run" / run_files.predictions("mine"))
    expected = table["item_id"].map(train.groupby("item_id")["value"].mean()) + 0.25
    np.testing.assert_allclose(table["score"], expected.clip(0.5, 5), rtol=1e-6)
    table[["user_id", "item_id"]].to_csv("pairs.csv", index=False)
    for folder in ("run", "bundle"):
        words = ["predict", folder, "pairs.csv", "--out", "out.csv", "--own-models"]
        assert run_verb([*words, "--model", "mine"]) == 0
        np.testing.assert_allclose(pd.read_csv("out.csv")["score"], table["score"], rtol=1e-9)
        assert run_verb(["bundle", "run", "bundle", "--model", "mine", "--own-models"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ItemMean", "Lists"), "is not a recsys.rating_model.RatingModel: with [judge] task = 'ratings' write class"),
        (("shift=0", "shift=6"), "predict failed, ValueError: too far"),
        (("shift=0", "shift=10"), "return float64["),
    ],
)
def test_a_model_of_the_users_own_that_is_no_model_of_ratings_is_refused(own, capsys, change, message):
    words = [word.replace(*change) for word in [*own, "--own-models", "--set", "models.mine.shift=0"]]
    if change[0] == "ItemMean":
        words = words[:-2]
    assert run_verb(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_predict_gives_the_spread_of_a_model_that_has_one(runs, tmp_path):
    models_of_run = {"bpmf": {"rank": 2, "burn_in": 2, "samples": 3}}
    run(parse_config(raw(runs, "bayes", {"rule": "fraction"}, models=models_of_run)))
    judged = RunFolder.open(runs / "bayes").read_table(run_files.predictions("bpmf"))
    judged[["user_id", "item_id"]].to_csv(tmp_path / "pairs.csv", index=False)
    words = ["predict", str(runs / "bayes"), str(tmp_path / "pairs.csv"), "--model", "bpmf"]
    assert run_verb([*words, "--out", str(tmp_path / "out.csv")]) == 0
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out.csv")["spread"], judged["spread"], rtol=1e-12)


@pytest.mark.slow
def test_a_run_replaces_the_run_before_it(tmp_path):
    log_of().to_csv(tmp_path / "log.csv", index=False)
    for share in (0.2, 0.3):
        run(parse_config(raw(tmp_path, "run", {"rule": "fraction", "test": share})))
    assert len(RunFolder.open(tmp_path / "run").read_table(run_files.TEST)) > 0.25 * len(log_of())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"models": {"als": {}}}, "model 'als' ranks items and predicts no ratings"),
        ({"models": {"bpmf": {"rnk": 3}}}, "unknown parameter 'rnk'"),
        ({"recommend": {"k": 20}}, r"remove \[recommend\] k"),
        ({"weigh": {"half_life_days": 3, "cap": 2}}, r"remove \[weigh\] cap, \[weigh\] half_life_days"),
        ({"judge": {"task": "ratings", "relevant": 4}}, r"remove \[judge\] relevant"),
        ({"judge": {"task": "ratings", "metrics": ["ndcg@10"]}}, "ndcg@10 judges lists"),
        ({"judge": {"task": "ratings", "scale": [5, 1]}}, "scale is"),
        ({"judge": {"task": "lists", "scale": [1, 5]}, "split": {"rule": "fraction"}}, "scale is for task"),
        ({"judge": {}}, "rule = 'folds' is for"),
        ({"engine": "spark"}, "runs on the local engine"),
        ({"split": {"rule": "users"}}, "rule = 'users' with these keys is for lists"),
        ({"split": {"rule": "time", "folds": 3}}, "one fold"),
        ({"split": {"rule": "folds", "folds": 3, "fold": 4}}, "no fold 4"),
    ],
)
def test_settings_without_a_meaning_are_refused(tmp_path, sections, message):
    log_of().to_csv(tmp_path / "log.csv", index=False)
    config = raw(tmp_path, "run", {"rule": "folds"}) | sections
    with pytest.raises(ConfigError, match=message):
        run(parse_config(config))
    assert not (tmp_path / "run").exists()


def test_a_log_without_ratings_is_refused(tmp_path, capsys):
    log_of().drop(columns="value").to_csv(tmp_path / "log.csv", index=False)
    words = ["run", str(tmp_path / "log.csv"), "--set", "judge.task=ratings", "--set", f"out={tmp_path / 'run'}"]
    assert run_verb(words) == 2
    assert "nothing to predict" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_can_be_repeated_from_its_config(runs):
    text = (runs / "fraction" / run_files.CONFIG).read_text(encoding="utf-8")
    import tomllib

    again = parse_config(tomllib.loads(text))
    assert again.judge.task == "ratings"
    assert again.judge.metrics == ("rmse", "mae")
