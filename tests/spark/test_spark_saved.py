"""What a saved Spark run can do afterwards: lists on Spark, a bundle without Spark, updates; held against the run."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import run_job, run_on_spark

from recsys.cli import run_verb
from recsys.errors import InputError, RunFolderError
from recsys.models.combining.wrappers import with_stored_factors
from recsys.ranking import rank
from recsys.ranking.business_rules import Quota, Rules, Where
from recsys.saved.bundle import bundle_run
from recsys.saved.open_model import open_model
from recsys.saved.update import update

pytestmark = pytest.mark.spark
ROOT = Path(__file__).resolve().parents[2]
PARAMS = {"rank": 6, "iterations": 4, "alpha": 5.0, "reg": 0.03, "nu": 0.8, "beta": 0.01}


@pytest.fixture(scope="module")
def run(spark, world_files, tmp_path_factory):
    return run_on_spark(
        spark,
        tmp_path_factory.mktemp("saved") / "run",
        world_files,
        {"als": PARAMS},
        tables=("events", "items"),
        split={"rule": "time", "test": 0.2},
        recommend={"k": 5, "everyone": True, "fallback": "recent"},
        judge={"metrics": ["ndcg@5", "recall@3"], "relevant": 3.5},
    )


@pytest.fixture(scope="module")
def liked_lately(run):
    """The five items with the most likes among the newest tenth of train; equal ones in the order of ids."""
    train = pd.read_parquet(run / "split" / "train.parquet")
    likes = train[train.value > 0].sort_values("timestamp")
    since = likes.timestamp.iloc[-int(np.ceil(0.1 * len(likes)))]
    counts = likes[likes.timestamp >= since].groupby("item_id").size().rename("n").reset_index()
    return counts.sort_values(["n", "item_id"], ascending=[False, True]).item_id.head(5).tolist()


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("packed") / "bundle"
    assert run_verb(["bundle", str(run), str(place)]) == 0
    return place


def trained(run, who):
    found = pd.read_parquet(run / "model" / "als" / f"{who}_factors.parquet")
    return found[f"{who}_id"].to_numpy(), np.stack(found["features"])


def lists(table):
    return {user: rows["item_id"].tolist() for user, rows in table.sort_values(["user_id", "rank"]).groupby("user_id")}


# --- Fold-in ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(spark, run):
    from recsys.spark.saved import open_spark_run

    return open_spark_run(spark, run)


def test_folding_in_a_training_user_gives_the_trained_factor(run, packed, saved):
    from recsys.spark.training.als import fold_in

    ids, wanted = trained(run, "user")
    size = np.linalg.norm(wanted, axis=1).max()
    on_spark = fold_in(saved.history, saved.factors, saved.params).toPandas().set_index("user")["features"]
    assert np.abs(np.stack(on_spark.loc[ids]) - wanted).max() <= 1e-4 * size
    opened = open_model(packed)
    histories = opened.histories(ids)
    local = opened.model.members["als"].user_factors(histories)
    assert np.abs(local - wanted).max() <= 1e-4 * size
    assert len(ids) > 100


def test_nothing_known_that_is_liked_is_no_factor(spark, saved):
    from recsys.spark.training.als import fold_in

    rows = [("a", 0, 3.0), ("b", 0, -1.0), ("c", 1, 2.0), ("c", 0, 0.0)]
    history = spark.createDataFrame(rows, "user string, item int, value float")
    factors = np.nan_to_num(saved.factors, nan=1.0)
    factors[1] = np.nan
    found = fold_in(history, factors, saved.params).toPandas().set_index("user")["features"]
    assert found.loc["a"] is not None
    assert found.loc[["b", "c"]].isna().all()


def test_ratings_are_folded_in_by_their_own_equations(spark, saved):
    from recsys.spark.training.als import fold_in

    params = dataclasses.replace(saved.params, implicit=False)
    rows = [(1, 0, 3.0), (1, 2, -1.0), (1, 5, 2.0)]
    factors = np.nan_to_num(saved.factors, nan=1.0)
    found = fold_in(spark.createDataFrame(rows, "user int, item int, value float"), factors, params).first()
    y, r = factors[[0, 2, 5]].astype(float), np.array([3.0, -1.0, 2.0])
    penalty = params.reg * (3 + params.beta * len(factors)) ** params.nu
    wanted = np.linalg.solve(y.T @ y + penalty * np.eye(y.shape[1]), y.T @ r)
    assert np.allclose(found["features"], wanted, rtol=1e-4, atol=1e-6)


# --- Lists on Spark --------------------------------------------------------------------------------------


def test_a_saved_run_gives_the_lists_of_the_run(run, tmp_path):
    assert run_job("recommend", run, "--out", tmp_path / "lists.parquet", "-k", 5) == 0
    found, wanted = pd.read_parquet(tmp_path / "lists.parquet"), pd.read_parquet(run / "topk" / "als.parquet")
    own = lists(wanted[wanted.source == "als"])
    assert {user: items for user, items in lists(found).items() if user in own} == own
    assert run_job("recommend", run, "--out", tmp_path / "lists.parquet") == 2, "it writes over what is there"


def test_some_users_strangers_rules_and_late_events(spark, saved):
    from recsys.spark.saved import ListRequest, recommend

    ids = saved.users.toPandas()["user"]
    items, known = saved.items, ids[0]
    genre = items["genres"].str.split("|").str[0].mode()[0]
    wanted = spark.createDataFrame([(known,), ("stranger",), ("late",)], "user_id string")
    late = spark.createDataFrame(
        [("late", items.item_id[3], 5.0), ("late", "nothing", 5.0)], "user_id string, item_id string, value float"
    )
    plain = lists(recommend(saved, ListRequest(6), users=wanted, late_events=late)[0].toPandas())
    assert set(plain) == {known, "stranger", "late"}
    assert items.item_id[3] not in plain["late"]
    rules = Rules(
        deny=[plain[known][0]],
        deny_for={known: [plain[known][1]], "late": [plain["late"][0]]},
        where=[Where(field="genres", none_of=[genre])],
        quota=[Quota(field="director", at_most=1)],
    )
    table, about = recommend(saved, ListRequest(6, rules=rules), users=wanted, late_events=late)
    ruled = table.toPandas()
    assert set(ruled[ruled.user_id == "late"].source) == {"als"}
    assert set(ruled[ruled.user_id == "stranger"].source) == {"recent"}
    assert about["removed"]["deny"] == 1
    assert about["removed"]["deny_for"] == 2
    kept = ruled.merge(items, on="item_id")
    assert not kept["genres"].str.split("|").map(set).map(lambda own: genre in own).any()
    assert not kept.duplicated(["user_id", "director"]).any()
    assert not set(plain[known][:2]) & set(lists(ruled)[known])
    assert plain["late"][0] not in lists(ruled)["late"]
    none = recommend(saved, ListRequest(6, fallback=False), users=wanted)[0].toPandas()
    assert set(none.user_id) == {known}


def test_strangers_get_the_fallback_of_the_run(spark, run, saved, liked_lately):
    """The lists of the run, of its model on Spark, and of its model without Spark come from one fallback."""
    from recsys.spark.saved import ListRequest, recommend

    in_run = pd.read_parquet(run / "topk" / "als.parquet")
    assert set(in_run.source) <= {"als", "recent"}
    wanted = spark.createDataFrame([("stranger",)], "user_id string")
    on_spark = recommend(saved, ListRequest(5), users=wanted)[0].toPandas().sort_values("rank")
    assert on_spark.source.tolist() == ["recent"] * 5
    assert on_spark.item_id.tolist() == liked_lately
    opened = open_model(run, "als")
    local = opened.recommend(pd.DataFrame({"user_id": ["stranger"]}), 5)
    assert opened.history.items.ids_of(local.items[0]).tolist() == liked_lately


def test_the_judging_job_gives_the_numbers_of_the_verb(run, tmp_path, capsys):
    metrics = ("ndcg@5", "recall@3", "recall[ips=0.5]@5")
    relevant = ["--relevant", "3.5", *(word for metric in metrics for word in ("-m", metric))]
    relevant += ["--train", str(run / "split" / "train.parquet")]
    recs, truth = run / "topk" / "popular.parquet", run / "split" / "test.parquet"
    capsys.readouterr()
    assert run_job("evaluate", recs, truth, *relevant, "--per-user", tmp_path / "users") == 0
    spark = json.loads(capsys.readouterr().out)["models"]["recs"]
    for part in (recs, truth):  # the verb reads one file
        pd.read_parquet(part).to_parquet(tmp_path / part.name)
    relevant[-1] = str(tmp_path / "train.parquet")
    pd.read_parquet(run / "split" / "train.parquet").to_parquet(relevant[-1])
    assert run_verb(["evaluate", str(tmp_path / recs.name), str(tmp_path / truth.name), *relevant, "--json"]) == 0
    local = json.loads(capsys.readouterr().out)["models"]["popular"]
    for metric in metrics:
        assert spark[metric]["mean"] == pytest.approx(local[metric]["mean"], abs=1e-12)
        assert spark[metric]["users"] == local[metric]["users"]
    assert run_job("evaluate", recs, truth, "-m", "ndgc@5") == 2
    assert run_job("evaluate", tmp_path / "nothing.csv", truth) == 2
    assert "cannot read it" in capsys.readouterr().err


def test_ids_of_another_kind_are_refused_with_the_id(spark, tmp_path):
    from recsys.spark.table_files import read_table

    (tmp_path / "users.csv").write_text("user_id\n1\nx7\n")
    numbers = spark.createDataFrame([(1,)], "user long")
    with pytest.raises(InputError, match="'x7'"):
        read_table(spark, str(tmp_path / "users.csv"), columns=("user_id",), like=numbers)
    with pytest.raises(InputError, match="Did you mean 'user_id'"):
        read_table(spark, str(tmp_path / "users.csv"), columns=("userid",))


# --- The bundle ------------------------------------------------------------------------------------------


def test_stored_factors_give_the_lists_of_spark_and_fold_in_nearly(run, packed):
    opened = open_model(packed)
    spark = pd.read_parquet(run / "topk" / "als.parquet")
    wanted = lists(spark[spark.source == "als"])
    rows = opened.history.users.rows(list(wanted))
    histories = opened.history.histories().select(rows)
    stored = rank.recommend(with_stored_factors(opened.model, opened.user_factors[rows]), histories, 5)
    folded = rank.recommend(opened.model, histories, 5)
    assert [list(opened.history.items.ids_of(row)) for row in stored.items] == list(wanted.values())
    scores = opened.model.score(histories)
    for a, b, own in zip(stored.items, folded.items, scores, strict=True):
        assert np.allclose(own[a], own[b], atol=1e-4), "other items than such as score the same"


def test_a_bundle_answers_without_spark(run, packed, liked_lately):
    spark = pd.read_parquet(run / "topk" / "als.parquet")
    user = spark[spark.source == "als"].user_id.iloc[0]
    code = (
        "import sys; sys.modules['pyspark'] = None\n"
        "from recsys.cli import run_verb\n"
        f"a = run_verb(['recommend', {str(packed)!r}, '--user', {user!r}, '--user', 'stranger', '-k', '5'])\n"
        f"b = run_verb(['similar', {str(packed)!r}, {spark.item_id.iloc[0]!r}, '-k', '3'])\n"
        f"c = run_verb(['explain', {str(packed)!r}, '--user', {user!r}, '--item', {spark.item_id.iloc[0]!r}])\n"
        "sys.exit(a or b or c)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(io.StringIO("\n".join(found.stdout.splitlines()[:11])), dtype=str)
    assert table[table.user_id == user].item_id.tolist() == lists(spark)[user]
    assert set(table[table.user_id == "stranger"].source) == {"recent"}
    assert table[table.user_id == "stranger"].item_id.tolist() == liked_lately


def test_a_server_has_the_lists_of_the_verb(packed, tmp_path, capsys):
    """Every user of the run, whose factors are stored, and a stranger."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from recsys.serving.requests import ListRequest
    from recsys.serving.served_model import ServedModel

    users = [*open_model(packed).history.users.all_ids.tolist(), "stranger"]
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users))
    capsys.readouterr()
    assert run_verb(["recommend", str(packed), "--users", str(tmp_path / "users.txt"), "-k", "10"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"user_id": str, "item_id": str})
    printed = dict(iter(table.groupby("user_id")))
    assert set(table.source) == {"als", "recent"}
    served = ServedModel.open("als", packed)
    for user in users:
        listed = served.recommend(ListRequest(user=user))["items"]
        rows = printed[user]
        assert [item["item"] for item in listed] == rows.item_id.tolist(), user
        assert [item["source"] for item in listed] == rows.source.tolist(), user
        np.testing.assert_allclose([item["score"] for item in listed], rows.score, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "version", "no success"])
def test_a_damaged_bundle_is_refused(run, harm, tmp_path):
    place = tmp_path / "bundle"
    bundle_run(run, place)
    factors, about = place / "user_factors.npy", place / "bundle.json"
    if harm == "cut":
        factors.write_bytes(factors.read_bytes()[:-4])
    elif harm == "changed":
        factors.write_bytes(factors.read_bytes()[:-1] + b"\x07")
    elif harm == "missing":
        factors.unlink()
    elif harm == "version":
        about.write_text(about.read_text().replace('"format": 1', '"format": 99'))
    else:
        (place / "_SUCCESS").unlink()
    words = {"version": "format 99", "missing": "npy is missing", "no success": "no _SUCCESS"}
    with pytest.raises(RunFolderError, match=words.get(harm, "npy was cut short or changed")):
        open_model(place)


def test_a_bundle_of_no_run_and_of_no_model(run, tmp_path):
    with pytest.raises(RunFolderError, match="no such run folder"):
        bundle_run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(RunFolderError, match="it has als"):
        bundle_run(run, tmp_path / "out", model="asl")


def test_the_job_lists_a_bundle_as_the_verb_does(run, packed, tmp_path):
    users = tmp_path / "users.csv"
    pd.DataFrame({"user_id": [*trained(run, "user")[0], "stranger"]}).to_csv(users, index=False)
    assert run_job("recommend", packed, "--out", tmp_path / "lists", "-k", 5, "--users", users) == 0
    on_spark = pd.read_parquet(tmp_path / "lists").sort_values(["user_id", "rank"], ignore_index=True)
    assert run_verb(["recommend", str(packed), "--users", str(users), "-k", "5", "--out", str(tmp_path / "l.csv")]) == 0
    columns = ["user_id", "item_id", "rank", "source"]
    local = pd.read_csv(tmp_path / "l.csv", dtype={"user_id": str, "item_id": str})
    pd.testing.assert_frame_equal(on_spark[columns], local[columns], check_dtype=False)


# --- Updates ---------------------------------------------------------------------------------------------


def late_events(packed, tmp_path, users, per_user, new_item=True):
    """Write events of strangers and of one known user; every second one likes an item that nobody knew."""
    opened = open_model(packed)
    items = opened.history.items.all_ids
    known = opened.history.users.ids_of([0])[0]
    rng = np.random.default_rng(5)
    rows = [(f"new{u}", item) for u in range(users) for item in rng.choice(items, per_user, replace=False)]
    rows += [(f"new{u}", "fresh") for u in range(0, users, 2) if new_item]
    rows += [(known, item) for item in items if item not in set(items[opened.history.item[opened.history.user == 0]])][
        :1
    ]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(value=5.0, timestamp=1_700_000_000)
    table.to_csv(tmp_path / "late.csv", index=False)
    return tmp_path / "late.csv", known


def test_an_update_folds_in_users_and_items_with_their_full_history(packed, tmp_path, capsys):
    late, known = late_events(packed, tmp_path, users=4, per_user=6)
    found = update(packed, late, tmp_path / "new")
    old, new = open_model(packed), open_model(tmp_path / "new")
    row = old.history.items.rows(liked := pd.read_csv(late, dtype=str)["item_id"].unique())
    known_before = (row >= 0) & old.model.members["als"].known_[row]
    assert not known_before[liked == "fresh"]
    assert (found.users_new, found.users_changed, found.items_new) == (4, 1, (~known_before).sum())
    als = new.model.members["als"]
    row = new.history.users.rows([known, "new0"])
    assert new.history.matrix()[row[:1]].nnz == old.history.matrix()[[0]].nnz + 1
    assert np.allclose(new.user_factors[row], als.user_factors(new.history.histories()[row]), atol=1e-6)
    assert als.known_[new.history.items.rows(["fresh"])[0]]
    before = old.history.users.ids_of(np.arange(1, len(old.history.users)))
    assert np.array_equal(new.user_factors[new.history.users.rows(before)], old.user_factors[1:], equal_nan=True)
    assert run_verb(["recommend", str(tmp_path / "new"), "--user", "new1", "-k", "3"]) == 0
    assert pd.read_csv(io.StringIO(capsys.readouterr().out)).source.tolist() == ["als"] * 3


def test_the_job_updates_a_run_as_the_verb_updates_its_bundle(run, packed, tmp_path, capsys):
    late, known = late_events(packed, tmp_path, users=30, per_user=8)
    with late.open("a") as file:
        # A pair that the run has, twice; a dislike; an item that is only disliked; a time within the run.
        pair = pd.read_parquet(run / "split" / "history.parquet").iloc[0]
        file.write(f"{pair.user_id},{pair.item_id},2.5,1700000001\n{pair.user_id},{pair.item_id},1,1700000002\n")
        file.write(f"new1,{pair.item_id},-1,1700000003\n{known},disliked,-2,100\n")
    capsys.readouterr()
    assert run_job("update", run, late, tmp_path / "new", "--retrain-at", "0.3", "--json") == 0
    on_spark = json.loads(capsys.readouterr().out)
    assert run_verb(["update", str(packed), str(late), str(tmp_path / "bundle"), "--retrain-at", "0.3", "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    drifts = ("drift_before", "drift_after")
    assert [on_spark.pop(name) for name in drifts] == pytest.approx([local.pop(name) for name in drifts], rel=1e-6)
    assert on_spark == local
    assert (local["users_new"], local["events_not_newer"]) == (30, 1)
    assert local["items_new"] > 0
    new, expected = open_model(tmp_path / "new"), open_model(tmp_path / "bundle")
    pd.testing.assert_frame_equal(new.items, expected.items, check_dtype=False)
    for part in ("user", "item", "value", "time"):
        assert np.array_equal(getattr(new.history, part), getattr(expected.history, part))
    factors = [saved.model.members["als"].item_factors_ for saved in (new, expected)]
    size = np.abs(factors[1]).max()
    assert np.abs(factors[0] - factors[1]).max() <= 1e-6 * size
    assert np.array_equal(np.isnan(new.user_factors), np.isnan(expected.user_factors))
    users = np.nan_to_num(new.user_factors), np.nan_to_num(expected.user_factors)
    assert np.abs(users[0] - users[1]).max() <= 1e-6 * np.abs(users[1]).max()
    assert run_job("recommend", tmp_path / "new", "--out", tmp_path / "lists", "-k", 5) == 0
    found = lists(pd.read_parquet(tmp_path / "lists"))
    ids = expected.history.users.all_ids
    local_lists = expected.recommend(pd.DataFrame({"user_id": ids}), 5).items
    wanted = {
        user: list(expected.history.items.ids_of(row[row >= 0])) for user, row in zip(ids, local_lists, strict=True)
    }
    assert np.mean([found[user] == wanted[user] for user in ids]) >= 0.999


def test_the_job_replaces_nothing_but_another_run(run, tmp_path, capsys):
    (tmp_path / "late.csv").write_text("user_id,item_id,value,timestamp\nnew,f00,5,1700000000\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, message in ((run, "is read from this folder"), (tmp_path / "mine", "not a folder that recsys wrote")):
        assert run_job("update", run, tmp_path / "late.csv", out) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "late.csv").write_text("user_id,item_id\n,\n")
    assert run_job("update", run, tmp_path / "late.csv", tmp_path / "new") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["late.csv", "mine"]


def test_drift_grows_with_what_is_new_and_says_when_to_retrain(packed, tmp_path, capsys):
    few, _ = late_events(packed, tmp_path, users=1, per_user=3, new_item=False)
    little = update(packed, few, tmp_path / "little")
    many, _ = late_events(packed, tmp_path, users=300, per_user=20)
    much = update(packed, many, tmp_path / "much", against=packed)
    assert little.drift_before == much.drift_before > 0
    assert abs(little.drift_after - little.drift_before) < much.drift_after - much.drift_before
    assert not little.retrain
    assert much.retrain
    assert 0 < much.overlap <= 1
    assert run_verb(["update", str(packed), str(many), str(tmp_path / "much"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["retrain"] is True
