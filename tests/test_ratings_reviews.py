"""Runs with [data] reviews: what texts say of new items, what they may not say, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys import models, run_files
from recsys.cli import run_verb
from recsys.config import parse_config
from recsys.data.weigh import interactions_from_table
from recsys.errors import ConfigError, InputError
from recsys.features.review_scores import ReviewScores, scores_of_items
from recsys.features.reviews import fill_ratings, find_entries, reviews_of_train
from recsys.flow import run
from recsys.models.ratings.text_score import weighted_slope
from recsys.runfolder import RunFolder
from recsys.types import Features, IdMap

GOOD, BAD = ["superb", "moving", "funny", "clever"], ["dull", "awful", "boring", "silly"]
PLAIN = ["film", "story", "actor", "scene", "plot", "music", "ending", "camera"]


def write_world(folder, signal, seed=0, users=80, items=150):
    """Write a log of ratings, and reviews whose good and bad words depend on the quality of the item.

    Each item has three texts by raters, without a score, and five by people who are not in the log.
    With ``signal`` 0 the words are drawn at random.
    """
    rng = np.random.default_rng(seed)
    quality = rng.normal(0, 0.7, items)
    user, item = np.nonzero(rng.random((users, items)) < 0.15)
    leniency = rng.normal(0, 0.4, users)
    value = np.clip(np.round(3 + leniency[user] + quality[item] + rng.normal(0, 0.8, len(user))), 1, 5)
    log = pd.DataFrame({"user_id": user, "item_id": item, "value": value})
    raters = log.groupby("item_id").head(3)[["item_id", "user_id"]]
    others = pd.DataFrame({"item_id": np.repeat(np.arange(items), 5)})
    reviews = pd.concat([raters, others.assign(user_id=np.arange(len(others)) + 1000)], ignore_index=True)
    good = 1 / (1 + np.exp(-2.5 * signal * quality[reviews["item_id"]]))
    texts = []
    for share in good:
        words = [rng.choice(GOOD if rng.random() < share else BAD) for _ in range(3)]
        texts.append(" ".join(rng.permutation([*words, *rng.choice(PLAIN, 4)])))
    log.to_csv(folder / "log.csv", index=False)
    reviews.assign(text=texts).to_csv(folder / "reviews.csv", index=False)


def raw(folder, **sections):
    return {
        "out": str(folder / "run"),
        "data": {"events": str(folder / "log.csv"), "reviews": str(folder / "reviews.csv")},
        "judge": {"task": "ratings"},
        "split": {"rule": "items", "share": 0.4},
        "models": {"rating_als": {"rank": 2}},
    } | sections


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """Return the folder of a run on new items whose reviews tell their quality."""
    folder = tmp_path_factory.mktemp("telling")
    write_world(folder, signal=1.0)
    run(parse_config(raw(folder, models={"rating_als": {"rank": 2}, "stack": {"parts": {"rating_als": {"rank": 2}}}})))
    return folder


@pytest.mark.slow
def test_reviews_predict_new_items_better_than_the_mean_of_all(telling):
    metrics = RunFolder.open(telling / "run").read_json(run_files.METRICS)
    cell = metrics["differences"]["text_score"]["rmse"]
    assert cell["ci95"][1] < 0
    assert cell["mean"] < -0.05
    # rating_als has no opinion on a new item, so its fallback predicts, which is text_score.
    table = RunFolder.open(telling / "run").read_table(run_files.predictions("rating_als"))
    assert set(table["source"]) == {"text_score"}
    assert metrics["models"]["rating_als"] == metrics["models"]["text_score"] == metrics["models"]["stack"]


def reviewed_train(folder, cold):
    """Return the ratings of items that are not cold, the reviews for them, and the ratings of the cold items."""
    log, reviews = (pd.read_csv(folder / f"{name}.csv") for name in ("log", "reviews"))
    reviews = reviews.assign(score=np.nan, user_id=reviews["user_id"].astype("category"))
    is_cold = log["item_id"].isin(cold)
    table = log.assign(value=log["value"].astype(np.float32), timestamp=-1)
    items = IdMap.from_ids(log["item_id"], reviews["item_id"])
    train = interactions_from_table(table[~is_cold], items=items)
    test = interactions_from_table(table[is_cold], items=items)
    return train, reviews, test


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "seeds"), [(0.0, 10), (1.0, 3)])
def test_the_prior_helps_where_reviews_tell_and_does_no_harm_where_they_do_not(tmp_path, signal, seeds):
    """Mean squared error on new items, over that of the biases, in several worlds."""
    ratios = []
    for seed in range(seeds):
        write_world(tmp_path, signal, seed=seed)
        train, reviews, test = reviewed_train(tmp_path, cold=np.arange(0, 150, 3))
        known = reviews_of_train(reviews, train, test)
        features = Features(csr_array((len(train.items), 0)), (), reviews=known)
        users = train.users.rows(test.users.ids)[test.user]
        errors = [
            np.mean(
                (models.build_rating_model(kind, {}).fit(train, features).predict(users, test.item) - test.value) ** 2
            )
            for kind in ("text_score", "biases")
        ]
        ratios.append(errors[0] / errors[1])
    if signal:
        assert max(ratios) < 0.9
    else:
        assert np.mean(ratios) < 1.002
        assert np.median(ratios) == 1.0


def test_the_review_of_a_tested_pair_is_left_out_and_ratings_of_train_are_its_scores(tmp_path):
    write_world(tmp_path, 1.0)
    train, reviews, test = reviewed_train(tmp_path, cold=np.arange(0, 150, 3))
    reviews.loc[reviews["user_id"].astype(int) >= 1000, "score"] = 2.5
    known = reviews_of_train(reviews, train, test)
    # 50 of 150 items are cold, with three reviews by raters each, whose pairs are tested.
    assert len(known) == len(reviews) - 150
    in_train = {(u, i): v for u, i, v in zip(train.users.ids_of(train.user), train.item, train.value, strict=True)}
    for user, item, score in zip(known.user_ids, known.item, known.score, strict=True):
        assert score == (in_train[user, item] if user < 1000 else 2.5)
    unsigned = reviews_of_train(reviews.assign(user_id=pd.Categorical([None] * len(reviews))), train, test)
    assert len(unsigned) == len(reviews)
    assert np.isnan(unsigned.score).sum() == 450


def test_entries_are_found_by_user_and_item():
    table = pd.DataFrame({"user_id": [5, 5, 9], "item_id": [1, 3, 1], "value": np.float32([1, 2, 3]), "timestamp": -1})
    train = interactions_from_table(table)
    users, items = np.array([0, 0, 1, 1, -1, 0]), np.array([0, 1, 0, 1, 0, -1])
    np.testing.assert_array_equal(find_entries(train, users, items), [0, 1, 2, -1, -1, -1])


def test_the_slope_is_that_of_weighted_least_squares():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=30), rng.uniform(0.2, 1, 30)
    y = 0.4 + 0.7 * x + rng.normal(0, 0.3, 30)
    centre, slope, error = weighted_slope(x, y, weights)
    design = np.column_stack([np.ones(30), x])
    normal = np.linalg.inv(design.T @ (weights[:, None] * design))
    expected = normal @ design.T @ (weights * y)
    variance = weights @ (y - design @ expected) ** 2 / 28
    assert (slope, error) == pytest.approx((expected[1], np.sqrt(variance * normal[1, 1])))
    assert centre == pytest.approx(np.average(x, weights=weights))
    assert weighted_slope(np.ones(5), y[:5], weights[:5])[1:] == (0.0, 0.0)
    assert weighted_slope(x[:2], y[:2], weights[:2])[1:] == (0.0, 0.0)


def test_the_biases_are_drawn_to_the_prior_of_the_record(tmp_path):
    """With an item_shrink beyond all ratings, the bias of an item is its prior: slope times the text score."""
    write_world(tmp_path, 1.0)
    train, reviews, test = reviewed_train(tmp_path, cold=np.arange(0, 150, 3))
    features = Features(csr_array((150, 0)), (), reviews=reviews_of_train(reviews, train, test))
    model = models.build_rating_model("text_score", {"item_shrink": 1e9}).fit(train, features)
    scores = ReviewScores().fit(features.reviews.text, features.reviews.score, groups=features.reviews.item)
    of_items = scores_of_items(features.reviews.item, scores.held_out)
    slope, _ = np.polyfit(of_items["score"], model.item_bias_[of_items["item_id"]], 1)
    assert slope == pytest.approx(model.record["slope"], rel=1e-4)
    assert 0.5 < slope < model.record["estimated_slope"]
    assert all(set(words.split()) & set(GOOD) for words in model.record["raise"][:5])


def test_texts_without_a_score_become_ratings_of_train(tmp_path):
    write_world(tmp_path, 1.0)
    train, reviews, test = reviewed_train(tmp_path, cold=np.arange(0, 150, 3))
    known = reviews_of_train(reviews, train, test)
    filled, marked = fill_ratings(train, known)
    assert len(filled) == len(train) + marked.is_filled.sum() == len(train) + 750
    assert len(filled.users) == len(train.users) + 750
    entry = find_entries(filled, marked.user, marked.item)
    assert (entry >= 0).all()
    expected = ReviewScores().fit(known.text, known.score).predict(known.text)
    np.testing.assert_allclose(filled.value[entry[marked.is_filled]], expected[marked.is_filled], rtol=1e-6)
    np.testing.assert_allclose(filled.value[entry[~marked.is_filled]], known.score[~marked.is_filled])
    # Ratings that come from a text say nothing of how far texts can be trusted.
    features = [Features(csr_array((150, 0)), (), reviews=part) for part in (known, marked)]
    slopes = [
        models.build_rating_model("text_score", {"user_shrink": 1e9}).fit(part, of_part).record["estimated_slope"]
        for part, of_part in zip((train, filled), features, strict=True)
    ]
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-6)


@pytest.mark.slow
def test_a_run_fills_ratings_and_its_models_predict_pairs(telling, capsys):
    base = raw(telling)
    stack = {"stack": {"parts": {"rating_als": {"rank": 2}}}}
    data = base["data"] | {"fill_ratings": True}
    config = base | {"data": data, "out": str(telling / "filled"), "models": stack}
    metrics = run(parse_config(config))
    folder = RunFolder.open(telling / "filled")
    assert folder.read_json(run_files.SPLIT_CARD)["reviews"]["filled_ratings"] == 750
    assert metrics["differences"]["stack"]["rmse"]["ci95"][1] < 0
    judged = folder.read_table(run_files.predictions("stack"))
    judged[["user_id", "item_id"]].to_csv(telling / "pairs.csv", index=False)
    words = ["predict", str(telling / "filled"), str(telling / "pairs.csv"), "--out", str(telling / "predicted.csv")]
    assert run_verb([*words, "--model", "stack"]) == 0
    np.testing.assert_allclose(pd.read_csv(telling / "predicted.csv")["score"], judged["score"], rtol=1e-9)
    judged = RunFolder.open(telling / "run").read_table(run_files.predictions("rating_als"))
    assert run_verb([words[0], str(telling / "run"), *words[2:], "--model", "rating_als"]) == 0
    predicted = pd.read_csv(telling / "predicted.csv")
    np.testing.assert_allclose(predicted["score"], judged["score"], rtol=1e-9)
    assert set(predicted["source"]) == {"text_score"}


@pytest.mark.slow
def test_the_report_names_the_words(telling):
    report = (telling / "run" / run_files.REPORT_MARKDOWN).read_text(encoding="utf-8")
    section = report[report.index("## Reviews") : report.index("## Data")]
    assert "superb" in section
    assert "750 reviews were used" not in section
    assert "has ratings that are" in section


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"events": "log.csv"}, "models": {"text_score": {}}}, "learns from reviews: give"),
        ({"data": {"events": "log.csv", "fill_ratings": True}}, "fill_ratings needs"),
        ({"engine": "spark", "judge": {}}, "reviews is for the local engine"),
        ({"models": {"stack": {"parts": {"text_score": {}}}}}, "the part 'text_score' is there already"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        run(parse_config(raw(tmp_path) | sections))


def test_a_run_with_reviews_names_its_engine_so_that_no_size_of_the_log_chooses_another():
    config = parse_config({"data": {"events": "log.csv", "reviews": "reviews.csv"}})
    assert config.engine == "local"
    assert "engine" in config.model_fields_set
    assert "engine" not in parse_config({"data": {"events": "log.csv"}}).model_fields_set


def test_too_few_reviews_are_refused(tmp_path):
    write_world(tmp_path, 1.0)
    pd.read_csv(tmp_path / "reviews.csv").head(20).to_csv(tmp_path / "reviews.csv", index=False)
    with pytest.raises(InputError, match="at least 50 reviews with two scores are needed"):
        run(parse_config(raw(tmp_path)))


@pytest.mark.slow
def test_reviews_order_new_items_in_lists(telling):
    """Users choose good films, so the words of reviews tell which of the new items they will choose."""
    rng = np.random.default_rng(1)
    log, reviews = (pd.read_csv(telling / f"{name}.csv") for name in ("log", "reviews"))
    log[log["value"] >= 4].drop(columns="value").to_csv(telling / "likes.csv", index=False)
    reviews["score"] = reviews.merge(log, how="left", on=["user_id", "item_id"])["value"]
    reviews.to_csv(telling / "scored.csv", index=False)
    reviews.assign(text=rng.permutation(reviews["text"])).to_csv(telling / "shuffled.csv", index=False)
    ndcg = {}
    for name in ("scored", "shuffled"):
        config = raw(telling, judge={"metrics": ["ndcg@10"]}, models={"attributes": {}})
        data = {"events": str(telling / "likes.csv"), "reviews": str(telling / f"{name}.csv")}
        run(parse_config(config | {"data": data, "out": str(telling / name)}))
        per_user = RunFolder.open(telling / name).read_table(run_files.PER_USER)
        ndcg[name] = per_user[per_user["model"] == "attributes"].set_index("user_id")["ndcg@10"]
    gain = (ndcg["scored"] - ndcg["shuffled"]).dropna()
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    table = RunFolder.open(telling / "scored").read_table(run_files.ITEMS)
    quality = log.groupby("item_id")["value"].mean().reindex(table["item_id"])
    assert np.corrcoef(table["review_score"], quality)[0, 1] > 0.5
    # A cold item keeps the five texts of people outside the log; those of its raters are hidden if they like it.
    assert table["review_words"].str.split().str.len().min() >= 5 * 7
    liked_by_rater = reviews["score"] >= 4
    assert table["review_words"].str.split().str.len().sum() < 7 * (len(reviews) - 0.2 * liked_by_rater.sum())


@pytest.mark.slow
def test_bpmf_predicts_new_items_by_their_reviews(telling):
    bpmf = {"rank": 2, "burn_in": 20, "samples": 20, "use_features": True}
    config = raw(telling, out=str(telling / "bayes"), models={"bpmf": bpmf})
    metrics = run(parse_config(config))
    table = RunFolder.open(telling / "bayes").read_table(run_files.predictions("bpmf"))
    assert np.mean(table["source"] == "bpmf") > 0.95
    assert metrics["differences"]["bpmf"]["rmse"]["ci95"][1] < 0
