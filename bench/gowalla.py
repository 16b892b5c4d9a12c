"""Gowalla check-ins, the split of NGCF and LightGCN, against the published leaderboard.

python bench/gowalla.py DATA          fit what bench/gowalla.toml says on train, judge on test, write the section
python bench/gowalla.py DATA tune     choose settings and weights on parts of train, write the toml; reads no test file

DATA holds gowalla/train.parquet and gowalla/test.parquet (user_id, item_id).

The hold-outs. A random part of train asks for more of the same; what comes next leans to what is popular already. So
``tune`` looks at two parts: a tenth of each user's likes drawn at random, and a tenth drawn with chance proportional to
the square root of an item's popularity in train. What is known already is easier to find, so that NDCG@20 is larger
there: settings are chosen by the mean over both of NDCG@20 ÷ that of the part's best model, and what joins a blend has
to help on both.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys import models
from recsys.data.hashing import pair_hash
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.truth import Truth
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender
from recsys.types import IdMap, Interactions, Split, TopK

CONFIG = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
METRICS = ("recall@20", "ndcg@20")
PUBLISHED = {  # BARS leaderboard gowalla_m1: Recall@20, NDCG@20
    "ItemCF": (0.1570, 0.1214),
    "MF-BPR": (0.1627, 0.1378),
    "SLIM": (0.1699, 0.1382),
    "EASE": (0.1765, 0.1467),
    "LightGCN": (0.1820, 0.1547),
    "GF-CF": (0.1849, 0.1518),
    "UltraGCN": (0.1862, 0.1580),
    "SimpleX": (0.1872, 0.1557),
    "BSPM": (0.1920, 0.1597),
}


class Given(Recommender):
    """A model with scores for the rows it is asked about next."""

    SOURCE = "given"

    def __init__(self, scores) -> None:
        self.scores = scores

    def fit(self, train, features=None):
        """Return the same: nothing is learned."""
        return self

    def score(self, histories, users=None):
        """Return the given scores."""
        return self.scores


def blend(scores: dict, weights: dict):
    """Return the weighted sum of scores, each standardised over a user's known items."""
    return np.sum([w * standardised(scores[name]) for name, w in weights.items() if w], axis=0, dtype=np.float32)


def standardised(scores):
    """Return each row with mean 0 and deviation 1 over its numbers."""
    return (scores - np.nanmean(scores, axis=1, keepdims=True)) / np.nanstd(scores, axis=1, keepdims=True)


def final(folder: Path) -> None:
    """Fit on all of train, judge on test, write the section."""
    parts = Split(*[read(folder / "train.parquet")] * 2, read(folder / "test.parquet"), "published")
    weights = CONFIG["weights"]
    fitted, seconds = {}, {}
    for name in weights:
        began = time.perf_counter()
        fitted[name] = built(CONFIG[name]).fit(parts.train)
        seconds[name] = f"{time.perf_counter() - began:.0f}"
        print(name, seconds[name], file=sys.stderr, flush=True)
    rows = []
    for name, lists in everyone(fitted, weights, parts.histories()).items():
        found = [f"{mean:.4f}" for mean in means(name, lists, parts)]
        rows.append([name, *found, seconds.get(name, ""), said(CONFIG.get(name, weights))])
    rows += [[f"{name}, published", *(f"{x:.4f}" for x in found), "", ""] for name, found in PUBLISHED.items()]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    body = (
        "All items that are not in a user's training history are ranked; recall divides by the test items. "
        "The head of bench/gowalla.toml says where settings and weights come from. "
        f"Peak memory {peak:.1f} GiB.\n\n" + table(["model", *METRICS, "fit, seconds", "settings"], rows)
    )
    write_section("gowalla", "Gowalla", "python bench/gowalla.py DATA", body)


def everyone(fitted, weights, histories, block=1000):
    """Return name -> TopK of every model and of their blend; each user is scored once."""
    found: dict[str, list] = {}
    for first in range(0, len(histories), block):
        part = histories[first : first + block]
        scores = {name: model.score(part) for name, model in fitted.items()}
        for name, given in (scores | {"blend": blend(scores, weights)}).items():
            found.setdefault(name, []).append(
                recommend(Given(given), part, 20, options=RecommendOptions(memory_mb=8192))
            )
    return {name: together(lists) for name, lists in found.items()}


def together(lists):
    """Return the TopK of all users from those of the blocks."""
    whole = {name: np.concatenate([getattr(one, name) for one in lists]) for name in ("items", "scores", "source")}
    shortfall = np.concatenate([one.shortfall for one in lists])
    return TopK(np.arange(len(shortfall)), **whole, sources=lists[0].sources, shortfall=shortfall)


def means(name, lists, parts):
    """Return the mean of each metric."""
    return (
        evaluate(lists, Truth.from_split(parts, EvaluationSettings(metrics=METRICS)), name=name)
        .per_user[list(METRICS)]
        .mean()
    )


def tune(folder: Path, users: int = 3000) -> None:
    """Choose members and weights on both hold-outs and write them to bench/gowalla.toml; reads no test file.

    Every candidate is fitted at its final size on both hold-outs. A blend may be made of the two best of each kind:
    from the best of all, one comes in after another, at the weight that helps most of those that help on both parts.
    """
    everything = read(folder / "train.parquet")
    parts = [hold_out(everything, tilt, users) for tilt in TILTS]
    tried: dict[str, list] = {}
    for name, params in CANDIDATES.items():
        given = [opinion(params, one) for one in parts]
        tried[name] = [scored(scores, one) for scores, one in zip(given, parts, strict=True)]
        print(name, *tried[name], file=sys.stderr, flush=True)
    best = np.max([ndcg(found) for found in tried.values()], axis=0)

    def value(name: str) -> float:
        return float(np.mean(ndcg(tried[name]) / best))

    kinds: dict[str, list] = {}
    for name in sorted(CANDIDATES, key=value, reverse=True):
        kinds.setdefault(CANDIDATES[name]["model"], []).append(name)
    members = [name for names in kinds.values() for name in names[:2]]
    # Fitted again: what all candidates say would take 30 GiB.
    opinions = {name: [opinion(CANDIDATES[name], one) for one in parts] for name in members}
    weights = added(tried, opinions, parts, max(members, key=value), best)
    chosen = {name: CANDIDATES[name] for name in weights} | {"weights": weights}
    sections = [f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in s.items()) for name, s in chosen.items()]
    Path(__file__).with_suffix(".toml").write_text("\n".join([HEAD, *sections]), encoding="utf-8")
    order = sorted(tried, key=lambda name: -value(name))
    rows = []
    for name in order:
        found = [f"{x:.4f}" for one in tried[name] for x in one]
        rows.append([name, *found, f"{value(name):.4f}", said(CANDIDATES.get(name, {}))])
    heads = [
        "model",
        *(f"{metric}, tilt {tilt}" for tilt in TILTS for metric in METRICS),
        "mean of ndcg@20 ÷ best model's",
        "settings",
    ]
    write_section(
        "gowalla_tune",
        "Gowalla: settings chosen on parts of train",
        "python bench/gowalla.py DATA tune",
        f"{users:,} users. Standard error of a mean about 0.004; of a difference, less.\n\n" + table(heads, rows),
    )


HEAD = """# What `bench/gowalla.py` fits, chosen by `python bench/gowalla.py DATA tune` on parts of train alone.
"""
TILTS = (0.0, 0.5)
SHARES = (0.125, 0.25, 0.5, 1.0)


def scaled(a0, reg):
    """Return the parameters of ALS that say λ* and α0 of Rendle et al."""
    return {"alpha": 1 / a0, "reg": reg * (1 + a0) / a0, "nu": 1.0, "beta": a0}


CANDIDATES = {
    **{
        f"als_{place}": {"model": "als", "rank": 1024, "iterations": 5} | scaled(a0, reg)
        for place, (a0, reg) in enumerate(itertools.product((0.03, 0.01, 0.003), (0.003, 0.006, 0.012)))
    },
    **{
        f"spectral_{place}": {"model": "spectral", "rank": rank, "low": low}
        for place, (rank, low) in enumerate(itertools.product((512, 1024), (0.3, 1.0, 10.0)))
    },
    **{
        f"rp3beta_{place}": {"model": "rp3beta", "alpha": alpha, "beta": beta, "neighbours": 400}
        for place, (alpha, beta) in enumerate(itertools.product((0.6, 0.7, 0.8), (0.15, 0.2, 0.25)))
    },
    **{
        f"userknn_{place}": {"model": "userknn", "neighbours": neighbours, "weighting": weighting}
        for place, (neighbours, weighting) in enumerate(itertools.product((100, 200, 400), ("cosine", "bm25")))
    },
}
"""Name -> model and settings; ALS: λ* and α0 about the best of the grid of Rendle et al. 2021 for this data."""


def said(settings):
    """Return settings for a cell of a table."""
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())


def built(params):
    """Return the model of a section of the toml."""
    return models.build(params["model"], {name: value for name, value in params.items() if name != "model"})


def opinion(params, one):
    """Return the standardised scores of a model fitted on a hold-out's train."""
    return standardised(built(params).fit(one.train).score(one.histories()))


def ndcg(found):
    """Return float64[hold-outs] of their (recall, ndcg)."""
    return np.array([ndcg for _, ndcg in found])


def scored(given, one):
    """Return (recall, ndcg) of scores on a hold-out."""
    lists = recommend(Given(given), one.histories(), 20, options=RecommendOptions(memory_mb=8192))
    return tuple(float(x) for x in means("tune", lists, one))


def added(tried, opinions, parts, first, best):
    """Return the weights, which sum to 1, from ``first`` alone; each step of the way is noted in ``tried``.

    ``best``: float64[hold-outs], the NDCG of the best model.
    """
    weights, found = {first: 1.0}, tried[first]
    while True:
        ways = [added_one(weights, name, share) for name in opinions for share in SHARES]
        results = [[scored(mixed(way, opinions, place), one) for place, one in enumerate(parts)] for way in ways]
        better = [place for place, new in enumerate(results) if (ndcg(new) > ndcg(found)).all()]
        if not better:
            return weights
        place = max(better, key=lambda place: np.mean(ndcg(results[place]) / best))
        weights, found = ways[place], results[place]
        tried[" + ".join(f"{w:g} {name}" for name, w in weights.items())] = found
        print(weights, *found, file=sys.stderr, flush=True)


def added_one(weights, name, share):
    """Return the weights with a share of a member more, summing to 1."""
    more = weights | {name: weights.get(name, 0.0) + share}
    return {name: round(w / (1 + share), 4) for name, w in more.items()}


def mixed(weights, opinions, place):
    """Return the weighted sum of what the members say of one hold-out."""
    return np.sum([np.float32(w) * opinions[name][place] for name, w in weights.items()], axis=0)


def hold_out(everything: Interactions, tilt: float, users: int, share: float = 0.1) -> Split:
    """Return train without a share of each user's likes, drawn by chance ∝ popularity^tilt; test: some users'."""
    popularity = np.bincount(everything.item)
    hurry = -np.log(pair_hash(everything.user, everything.item, seed=1)) / popularity[everything.item] ** tilt
    place = pd.Series(hurry).groupby(everything.user).rank(method="first").to_numpy()
    out = place <= np.maximum(1, np.round(share * np.bincount(everything.user)))[everything.user]
    train = part(everything, ~out, everything.users)
    chosen = np.sort(np.random.default_rng(2).permutation(len(everything.users))[:users])
    test = part(everything, out & np.isin(everything.user, chosen), IdMap.from_ids(everything.users.ids[chosen]))
    return Split(train, train, test, f"hold-out, popularity^{tilt}")


def part(whole: Interactions, keep: np.ndarray, users: IdMap) -> Interactions:
    """Return some entries, with a user map that knows all their users."""
    row = users.rows(whole.users.ids_of(whole.user[keep])).astype(np.int32)
    return Interactions(users, whole.items, row, whole.item[keep], whole.value[keep], whole.time[keep])


def read(path: Path) -> Interactions:
    """Return the pairs of a file; ids are rows already."""
    frame = pd.read_parquet(path).sort_values(["user_id", "item_id"])
    ids = [IdMap.from_ids(np.arange(n)) for n in (29_858, 40_981)]
    pair = [frame[name].to_numpy(np.int32) for name in ("user_id", "item_id")]
    return Interactions(*ids, *pair, np.ones(len(frame), np.float32), np.full(len(frame), -1))


if __name__ == "__main__":
    (tune if sys.argv[2:] == ["tune"] else final)(Path(sys.argv[1]) / "gowalla")
