"""recommend, similar and explain over a run folder."""

import io
import re

import numpy as np
import pandas as pd
import pytest

from recsys.cli import explain, recommend, run_verb, similar
from recsys.data.synthetic import film_world, write_world
from recsys.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("lists")
    files = write_world(film_world(users=60, items=50), place / "data")
    config = place / "run.toml"
    config.write_text(
        f"out = '{place}/run'\n[data]\nevents = '{files['events']}'\nitems = '{files['items']}'\n"
        "[models.als]\nrank = 4\niterations = 2\n[models.content]\n[models.bpr]\nrank = 4\niterations = 9\n"
        "[models.blend.parts.als]\nrank = 4\niterations = 2\n[models.blend.parts.content]\n"
    )
    assert run_verb(["run", str(config)]) == 0
    return place / "run"


def asked(capsys, *arguments, code=0):
    assert run_verb([str(argument) for argument in arguments]) == code
    return capsys.readouterr()


def test_recommend_answers_known_users_and_strangers_under_rules(run, tmp_path, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet")
    known = str(history.user_id.iloc[0])
    plain = asked(capsys, "recommend", run, "--user", known, "--user", "stranger", "-k", 5, "--model", "als")
    table = pd.read_csv(io.StringIO(plain.out), dtype=str)
    assert table.groupby("user_id").size().to_dict() == {known: 5, "stranger": 5}
    assert set(table[table.user_id == "stranger"].source) == {"popular"}
    assert not set(table[table.user_id == known].item_id) & set(history[history.user_id == known].item_id)
    assert "title" in table
    rules = tmp_path / "rules.toml"
    rules.write_text(f'deny = ["{table.item_id[0]}", "nothing"]\n')
    ruled = asked(capsys, "recommend", run, "--user", known, "-k", 4, "--model", "als", "--rules", rules)
    kept = pd.read_csv(io.StringIO(ruled.out), dtype=str).item_id.tolist()
    assert kept == [i for i in table[table.user_id == known].item_id if i != table.item_id[0]][:4]
    assert "nothing" in ruled.err


def test_each_row_of_a_list_can_have_the_reason_that_explain_gives(run, tmp_path, capsys):
    users = pd.read_parquet(run / "split" / "history.parquet").user_id.drop_duplicates().astype(str).head(2).tolist()
    words = ["recommend", run, "--user", users[1], "--user", users[0], "-k", 3, "--model", "content", "--reasons"]
    for _ in range(2):  # its own table is replaced
        asked(capsys, *words, "--out", tmp_path / "lists.csv")
    table = pd.read_csv(tmp_path / "lists.csv", dtype=str, keep_default_na=False)
    assert len(table) == 6
    assert table["reason"].str.startswith("because").all()
    for row in table.itertuples():
        first = asked(capsys, "explain", run, "--user", row.user_id, "--item", row.item_id, "--model", "content").out
        assert first.splitlines()[0] == f"{row.title}: {row.reason}."
    test = run / "split" / "test.parquet"
    asked(capsys, "evaluate", tmp_path / "lists.csv", test, "-m", "ndcg@3")


def test_lists_with_titles_are_judged_and_compared(run, tmp_path, capsys):
    users = pd.read_parquet(run / "split" / "test.parquet").user_id.drop_duplicates()
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users))
    files = [tmp_path / f"{model}.csv" for model in ("als", "content")]
    for file in files:
        asked(capsys, "recommend", run, "--users", tmp_path / "users.txt", "--model", file.stem, "--out", file)
        assert "title" in file.read_text().splitlines()[0]
    test = pd.read_parquet(run / "split" / "test.parquet")
    test[["user_id", "item_id"]].drop_duplicates().to_csv(tmp_path / "truth.csv", index=False)
    assert "ndcg@10" in asked(capsys, "evaluate", files[0], tmp_path / "truth.csv").out
    assert "pick" in asked(capsys, "compare", *files, "--truth", tmp_path / "truth.csv").out
    assert "rbo" in asked(capsys, "agree", *files).out


def test_a_user_who_is_named_twice_keeps_the_attributes_of_the_file(tmp_path):
    (tmp_path / "users.csv").write_text("user_id,country\nb,DE\na,FR\nb,IT\n")
    table = recommend.read_user_table(["c", "b"], tmp_path / "users.csv")
    assert table.fillna("").values.tolist() == [["a", "FR"], ["b", "DE"], ["c", ""]]


@pytest.mark.parametrize("header", ["user_id;Name", "Name;user_id", "user_id\tName"])
def test_a_file_of_users_with_another_delimiter_is_refused(tmp_path, header):
    (tmp_path / "users.csv").write_text(f"{header}\na;b\n")
    with pytest.raises(InputError, match="is not separated by commas"):
        recommend.read_user_table([], tmp_path / "users.csv")


def listed(capsys, run, users, *options):
    """Return user -> items of lists of ten by ALS."""
    ask = [part for user in users for part in ("--user", user)]
    table = pd.read_csv(io.StringIO(asked(capsys, "recommend", run, *ask, "--model", "als", *options).out), dtype=str)
    return table.groupby("user_id").item_id.agg(list).to_dict()


def test_lists_with_more_variety(run, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet").astype({"user_id": str})
    genres = pd.read_parquet(run / "split" / "items.parquet").set_index("item_id").genres.str.split("|").map(set)
    users = history.user_id.value_counts().index[:20].tolist()
    plain = listed(capsys, run, users)
    for option, nothing in (("--diverse", 1), ("--calibrate", 1), ("--explore", 1e-9)):
        assert listed(capsys, run, users, option, nothing) == plain

    def alike(lists):
        pairs = [(genres[a], genres[b]) for items in lists.values() for a in items for b in items if a < b]
        return np.mean([len(a & b) / len(a | b) for a, b in pairs])

    assert alike(listed(capsys, run, users, "--diverse", 0.2)) < 0.9 * alike(plain)

    def shares(items):
        votes = pd.Series({g: 0.0 for item in genres.index for g in genres[item]})
        for item in items:
            votes[list(genres[item])] += 1 / len(genres[item])
        return votes / votes.sum()

    def distance(lists):
        liked = history[history.value > 0].groupby("user_id").item_id.agg(list)
        return np.mean([(shares(lists[user]) - shares(liked[user])).abs().sum() for user in users])

    assert distance(listed(capsys, run, users, "--calibrate", 0.2)) < 0.8 * distance(plain)
    drawn = listed(capsys, run, users, "--explore", 1)
    assert drawn != plain
    assert listed(capsys, run, users[3:4], "--explore", 1) == {users[3]: drawn[users[3]]}
    assert listed(capsys, run, users, "--explore", 1, "--seed", 1) != drawn
    assert all(len(set(items)) == 10 for items in drawn.values())


def test_variety_that_cannot_be_had_is_said(run, capsys):
    for options in (["--diverse", 0.5, "--explore", 1], ["--by", "genres"], ["--explore", 0]):
        assert asked(capsys, "recommend", run, "--user", "x", *options, code=2).err
    assert "'genres'" in asked(capsys, "recommend", run, "--user", "x", "--calibrate", 1, "--by", "genre", code=2).err


def test_every_list_of_a_run_keeps_its_rules(run, tmp_path, capsys):
    plain = pd.read_parquet(run / "topk" / "popular.parquet")
    common = plain.item_id.value_counts().index[0]
    (tmp_path / "rules.toml").write_text(f"deny = ['{common}', '<unheard-of>']\n")
    settings = [f"out={tmp_path}/run", f"recommend.rules={tmp_path}/rules.toml"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    said = asked(capsys, "run", run.parent / "run.toml", *arguments).err.splitlines()
    assert {"rules removed: 1 item by deny", "rule deny: unknown ids <unheard-of>"} <= set(said)
    for name in ("popular", "als", "content"):
        ruled = pd.read_parquet(tmp_path / "run" / "topk" / f"{name}.parquet")
        assert len(ruled) == len(pd.read_parquet(run / "topk" / f"{name}.parquet"))
        assert common not in set(ruled.item_id)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "deny: unknown ids (1): &lt;unheard-of&gt;." in page
    assert re.search(r"deny</t[dh]>\s*<td[^>]*>1<", page)
    assert "What each rule does by itself" not in (run / "report.html").read_text(encoding="utf-8")


def test_similar_leaves_the_item_out(run, capsys):
    item = str(pd.read_parquet(run / "split" / "items.parquet").item_id[3])
    table = pd.read_csv(io.StringIO(asked(capsys, "similar", run, item, "-k", 3).out), dtype=str)
    assert len(table) == 3
    assert item not in set(table.item_id)


@pytest.mark.parametrize("model", ["als", "content", "bpr"])
def test_explain_sums_to_the_score(run, capsys, model):
    history = pd.read_parquet(run / "split" / "history.parquet")
    liked = history[history.value > 0]
    user, item = str(liked.user_id.iloc[0]), str(liked.item_id.iloc[-1])
    lines = asked(capsys, "explain", run, "--user", user, "--item", item, "-k", 3, "--model", model).out.splitlines()
    score = next(float(found[1]) for line in lines if (found := re.search(r": score (\S+)", line)))
    parts = [float(line.split()[0]) for line in lines[1:] if "history item" in line or "same for everyone" in line]
    assert sum(parts) == pytest.approx(score, abs=1e-4)
    assert sum("same for everyone" in line for line in lines) == (model == "bpr")


def test_an_explanation_begins_with_a_sentence_of_titles(run, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet")
    titles = pd.read_parquet(run / "split" / "items.parquet").set_index("item_id").title
    topk = pd.read_parquet(run / "topk" / "als.parquet").query("source == 'als'")
    user, item = topk[["user_id", "item_id"]].iloc[0]
    shown = asked(capsys, "explain", run, "--user", user, "--item", titles[item], "--model", "als").out
    first, second = shown.splitlines()[:2]
    assert first.startswith(f"{titles[item]}: because you liked ")
    named = [title for title in titles[history[history.user_id == user].item_id] if title in first]
    assert 1 <= len(named) <= 3
    assert second.startswith("als: score")
    strongest = next(line for line in shown.splitlines() if "history item" in line)
    assert re.search(r"history item f\d+, (.*)$", strongest)[1] in first


def test_an_explanation_of_what_the_user_has_says_so_first(run, capsys):
    history = pd.read_parquet(run / "split" / "history.parquet")
    user, owned = history[history.value > 0][["user_id", "item_id"]].iloc[0]
    shown = asked(capsys, "explain", run, "--user", user, "--item", owned, "--model", "als").out
    assert re.fullmatch(rf"user {user} has {owned}, .* already", shown.splitlines()[0])
    other = next(item for item in history.item_id if item not in set(history[history.user_id == user].item_id))
    assert "already" not in asked(capsys, "explain", run, "--user", user, "--item", other, "--model", "als").out


def test_a_number_is_explained_by_the_number_of_the_item(run, capsys):
    items = pd.read_parquet(run / "split" / "items.parquet").set_index("item_id")
    history = pd.read_parquet(run / "split" / "history.parquet")
    user = str(history[history.value > 0].user_id.value_counts().index[0])
    for item in items.index[:5]:
        said = asked(capsys, "explain", run, "--user", user, "--item", item, "-k", 99, "--model", "content").out
        assert set(re.findall(r"feature year=(\d+)", said)) <= {str(items.year[item])}


def test_unknown_ids_are_answered_with_the_nearest(run, capsys):
    items = pd.read_parquet(run / "split" / "items.parquet")
    item, title = str(items.item_id[3]), items.title[3]
    by_id = asked(capsys, "similar", run, item, "-k", 3, "--model", "content").out
    said = asked(capsys, "similar", run, title.upper(), "-k", 3, "--model", "content")
    assert said.out == by_id
    assert f"item {item}: {title}" in said.err
    assert f"Nearest: {item!r} ({title})" in asked(capsys, "similar", run, f" {item.upper()}", code=2).err
    assert item in asked(capsys, "similar", run, title[:-1], code=2).err
    user = str(pd.read_parquet(run / "split" / "history.parquet").user_id[0])
    assert f"Did you mean {user!r}" in asked(capsys, "recommend", run, "--user", user.upper()).err
    said = asked(capsys, "recommend", run, "--user", "stranger").err
    assert "user stranger: no history in this run" in said
    assert "Did you mean" not in said
    assert "no history" not in asked(capsys, "recommend", run, "--user", user).err


def test_nothing_is_similar_to_an_item_that_nobody_likes(run, tmp_path, capsys):
    place = newer(run, tmp_path, "f99,Nobodys film,comedy,,,,a family", "f98,,comedy|drama,,,,a family")
    capsys.readouterr()
    said = asked(capsys, "similar", place, "f99", "--model", "als", code=2)
    assert "als knows nothing that goes with 'f99': nobody in train liked it" in said.err
    assert said.out == ""
    assert len(asked(capsys, "similar", place, "f99", "-k", 3, "--model", "content").out.splitlines()) == 4


def explained(capsys, place, model, item, user=None):
    user = user or str(pd.read_parquet(place / "split" / "history.parquet").user_id.iloc[0])
    capsys.readouterr()  # what making the run printed
    return asked(capsys, "explain", place, "--user", user, "--item", item, "--model", model).out


def test_models_without_the_user_in_them_say_so(run, capsys):
    item = str(pd.read_parquet(run / "split" / "history.parquet").item_id.iloc[0])
    said = {model: explained(capsys, run, model, item) for model in ("random", "popular", "als")}
    at_random = r"user u00 has f01, .* already\nrandom: score 0\.\d+\nThe score is drawn at random\.\n"
    assert re.fullmatch(at_random, said["random"])
    assert "\nThe score is the same for everyone.\n" in said["popular"]
    assert "The score is" not in said["als"]


def test_what_a_model_has_no_opinion_on_is_said_to_be_so(run, tmp_path, capsys):
    """An item that nobody chose and that says nothing of itself, and a user without a history."""
    place = newer(run, tmp_path, "f99,,,,,,")
    for model in ("als", "content", "bpr", "blend"):
        said = explained(capsys, place, model, "f99")
        assert said.startswith(f"{model}: no opinion, because the item has nothing")
        assert "nan" not in said
    # The fallback scores a user without a history.
    assert "is the same for everyone" in explained(capsys, place, "als", "f99", user="stranger")
    alone = newer(run, tmp_path / "alone", "f99,,,,,,", fallback="none")
    said = explained(capsys, alone, "als", "f00", user="stranger")
    assert said.startswith("als: no opinion, because the user's history has nothing")


def test_a_new_item_is_explained_by_its_score_or_by_what_orders_it(run, tmp_path, capsys):
    place = newer(run, tmp_path, "f98,,comedy,,,,a family", "f99,,crime|drama,,,,a letter")
    plain = _parts(explained(capsys, place, "blend", "f98"))
    assert plain["sum"] == pytest.approx(plain["score"], abs=1e-4)
    assert "orders" not in plain
    weights = next((place / "model").rglob("cold_weights_*"))
    np.save(weights, np.array([0.0, 1.0]))
    for item in ("f98", "f99"):
        told = _parts(explained(capsys, place, "blend", item))
        assert told["orders"] == pytest.approx(told["sum"], abs=1e-4)
        assert abs(told["sum"] - told["score"]) > 0.01


def _parts(said):
    numbers = {"score": float(re.search(r"score (\S+)", said)[1])}
    numbers["sum"] = sum(float(line.split()[0]) for line in said.splitlines() if "  part " in line)
    order = re.search(r"The parts sum to (\S+), which orders the new items", said)
    return numbers | ({"orders": float(order[1])} if order else {})


def newer(run, place, *rows, fallback="popular"):
    """The run once more, with further rows in its table of items."""
    place.mkdir(exist_ok=True)
    items = next((run.parent / "data").glob("items*")).read_text()
    (place / "items.csv").write_text(items + "".join(f"{row}\n" for row in rows))
    settings = [f"out={place}/run", f"data.items={place}/items.csv", f"recommend.fallback={fallback}"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert run_verb(["run", str(run.parent / "run.toml"), *arguments]) == 0
    return place / "run"


def test_a_table_goes_to_a_file_or_it_is_said_why_not(run, tmp_path, capsys):
    shown = asked(capsys, "recommend", run, "--user", "stranger").out
    assert asked(capsys, "recommend", run, "--user", "stranger", "--out", tmp_path / "lists.csv").out == ""
    assert (tmp_path / "lists.csv").read_text(encoding="utf-8") == shown
    for place in (tmp_path / "none" / "lists.csv", tmp_path):
        err = asked(capsys, "recommend", run, "--user", "stranger", "--out", place, code=2).err
        assert f"error: {place}: " in err


@pytest.mark.parametrize("verb", [recommend.recommend, similar.similar, explain.explain])
def test_what_examples_ask_for_is_in_the_world_of_the_demo(verb):
    world = film_world(events=1000)  # of as many users and items
    known = {*world.users["user_id"], *world.users["country"], *world.items["item_id"]}
    examples = [line.split("recsys ")[1] for line in verb.__doc__.splitlines() if ": recsys " in line]
    words = re.findall(r"(?:--user |--item |country=|runs/demo )(\w+)", " ".join(examples))
    assert words
    assert set(words) - {"me"} <= known


def test_strange_items_models_and_nobody_are_refused(run, capsys):
    assert "no item" in asked(capsys, "similar", run, "nothing", code=2).err
    assert "no model" in asked(capsys, "similar", run, "nothing", "--model", "asl", code=2).err
    assert "nobody" in asked(capsys, "recommend", run, code=2).err
