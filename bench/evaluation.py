"""Eight metrics at four cut-offs, from a table of recommendations to per-user numbers: recsys, ranx, pytrec_eval.

python bench/evaluation.py [USERS]      100,000 users by default, 100 items each

Every contestant starts from the same two pandas tables and everything that it needs counts: conversions, building of
its objects, sorting, evaluation. Compilation does not: each first judges a few users. Values are compared first.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytrec_eval
import ranx
from results import table, write_section

from recsys.evaluation.evaluate import evaluate_tables
from recsys.evaluation.settings import EvaluationSettings

K, ITEMS, RELEVANT = 100, 50_000, 10
CUTS = (5, 10, 20, 100)
OURS = (
    "precision",
    "recall",
    "hit_rate",
    "ndcg[gain=linear]",
    "map[over=relevant]",
    "mrr",
    "r_precision",
    "rbp[p=0.95]",
)
RANX = ("precision", "recall", "hit_rate", "ndcg", "map", "mrr", "r-precision", "rbp.95")
TREC = {"P", "recall", "success", "ndcg_cut", "map_cut"}
"""trec_eval has no rbp and cuts neither recip_rank nor Rprec: it computes seven of the eight, two of them once."""


def names(stems: tuple[str, ...]) -> list[str]:
    """Return each metric at each cut; R-precision and ranx's rbp have none."""
    uncut = ("r_precision", "r-precision", "rbp.95")
    return [stem if stem in uncut else f"{stem}@{k}" for stem in stems for k in (CUTS[:1] if stem in uncut else CUTS)]


def world(users: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (recs, truth) with text ids; scores fall without ties; about a third of the relevant items are listed."""
    rng = np.random.default_rng(seed)
    user_ids = np.array([f"user-{i}" for i in rng.permutation(users)], dtype=object)
    item_ids = np.array([f"item-{i}" for i in rng.permutation(ITEMS)], dtype=object)
    start, step = rng.integers(0, ITEMS, size=(users, 1)), 2 * rng.integers(1, ITEMS // 4, size=(users, 1)) + 1
    items = (start + step * np.arange(K)) % ITEMS  # without repeats for nearly every user
    good = np.array([len(np.unique(row)) == K for row in items])
    items[~good] = (start[~good] + np.arange(K)) % ITEMS
    recs = pd.DataFrame(
        {
            "user_id": np.repeat(user_ids, K),
            "item_id": item_ids[items.ravel()],
            "rank": np.tile(np.arange(1, K + 1), users),
            "score": np.tile(np.linspace(1, 0.01, K), users),
        }
    )
    hit = items[np.arange(users)[:, None], rng.permuted(np.tile(np.arange(K), (users, 1)), axis=1)[:, : RELEVANT // 3]]
    missed = (items[:, :1] + 7 * step * np.arange(K + 1, K + 1 + RELEVANT - RELEVANT // 3)) % ITEMS
    cells = np.concatenate([hit, missed], axis=1)
    truth = pd.DataFrame(
        {
            "user_id": np.repeat(user_ids, RELEVANT),
            "item_id": item_ids[cells.ravel()],
            "value": rng.integers(1, 5, size=cells.size),
        }
    )
    return recs, truth.drop_duplicates(["user_id", "item_id"], ignore_index=True)


def by_recsys(recs: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Our numbers; mrr at one cut stands for the others' mrr."""
    judging = EvaluationSettings(metrics=tuple(names(OURS)))
    return evaluate_tables(recs, truth, judging).per_user.set_index("user_id")


def by_ranx(recs: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Build Qrels and Run from the tables, as its guide shows, and evaluate."""
    text = {"user_id": object, "item_id": object}  # it takes no categories
    qrels = ranx.Qrels.from_df(truth.astype(text), q_id_col="user_id", doc_id_col="item_id", score_col="value")
    run = ranx.Run.from_df(recs.astype(text), q_id_col="user_id", doc_id_col="item_id", score_col="score")
    ranx.evaluate(qrels, run, names(RANX), make_comparable=False)
    return pd.DataFrame({name: pd.Series(dict(run.scores[name])) for name in names(RANX)})


def by_pytrec_eval(recs: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Build the nested dictionaries and evaluate."""
    cuts = ",".join(map(str, CUTS))
    wanted = {f"{name}.{cuts}" for name in TREC} | {"recip_rank", "Rprec"}
    evaluator = pytrec_eval.RelevanceEvaluator(_nested(truth, "value"), wanted)
    return pd.DataFrame.from_dict(evaluator.evaluate(_nested(recs, "score")), orient="index")


def _nested(frame: pd.DataFrame, value: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    columns = (frame["user_id"].tolist(), frame["item_id"].tolist(), frame[value].tolist())
    for user, item, number in zip(*columns, strict=True):
        row = found.get(user)
        if row is None:
            row = found[user] = {}
        row[item] = number
    return found


def agree(recs: pd.DataFrame, truth: pd.DataFrame) -> float:
    """Return the largest difference of any per-user value from ranx's and trec_eval's."""
    ours, theirs, trec = by_recsys(recs, truth), by_ranx(recs, truth), by_pytrec_eval(recs, truth)
    pairs = [(ours[a], theirs[b]) for a, b in zip(names(OURS), names(RANX), strict=False) if "rbp" not in a]
    for k in CUTS:
        pairs += [(ours[f"ndcg[gain=linear]@{k}"], trec[f"ndcg_cut_{k}"]), (ours[f"precision@{k}"], trec[f"P_{k}"])]
        pairs += [(ours[f"map[over=relevant]@{k}"], trec[f"map_cut_{k}"]), (ours[f"recall@{k}"], trec[f"recall_{k}"])]
    return max(float((a - b).abs().max()) for a, b in pairs)


def timed(function: Callable[..., pd.DataFrame], recs: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """Return (seconds on the clock, seconds of processor time over all threads) of one call."""
    clock, processor = time.perf_counter(), time.process_time()
    function(recs, truth)
    return np.array([time.perf_counter() - clock, time.process_time() - processor])


def main(users: int) -> None:
    """Measure all contestants from text ids and from categories, and write the section."""
    warnings.simplefilter("ignore")
    small = world(500)
    difference = agree(*small)
    recs, truth = world(users)
    rows = []
    for kind in ("text", "categories"):
        if kind == "categories":
            recs, truth = (frame.astype({"user_id": "category", "item_id": "category"}) for frame in (recs, truth))
            by_recsys(*(frame.astype({"user_id": "category", "item_id": "category"}) for frame in small))
        ours = timed(by_recsys, recs, truth)
        trec, other = timed(by_pytrec_eval, recs, truth), timed(by_ranx, recs, truth)
        ours = (ours + timed(by_recsys, recs, truth)) / 2  # before and after: the machine's mood counts for all
        for what, own, first, second in zip(("clock", "processor"), ours, trec, other, strict=True):
            rows.append([f"{kind}, {what}", *(f"{x:.1f}" for x in (own, first, second, first / own, second / own))])
            print(rows[-1], flush=True)
    heads = ["ids, seconds", "recsys", "pytrec_eval", "ranx", "× pytrec_eval", "× ranx"]
    body = (
        f"{users:,} users × {K} items, {RELEVANT} relevant each; eight metrics at {', '.join(map(str, CUTS))}."
        " From two pandas tables to per-user values, all conversions counted, compilation not. pytrec_eval has no rbp"
        f" and computes seven of the eight. Largest difference of any per-user value on 500 users: {difference:.1e}."
        "\n\n" + table(heads, rows)
    )
    command = f"python bench/evaluation.py {users}"
    write_section("evaluation", "Evaluation: seconds from table to numbers", command, body)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
