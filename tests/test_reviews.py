"""Scores from the text of reviews: closed forms, a world with known words, the verb, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.cli import run_verb
from recsys.errors import InputError
from recsys.features.review_scores import ReviewScores, scores_of_items

GOOD, BAD, PLAIN = (
    ["superb", "moving", "funny"],
    ["dull", "awful", "boring"],
    ["film", "story", "actor", "scene", "plot"],
)


def world(n=400, seed=0):
    """Return texts and scores of 1 to 5 stars: 3, plus the good words and minus the bad ones."""
    rng = np.random.default_rng(seed)
    texts, scores = [], []
    for _ in range(n):
        good, bad = rng.integers(0, 3, 2)
        words = [*rng.choice(GOOD, good), *rng.choice(BAD, bad), *rng.choice(PLAIN, 4)]
        texts.append(" ".join(rng.permutation(words)))
        scores.append(np.clip(np.round(3 + good - bad + rng.normal(0, 0.4)), 1, 5))
    return texts, np.array(scores)


def test_predictions_are_the_closed_form_of_ridge_regression():
    texts, scores = world()
    model = ReviewScores().fit(texts, scores)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    x = vectorizer.fit_transform(texts).toarray()
    centred = x - x.mean(axis=0)
    strength = model.record["strength"]
    weights = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (scores - scores.mean()))
    new, _ = world(30, seed=1)
    expected = scores.mean() + (vectorizer.transform(new).toarray() - x.mean(axis=0)) @ weights
    np.testing.assert_allclose(model.predict(new), np.clip(expected, 1, 5), atol=2e-3)
    parts = model.explain(new[0])
    assert model.constant + sum(parts.values()) == pytest.approx(expected[0], abs=2e-3)
    assert list(parts.values()) == sorted(parts.values(), key=lambda value: -abs(value))


def test_it_finds_the_words_and_its_error_is_that_of_new_reviews():
    texts, scores = world(600)
    model = ReviewScores().fit(texts, scores)
    raising, lowering = model.strongest_words(3)
    assert set(raising) == set(GOOD)
    assert set(lowering) == set(BAD)
    new, new_scores = world(600, seed=2)
    error = np.sqrt(np.mean((model.predict(new) - new_scores) ** 2))
    assert model.record["rmse"] == pytest.approx(error, rel=0.1)
    assert model.record["rmse"] < 0.7 < model.record["rmse_of_mean"]


def test_cut_offs_give_whole_scores_with_the_given_shares():
    texts, scores = world(600)
    model = ReviewScores().fit(texts, scores)
    whole = model.whole_scores(model.predict(texts))
    shares = [np.mean(whole == level) for level in (1, 2, 3, 4, 5)]
    np.testing.assert_allclose(shares, [np.mean(scores == level) for level in (1, 2, 3, 4, 5)], atol=0.08)
    assert np.mean(whole == scores) > 0.55
    not_whole = ReviewScores().fit(texts, scores + 0.5)
    np.testing.assert_array_equal(not_whole.whole_scores(np.array([1.3])), [1.3])


def test_a_text_without_known_words_has_no_score():
    texts, scores = world()
    model = ReviewScores().fit(texts, scores)
    predicted = model.predict(["", "zyzzyva", "superb film"])
    assert np.isnan(predicted[:2]).all()
    assert predicted[2] > 3.3
    assert np.isnan(model.whole_scores(predicted)[0])


def test_items_are_drawn_to_the_mean_as_far_as_that_lowers_the_error():
    """2,000 items with 1 to 4 reviews: the error is as stated, and below that of the plain means."""
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 0.5, 2000)
    item = np.repeat(np.arange(2000), rng.integers(1, 5, 2000))
    score = truth[item] + rng.normal(0, 1.0, len(item))
    table = scores_of_items(item, score)
    error = table["score"] - truth
    plain = pd.Series(score).groupby(item).mean() - truth
    assert np.mean(error**2) < 0.6 * np.mean(plain**2)
    assert np.mean(error**2) == pytest.approx(np.mean(table["error"] ** 2), rel=0.1)
    assert table["reviews"].tolist() == np.bincount(item).tolist()
    alike = scores_of_items(np.repeat(np.arange(50), 3), rng.normal(size=150) * 1e-9 + 2)
    np.testing.assert_allclose(alike["score"], 2, atol=1e-8)


def test_items_with_as_many_reviews_are_drawn_by_one_minus_one_over_f():
    """With equal numbers of reviews the weight is 1 - 1 / F, of the F test of analysis of variance."""
    rng = np.random.default_rng(3)
    groups = np.array([[0.0], [1.0]]) + rng.normal(0, 0.5, (2, 6))
    table = scores_of_items(np.repeat(["b", "a"], 6), groups.ravel())
    mean = groups.mean(axis=1)[::-1]
    within = groups.var(axis=1, ddof=1).mean()
    weight = 1 - 1 / f_oneway(*groups).statistic
    assert 0.5 < weight < 1
    assert table["item_id"].tolist() == ["a", "b"]
    np.testing.assert_allclose(table["score"], mean.mean() + weight * (mean - mean.mean()))
    # The variance of the mean of all scores is that of the means, within / (6 (1 - weight)), over two.
    np.testing.assert_allclose(table["error"] ** 2, within / 6 * weight + (1 - weight) * within / 12)


def test_errors_of_items_are_as_stated_if_one_of_them_has_most_reviews():
    """Over 200 worlds with variances 1 within and between items, the error² with n reviews is 1 / (1 + n)."""
    rng = np.random.default_rng(4)
    item = np.repeat(np.arange(40), [100, *[1, 2, 3] * 13])
    actual, stated = [], []
    for _ in range(200):
        truth = rng.normal(3, 1, 40)
        table = scores_of_items(item, truth[item] + rng.normal(0, 1, len(item)))
        actual.append((table["score"] - truth) ** 2)
        stated.append(table["error"] ** 2)
    np.testing.assert_allclose(np.mean(stated, axis=0), 1 / (1 + np.bincount(item)), rtol=0.1)
    # The estimated variances add up to a tenth to the actual errors, which the stated ones leave out.
    assert np.mean(actual) == pytest.approx(np.mean(stated), rel=0.2)


def test_what_the_reviews_of_items_cannot_tell_is_nan():
    for score in ([1.0, 2.0, 5.0], [4.0, 4.0, 5.0]):
        table = scores_of_items(np.array([7, 7, 9] if score[0] == score[1] else [7, 8, 9]), np.array(score))
        np.testing.assert_array_equal(table["score"], np.unique(score))
        assert table["error"].isna().all()
    one = scores_of_items(np.array([7, 7, 7]), np.array([1.0, 2.0, 3.0]))
    assert one["score"].tolist() == [2.0]
    np.testing.assert_allclose(one["error"], 1 / np.sqrt(3))


def table_of(path, n=300, without=100):
    texts, scores = world(n)
    score = [str(int(value)) if row >= without else "" for row, value in enumerate(scores)]
    frame = pd.DataFrame({"item_id": np.arange(n) % 20, "text": texts, "score": score, "user_id": np.arange(n)})
    frame.loc[0, "text"] = "zyzzyva"
    frame.to_csv(path, index=False)
    return scores


@pytest.mark.slow
def test_the_verb_fills_in_scores_and_its_log_can_be_run(tmp_path, capsys):
    scores = table_of(tmp_path / "reviews.csv")
    out, items = tmp_path / "ratings.csv", tmp_path / "items.csv"
    words = ["reviews", str(tmp_path / "reviews.csv"), "--out", str(out), "--items", str(items)]
    assert run_verb(words) == 0
    printed = capsys.readouterr().out
    assert "200 reviews with a score. On held-out reviews: rmse 0." in printed
    assert "99 reviews without a score got one; 1 have no known word" in " ".join(printed.split())
    filled = pd.read_csv(out)
    assert len(filled) == 299
    given = filled["source"] == "given"
    np.testing.assert_array_equal(filled["value"][given], scores[100:])
    assert set(filled["value"]) <= {1, 2, 3, 4, 5}
    assert np.mean(np.abs(filled["value"][~given].to_numpy() - scores[1:100]) <= 1) > 0.9
    assert pd.read_csv(items)["reviews"].sum() == 299
    assert run_verb([*words, "--json"]) == 0  # its own files are replaced
    assert json.loads(capsys.readouterr().out)["predicted"] == 99
    run = ["run", str(out), "--set", "judge.task=ratings", "--set", "models.rating_als.rank=2"]
    assert run_verb([*run, "--set", f"out={tmp_path / 'run'}"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_reviews_without_users_get_the_same_scores(tmp_path, ending):
    table_of(tmp_path / "signed.csv")
    unsigned = pd.read_csv(tmp_path / "signed.csv").drop(columns="user_id")
    path = tmp_path / f"unsigned.{ending}"
    unsigned.to_csv(path, index=False) if ending == "csv" else unsigned.to_parquet(path)
    for name in ("signed.csv", path.name):
        assert run_verb(["reviews", str(tmp_path / name), "--out", str(tmp_path / f"{name}.out")]) == 0
    signed = pd.read_csv(tmp_path / "signed.csv.out")
    pd.testing.assert_frame_equal(pd.read_csv(f"{path}.out"), signed.drop(columns="user_id"))


def test_unmapped_reviews_are_answered_with_an_option_that_the_verb_has(tmp_path, capsys):
    path = tmp_path / "reviews.csv"
    path.write_text("movieId,text,score\n1,good,5\n")
    assert run_verb(["reviews", str(path)]) == 2
    message = capsys.readouterr().err
    assert 'under [data.columns], for example item_id = "movieId", or with --column item_id=movieId.' in message
    assert "user_id" not in message
    path.write_text("item_id,body,score\n1,good,5\n")
    assert run_verb(["reviews", str(path)]) == 2
    assert capsys.readouterr().err.endswith("Columns: item_id, score, body. Rename the columns of the table.\n")
    path.write_text("item_id;text;score\n1;good;5\n")
    assert run_verb(["reviews", str(path)]) == 2
    assert "It looks separated by ';': set the delimiter" in capsys.readouterr().err


@pytest.mark.parametrize(("distinct", "warned"), [(20, True), (30, False)])
def test_few_different_texts_are_warned_of(tmp_path, capsys, distinct, warned):
    table_of(tmp_path / "reviews.csv", without=0)
    frame = pd.read_csv(tmp_path / "reviews.csv", dtype=str)
    few = [f"{frame['text'][row % distinct]} x{row % distinct}" for row in range(len(frame))]
    frame.assign(text=few).to_csv(tmp_path / "reviews.csv", index=False)
    assert run_verb(["reviews", str(tmp_path / "reviews.csv")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"300 reviews, {distinct} different texts\n")
    assert ("most texts are repeated" in said.err) is warned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="text"), "needs item_id, text, score"),
        (lambda frame: frame.assign(score="many"), "in 300 rows the score is not a number, first in data row 1"),
        (lambda frame: frame.assign(item_id=""), "item_id is empty"),
        (lambda frame: frame.head(120), "20 reviews with"),
        (lambda frame: frame.assign(score="3"), "1 different scores"),
    ],
)
def test_bad_tables_are_refused(tmp_path, capsys, change, message):
    table_of(tmp_path / "reviews.csv")
    change(pd.read_csv(tmp_path / "reviews.csv", dtype=str, keep_default_na=False)).to_csv(
        tmp_path / "reviews.csv", index=False
    )
    assert run_verb(["reviews", str(tmp_path / "reviews.csv"), "--out", str(tmp_path / "out.csv")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.csv").exists()


def test_plain_means_of_items_are_announced(tmp_path, capsys):
    table_of(tmp_path / "reviews.csv", n=120, without=0)
    frame = pd.read_csv(tmp_path / "reviews.csv").assign(item_id=range(100, 220))
    frame.to_csv(tmp_path / "reviews.csv", index=False)
    words = ["reviews", str(tmp_path / "reviews.csv"), "--items", str(tmp_path / "items.csv")]
    assert run_verb(words) == 0
    assert "no item has two different scores" in " ".join(capsys.readouterr().out.split())
    items = pd.read_csv(tmp_path / "items.csv")
    np.testing.assert_array_equal(items["score"], frame["score"])
    assert items["error"].isna().all()


def test_a_file_of_the_user_is_not_replaced(tmp_path, capsys):
    table_of(tmp_path / "reviews.csv")
    (tmp_path / "mine.csv").write_text("my notes\n")
    assert run_verb(["reviews", str(tmp_path / "reviews.csv"), "--out", str(tmp_path / "mine.csv")]) == 2
    assert (tmp_path / "mine.csv").read_text() == "my notes\n"


def test_no_reviews_at_all():
    with pytest.raises(InputError, match="0 reviews"):
        ReviewScores().fit([], np.array([]))


def test_held_out_scores_are_learned_from_other_items_alone():
    """Each item has a word of its own that says its score: words of other items do not know it."""
    rng = np.random.default_rng(5)
    item = np.repeat(np.arange(60), 6)
    quality = rng.integers(1, 6, 60)
    words = [*GOOD, *BAD, *PLAIN]
    texts = [f"name{number} {' '.join(rng.choice(words, 5))}" for number in item]
    scores = quality[item].astype(float)
    scores[::6] = np.nan
    by_text = ReviewScores().fit(texts, scores)
    by_item = ReviewScores().fit(texts, scores, groups=item)
    has_score = np.isfinite(scores)
    assert by_text.record["pearson"] > 0.8
    assert by_item.record["pearson"] < 0.3
    assert np.corrcoef(by_text.held_out[~has_score], quality[item][~has_score])[0, 1] > 0.8
    assert np.corrcoef(by_item.held_out[~has_score], quality[item][~has_score])[0, 1] < 0.4
    assert by_item.record["reviews"] == 300
    error = by_item.held_out[has_score] - scores[has_score]
    assert by_item.record["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    with pytest.raises(InputError, match="too few items"):
        ReviewScores().fit(texts, scores, groups=np.zeros(len(texts), dtype=int))
