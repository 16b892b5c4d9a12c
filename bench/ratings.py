"""Predicted ratings of ml-latest-small, five folds by hash, beside Surprise at its defaults.

    python bench/ratings.py --surprise PYTHON [--keep FOLDER]   writes its section of bench/RESULTS.md
    python bench/ratings.py --surprise PYTHON --world USERS ITEMS EVENTS
                                                                the same on a made-up film world; its own section
    python bench/ratings.py --lists                             RMSE beside NDCG of the same models; its own section
    python bench/ratings.py --snippets                          scores from text; its own section

PYTHON is that of an environment with scikit-surprise, which needs NumPy 1; it runs bench/surprise_ratings.py, one model
after another, on the same folds. FOLDER keeps its predictions and seconds, so that they are not computed again. Seconds
are CPU seconds of fitting five times and predicting every rating once, without the compilation of kernels.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results import table, write_section

from recsys.data.hashing import id_hash
from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import Folds, fold_of_pairs
from recsys.data.synthetic import Recipe, generate_world
from recsys.data.weigh import WeightSettings
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.rating_summary import (
    error_and_influence,
    error_cell,
    paired_difference,
    spread_coverage,
)
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.features.review_scores import ReviewScores
from recsys.models import build, build_rating_model
from recsys.models.combining.wrappers import FixedScores
from recsys.ranking.rank import recommend
from recsys.types import IdMap, Interactions

DATA = Path(os.environ.get("RECSYS_DATA", "data")) / "ml-latest-small"
SURPRISE = ("BaselineOnly", "KNNBaseline", "SVD", "SVDpp")
MODELS = ("mean", "biases", "rating_als", "rating_knn", "bpmf", "stack")
SIMULATIONS = 10_000


@dataclass
class Log:
    """The ratings: rows of users and items, values, and the fold of each."""

    users: IdMap
    items: IdMap
    user: np.ndarray
    item: np.ndarray
    value: np.ndarray
    fold: np.ndarray

    def train(self, number: int) -> Interactions:
        """Return the ratings of all folds but one."""
        rows = np.flatnonzero(self.fold != number)
        rows = rows[np.lexsort((self.item[rows], self.user[rows]))]
        times = np.full(len(rows), -1)
        return Interactions(self.users, self.items, self.user[rows], self.item[rows], self.value[rows], times)


def read_log(source: Path) -> Log:
    """Return the ratings of a log, the last one of each pair, with their folds."""
    events = read_tables(source).events.drop_duplicates(["user_id", "item_id"], keep="last")
    users, items = IdMap.from_ids(events["user_id"]), IdMap.from_ids(events["item_id"])
    return Log(
        users,
        items,
        users.rows_int32(events["user_id"]),
        items.rows_int32(events["item_id"]),
        events["value"].to_numpy(dtype=np.float32),
        fold_of_pairs(events["user_id"], events["item_id"], Folds()),
    )


def predict(log: Log, kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the prediction of every rating from the other folds, its spread, and the seconds."""
    predicted, spread = np.empty(len(log.value)), np.full(len(log.value), np.nan)
    seconds = 0.0
    for number in np.unique(log.fold):
        train, rows = log.train(number), np.flatnonzero(log.fold == number)
        users, items = log.user[rows], log.item[rows]
        start = time.process_time()
        model = build_rating_model(kind, {}).fit(train)
        of_fold = model.predict(users, items)
        missing = np.isnan(of_fold)
        if missing.any():
            of_fold[missing] = build_rating_model("biases", {}).fit(train).predict(users, items)[missing]
        seconds += time.process_time() - start
        predicted[rows] = of_fold
        spread[rows] = model.spread(users, items)
    return np.clip(predicted, log.value.min(), log.value.max()), spread, seconds


def predict_with_surprise(log: Log, name: str, python: str, keep: Path) -> tuple[np.ndarray, float]:
    """Return the predictions of a model of Surprise on the same folds, and its seconds."""
    source, target = keep / "pairs.npz", keep / f"{name}.npz"
    np.savez(source, user=log.user, item=log.item, value=log.value, fold=log.fold)
    if not target.exists():
        script = Path(__file__).with_name("surprise_ratings.py")
        subprocess.run([python, str(script), str(source), str(target), name], check=True, env=os.environ)
    result = np.load(target)
    return result["predicted"], float(result["seconds"])


def interval(cell: dict) -> str:
    """Return a difference with its interval over users."""
    low, high = cell["ci95"]
    return f"{cell['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"


def simulated_coverage() -> str:
    """Return how often intervals of 95 % hold the truth, in worlds where the errors of a user are alike."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(100), rng.integers(1, 20, 100))
    truth = {"rmse": np.sqrt(1.5), "mae": np.sqrt(1.5) * np.sqrt(2 / np.pi)}
    hits = dict.fromkeys([*truth, "rmse difference", "rmse, over ratings"], 0)
    for _ in range(SIMULATIONS):
        of_user = rng.normal(0, np.sqrt(0.5), (2, 100))
        errors, others = of_user[:, user] + rng.normal(size=(2, len(user)))
        for metric, value in truth.items():
            cell = error_cell(*error_and_influence(metric, errors), user)
            hits[metric] += cell["ci95"][0] <= value <= cell["ci95"][1]
            if metric == "rmse":
                hits["rmse, over ratings"] += cell["ci95_pairs"][0] <= value <= cell["ci95_pairs"][1]
        low, high = paired_difference("rmse", errors, others, user)["ci95"]
        hits["rmse difference"] += low <= 0 <= high
    return ", ".join(f"{name} {100 * count / SIMULATIONS:.1f} %" for name, count in hits.items())


def errors_beside_surprise(log: Log, python: str, keep: Path) -> str:
    """Return the text of the section."""
    for kind in MODELS:  # Kernels are compiled, or loaded, before the clock starts.
        small = Interactions(*(getattr(log, name) for name in ("users", "items")), *_first_ratings(log))
        build_rating_model(kind, {}).fit(small).predict(log.user[:9], log.item[:9])
    predicted, seconds, spread = {}, {}, {}
    for name in SURPRISE:
        predicted[f"Surprise {name}"], seconds[f"Surprise {name}"] = predict_with_surprise(log, name, python, keep)
    for kind in MODELS:
        predicted[kind], spread[kind], seconds[kind] = predict(log, kind)
    errors = {name: values - log.value for name, values in predicted.items()}
    root = {name: error_and_influence("rmse", of_model)[0] for name, of_model in errors.items()}
    mae = {name: error_and_influence("mae", of_model)[0] for name, of_model in errors.items()}
    theirs = min((f"Surprise {name}" for name in SURPRISE), key=root.__getitem__)
    rows = []
    for name in sorted(root, key=root.__getitem__):
        gap = "" if name == theirs else interval(paired_difference("rmse", errors[name], errors[theirs], log.user))
        rows.append([name, f"{root[name]:.4f}", f"{mae[name]:.4f}", gap, f"{seconds[name]:.1f}"])
    body = table(["model", "RMSE", "MAE", f"RMSE − that of {theirs} [95 %, users]", "CPU seconds"], rows)
    best = min(MODELS, key=root.__getitem__)
    body += "\n\nThe best model minus each of Surprise: " + "; ".join(
        f"{name} {interval(paired_difference('rmse', errors[best], errors[name], log.user))}"
        for name in errors
        if name.startswith("Surprise")
    )
    body += f".\n\n`biases` − BaselineOnly: {root['biases'] - root['Surprise BaselineOnly']:+.5f} RMSE."
    coverage = spread_coverage(predicted["bpmf"], spread["bpmf"], log.value)
    body += (
        f"\n\nThe spread of `bpmf`: its intervals of 90 % hold {100 * coverage['covered']['0.9']:.1f} % of"
        f" {coverage['pairs']:,} held-out ratings, those of 50 % hold {100 * coverage['covered']['0.5']:.1f} %."
        f"\n\nIntervals of 95 % that hold the truth, in {SIMULATIONS:,} simulated logs of 100 users whose errors are"
        f" alike: {simulated_coverage()}."
    )
    return body


def _first_ratings(log: Log) -> list[np.ndarray]:
    """Return user, item, value and time of a few hundred ratings in the order of users and items."""
    train = log.train(1)
    return [getattr(train, name)[:400] for name in ("user", "item", "value", "time")]


def lists_beside_errors() -> str:
    """Return the table of RMSE and NDCG@10 of the same models, on the first fold."""
    parts = split(read_tables(DATA).events, Folds(fold=1), weighting=WeightSettings(aggregate="max"))
    train, test = parts.train, parts.test
    truth = Truth.from_split(parts, EvaluationSettings(metrics=("ndcg@10",), relevant=4.0))
    users = train.users.rows(test.users.ids)
    test_items = train.items.rows(test.items.ids)[test.item]
    user_of_cell = np.repeat(users, len(train.items))
    item_of_cell = np.tile(np.arange(len(train.items)), len(users))
    likes = np.bincount(train.item[train.value >= 4], minlength=len(train.items))
    scores, roots = {}, {}

    def judge(name: str, rating: np.ndarray) -> None:
        of_pairs = np.where(test_items >= 0, rating[test.user, np.maximum(test_items, 0)], train.value.mean())
        roots[name] = np.sqrt(np.mean((np.clip(of_pairs, 0.5, 5) - test.value) ** 2))
        lists = recommend(FixedScores(rating.astype(np.float32), name), truth.histories, 10)
        scores[name] = evaluate(lists, truth, name=name).per_user["ndcg@10"].to_numpy()

    biases = build_rating_model("biases", {}).fit(train)
    for kind in MODELS[1:]:
        model = biases if kind == "biases" else build_rating_model(kind, {}).fit(train)
        rating = model.predict(user_of_cell, item_of_cell)
        missing = np.isnan(rating)
        rating[missing] = biases.predict(user_of_cell[missing], item_of_cell[missing])
        judge(kind, rating.reshape(len(users), len(train.items)))
    slope, constant = np.polyfit(np.log1p(likes[train.item]), train.value, 1)
    judge("popularity on a line", np.tile(constant + slope * np.log1p(likes), (len(users), 1)))
    ease = build("ease", {}).fit(train).score(truth.histories, users)
    row_of_user = np.full(len(train.users), -1)
    row_of_user[users] = np.arange(len(users))
    known = row_of_user[train.user] >= 0
    train_scores = ease[row_of_user[train.user[known]], train.item[known]]
    is_scored = np.isfinite(train_scores)
    slope, constant = np.polyfit(train_scores[is_scored], train.value[known][is_scored], 1)
    judge("ease on a line", np.nan_to_num(constant + max(slope, 1e-6) * ease, nan=float(train.value.mean())))
    rows = [
        [name, f"{roots[name]:.4f}", "{:.4f} [{:.4f}, {:.4f}]".format(*mean_ci(scores[name]))]
        for name in sorted(roots, key=roots.__getitem__)
    ]
    body = table(["model", "RMSE", "NDCG@10 (relevant: 4 and more) [95 %]"], rows)
    by_error, by_lists = min(roots, key=roots.__getitem__), max(scores, key=lambda name: np.nanmean(scores[name]))
    gap = mean_ci(scores[by_lists] - scores[by_error])
    body += (
        f"\n\n`{by_error}` has the smallest errors and `{by_lists}` the best lists: its NDCG@10 minus"
        f" that of `{by_error}` is"
        ' {:+.4f} [{:+.4f}, {:+.4f}], paired by user. "On a line": the scores of a model of lists, put on the scale'
        " of the ratings by a least squares line on train.".format(*gap)
    )
    return body


def scores_of_snippets() -> str:
    """Return the text on film snippets, each scored by twenty people, in folds by review.

    The snippets are in the source archive of vaderSentiment 0.5, which pip downloads into a folder that is removed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        words = ["download", "--no-deps", "--no-binary", ":all:", "-q", "-d", scratch]
        subprocess.run([sys.executable, "-m", "pip", *words, "vaderSentiment==0.5"], check=True)
        shutil.unpack_archive(next(Path(scratch).glob("*")), scratch)
        inner = next(Path(scratch).rglob("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(inner) as archive:
            member = next(one for one in archive if one.name.endswith("/movieReviewSnippets_GroundTruth.txt"))
            text = archive.extractfile(member).read().decode("latin-1")
    rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 2]
    texts, scores = [row[2] for row in rows], np.array([float(row[1]) for row in rows])
    fold = (id_hash([row[0] for row in rows], seed=1) * 5).astype(int)
    predicted = np.empty(len(scores))
    start = time.process_time()
    for number in range(5):
        is_test = np.flatnonzero(fold == number)
        is_train = np.flatnonzero(fold != number)
        model = ReviewScores().fit([texts[row] for row in is_train], scores[is_train])
        predicted[is_test] = model.predict([texts[row] for row in is_test])
    folds_seconds = time.process_time() - start
    predicted = np.where(np.isnan(predicted), scores.mean(), predicted)
    start = time.process_time()
    model = ReviewScores().fit(texts, scores)
    seconds = time.process_time() - start
    error = predicted - scores
    cell = error_cell(*error_and_influence("rmse", error), np.arange(len(error)))
    raising, lowering = model.strongest_words(10)
    return (
        f"{len(scores):,} snippets, scores of {scores.min():.1f} to {scores.max():.1f}; five folds by a hash of the"
        f" snippet, strength tuned inside each train part. RMSE {cell['mean']:.3f}"
        f" [{cell['ci95'][0]:.3f}, {cell['ci95'][1]:.3f}]"
        f" (the mean for all: {scores.std():.3f}), Pearson {np.corrcoef(predicted, scores)[0, 1]:.3f}. Its own hold-out"
        f" says RMSE {model.record['rmse']:.3f}, Pearson {model.record['pearson']:.3f}. One fit takes {seconds:.1f} CPU"
        f" seconds, the five folds {folds_seconds:.1f}.\n\nWords that raise a score: {', '.join(raising)}. Words that"
        f" lower it: {', '.join(lowering)}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surprise", help="the Python of an environment with scikit-surprise")
    parser.add_argument("--keep", type=Path, help="folder for the predictions of Surprise")
    parser.add_argument("--world", nargs=3, type=int, metavar=("USERS", "ITEMS", "EVENTS"), help="a made-up film world")
    parser.add_argument("--lists", action="store_true", help="RMSE beside NDCG of the same models")
    parser.add_argument("--snippets", action="store_true", help="scores of film snippets from their text")
    options = parser.parse_args()
    if options.snippets:
        title = "Scores from text: film snippets of vaderSentiment 0.5"
        write_section("ratings-snippets", title, "python bench/ratings.py --snippets", scores_of_snippets())
        return
    if options.lists:
        title = "Ratings: the smallest errors are not the best lists (ml-latest-small, one fold of five)"
        write_section("ratings-lists", title, "python bench/ratings.py --lists", lists_beside_errors())
        return
    if not options.surprise:
        parser.error("name the Python of an environment with scikit-surprise: --surprise PYTHON")
    name, title, command = "ratings", "ml-latest-small", "python bench/ratings.py --surprise PYTHON"
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        source = DATA
        if options.world:
            sizes = " ".join(map(str, options.world))
            name = f"ratings-{sizes.replace(' ', '-')}"
            title = "a made-up film world"
            command += f" --world {sizes}"
            source = generate_world(Recipe(*options.world, seed=0, years=4.0), Path(scratch) / "world")["events"]
        log = read_log(source)
        body = f"{len(log.users):,} users, {len(log.items):,} items, {len(log.value):,} ratings.\n\n"
        body += errors_beside_surprise(log, options.surprise, keep)
    write_section(name, f"Predicted ratings beside Surprise ({title}, five folds by hash)", command, body)


if __name__ == "__main__":
    main()
