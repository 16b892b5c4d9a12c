"""The lists of the server are those of ``recsys recommend``, and what a request adds changes them as it says."""

import io

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb

pytestmark = pytest.mark.slow


def printed_lists(capsys, bundle, *options):
    """Return what ``recsys recommend`` prints."""
    capsys.readouterr()
    assert run_verb(["recommend", str(bundle), *map(str, options)]) == 0
    return pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"user_id": str, "item_id": str})


def served_list(answer):
    assert answer.status == 200, answer.body
    return [(item["item"], item["source"]) for item in answer.json["items"]]


def test_a_thousand_users_get_the_lists_of_the_verb(client, bundles, tmp_path, capsys):
    users = [f"u{number:04d}" for number in range(1000)]
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users))
    table = printed_lists(capsys, bundles["hybrid"], "--users", tmp_path / "users.txt", "-k", 120)
    expected = dict(iter(table.groupby("user_id")))
    history = pd.read_parquet(bundles["hybrid"] / "split" / "history.parquet")
    assert set(table.item_id) - set(history.item_id[history.value > 0]), "no cold item is in a list"
    for number, user in enumerate(users):
        # Whole rankings of some, which name the cold items, and the first ten of everybody.
        k = 120 if number % 20 == 0 else 10
        answer = client.get("/recommend", user=user, k=k)
        rows = expected[user][:k]
        assert served_list(answer) == list(zip(rows.item_id, rows.source, strict=True)), user
        scores = [item["score"] for item in answer.json["items"]]
        np.testing.assert_allclose(scores, rows.score, rtol=1e-4, atol=1e-5)


def test_a_list_says_what_it_is_and_why_it_is_short(client, bundles, capsys):
    answer = client.get("/recommend", user="u0001", k=200, model="als", details=True).json
    assert answer["shortfall"] == "small_catalogue"
    capsys.readouterr()
    assert run_verb(["recommend", str(bundles["als"]), "--user", "u0001", "-k", "200"]) == 0
    assert "short list, small_catalogue" in capsys.readouterr().err
    assert answer["user"] == "u0001"
    assert answer["model"] == "als"
    assert answer["has_history"] is True
    items = pd.read_csv(bundles["als"].parent / "data" / "items.csv").set_index("item_id")
    first = answer["items"][0]
    assert first["title"] == items.title[first["item"]]
    assert first["attributes"]["genres"] == items.genres[first["item"]]
    assert [item["rank"] for item in answer["items"]] == list(range(1, len(answer["items"]) + 1))
    assert client.get("/recommend", user="nobody").json["has_history"] is False


def test_the_version_is_that_of_the_bundle(client, bundles):
    from hashlib import sha256

    card = (bundles["als"] / "bundle.json").read_bytes()
    assert client.get("/recommend", user="x", model="als").json["version"] == sha256(card).hexdigest()[:16]


def test_a_history_is_folded_in_as_that_of_a_user(client, bundles):
    """The own history of a user, sent by a stranger, gives the list of that user."""
    history = pd.read_parquet(bundles["als"] / "split" / "history.parquet")
    counts = history.user_id.value_counts()
    for user in counts.index[:3]:
        rows = history[history.user_id == user]
        entries = [
            {"item": item, "value": value, "timestamp": time}
            for item, value, time in zip(rows.item_id, rows.value.tolist(), rows.timestamp.tolist(), strict=True)
        ]
        for model in ("als", "hybrid"):
            expected = client.get("/recommend", user=user, model=model)
            answer = client.post("/recommend", {"history": entries, "model": model})
            assert answer.json["new_events"] == len(entries)
            assert served_list(answer) == served_list(expected)


def test_what_is_seen_excluded_or_not_asked_for_is_not_listed(client):
    plain = [item for item, _ in served_list(client.get("/recommend", user="u0001", k=20))]
    answer = client.post("/recommend", {"user": "u0001", "exclude": [plain[0], "zzz"], "k": 10})
    assert [item for item, _ in served_list(answer)] == plain[1:11]
    assert answer.json["unknown_items"] == ["zzz"]
    chosen = [plain[7], plain[3], plain[12]]
    answer = client.post("/recommend", {"user": "u0001", "only": chosen, "exclude": [plain[7]]})
    assert [item for item, _ in served_list(answer)] == [plain[3], plain[12]]
    assert answer.json["shortfall"] == "filtered"
    answer = client.post("/recommend", {"user": "u0001", "only": []})
    assert answer.json["items"] == []
    listed = [item for item, _ in served_list(client.post("/recommend", {"history": plain[:5], "k": 100}))]
    assert not set(listed) & set(plain[:5])
    answer = client.post("/recommend", {"history": [plain[0], "yyy", plain[1], "zzz"], "exclude": ["xxx"]})
    assert answer.json["unknown_items"] == ["yyy", "zzz", "xxx"]
    assert answer.json["new_events"] == 2


RULES = """deny = ["f013"]
[[where]]
field = "genres"
none_of = ["drama"]
[[quota]]
field = "genres"
at_most = 2
"""


def test_rules_of_a_request_are_those_of_a_file(client, bundles, tmp_path, capsys):
    (tmp_path / "rules.toml").write_text(RULES)
    import tomllib

    for user in ("u0001", "u0002", "nobody"):
        table = printed_lists(
            capsys, bundles["hybrid"], "--user", user, "-k", 8, "--rules", tmp_path / "rules.toml", "--model", "hybrid"
        )
        for _ in range(2):  # the second time from the rules that are kept
            answer = client.post("/recommend", {"user": user, "k": 8, "rules": tomllib.loads(RULES)})
            assert served_list(answer) == list(zip(table.item_id, table.source, strict=True))
    assert answer.json["removed"]["deny"] == 1
    denied = {"deny_for": {"u0001": [table.item_id[0]]}}
    assert client.post("/recommend", {"user": "u0001", "rules": denied}).json["removed"] == {"deny_for": 1}
    assert client.post("/recommend", {"user": "u0002", "rules": denied}).json["removed"] == {"deny_for": 0}


def test_attributes_choose_the_segment_of_a_stranger(client, bundles, capsys):
    sources = set()
    for country in ("Arvenia", "Estoria"):
        table = printed_lists(capsys, bundles["als"], "--user", "me", "--with", f"country={country}")
        answer = client.post("/recommend", {"attributes": {"country": country}, "model": "als"})
        assert served_list(answer) == list(zip(table.item_id, table.source, strict=True))
        sources |= set(table.source)
    assert sources == {"segment:country"}
    refused = client.post("/recommend", {"attributes": {"contry": "x"}})
    assert refused.status == 422
    assert "Did you mean 'country'?" in refused.json["detail"]


def test_a_batch_has_the_lists_of_its_requests(client):
    requests = [{"user": "u0001", "k": 3}, {"history": ["f001"], "model": "als"}, {"user": "nobody"}]
    batch = client.post("/recommend/batch", {"requests": requests})
    alone = [client.post("/recommend", request) for request in requests]
    for answer in (batch, *alone):
        assert answer.status == 200
    strip = ({"request_id": ""},)
    assert [part | strip[0] for part in batch.json["lists"]] == [answer.json | strip[0] for answer in alone]


def test_similar_items_and_explanations_are_those_of_the_verbs(client, bundles, capsys):
    capsys.readouterr()
    assert run_verb(["similar", str(bundles["als"]), "f005", "-k", "4"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    answer = client.get("/similar", item="f005", k=4, model="als")
    assert served_list(answer) == list(zip(table.item_id, table.source, strict=True))
    user = pd.read_parquet(bundles["als"] / "split" / "history.parquet").user_id.value_counts().index[0]
    listed = client.post("/recommend", {"user": user, "model": "als", "reasons": True}).json["items"][0]
    explained = client.get("/explain", user=user, item=listed["item"], model="als").json
    assert run_verb(["explain", str(bundles["als"]), "--user", user, "--item", listed["item"]]) == 0
    out = capsys.readouterr().out
    assert explained["reason"]
    assert f"{explained['reason']}." in out
    assert listed["reason"] == explained["reason"]
    total = sum(part["value"] for part in explained["history"]) + explained["constant"]
    assert total == pytest.approx(explained["score"], rel=1e-4)
    assert explained["score"] == pytest.approx(listed["score"], rel=1e-4)


def test_onboarding_asks_the_questions_of_the_verb(client, bundles, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\nn\n\n"))
    capsys.readouterr()
    assert run_verb(["onboard", str(bundles["hybrid"]), "--questions", "3", "-k", "5"]) == 0
    printed = capsys.readouterr()
    table = pd.read_csv(io.StringIO(printed.out))
    asked = [line.split("  ")[1].split(" (y /")[0] for line in printed.err.split("\n")[0].split("): ") if "/3" in line]
    assert len(asked) == 3
    answers = []
    question = client.get("/onboard").json["question"]
    for title, reply in zip(asked, ("like", "dislike", "unknown"), strict=True):
        assert question["title"] == title
        answers.append({"item": question["item"], "answer": reply})
        answer = client.post("/onboard", {"answers": answers, "k": 5})
        question = answer.json["question"]
    assert [item["item"] for item in answer.json["items"]] == table.item_id.tolist()


def test_stored_factors_score_users_until_there_are_new_events(bundles):
    """As in a bundle of a run on Spark: the list of a user is by the stored factor, with events by the fold-in."""
    from dataclasses import replace

    from recsys.models.collaborative.als import ALS
    from recsys.saved.open_model import open_model
    from recsys.serving.requests import ListRequest
    from recsys.serving.served_model import ServedModel

    plain = ServedModel.open("als", bundles["als"])
    saved = open_model(bundles["als"])
    als = saved.model.members["als"]
    assert isinstance(als, ALS)
    rng = np.random.default_rng(2)
    stored = rng.normal(size=(len(saved.history.users), als.item_factors_.shape[1])).astype(np.float32)
    model = replace(plain, saved=replace(saved, user_factors=stored))
    history = saved.history.matrix()
    for row in (0, 5, 17):
        user = str(saved.history.users.ids_of([row])[0])
        scores = als.item_factors_ @ stored[row]
        scores[~als.known_] = -np.inf
        scores[history.indices[history.indptr[row] : history.indptr[row + 1]]] = -np.inf
        expected = [model.item_ids[item] for item in np.argsort(-scores, kind="stable")[:10]]
        assert [item["item"] for item in model.recommend(ListRequest(user=user))["items"]] == expected
        folded = [served.recommend(ListRequest(user=user, history=["f003"]))["items"] for served in (model, plain)]
        assert folded[0] == folded[1]
