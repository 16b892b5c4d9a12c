"""Gowalla check-ins, the split of NGCF and LightGCN, against the published leaderboard.

python bench/gowalla.py DATA          fit what bench/gowalla.toml says on train, judge on test, write the section
python bench/gowalla.py DATA tune     choose settings and weights on parts of train, write the toml; reads no test file

DATA holds gowalla/train.parquet and gowalla/test.parquet (user_id, item_id).

The hold-outs. A random part of train asks for more of the same; what comes next leans to what is popular already. So
``tune`` looks at two parts: a tenth of each user's likes drawn at random, and a tenth drawn with chance proportional to
the square root of an item's popularity in train. A setting is chosen by the mean of its NDCG@20 over both.
"""

from __future__ import annotations

import copy
import itertools
import resource
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys import models
from recsys.data.hashing import row_hash
from recsys.evaluation.evaluate import Judging, evaluate
from recsys.models.als import start
from recsys.models.factor import ALS, half_step
from recsys.models.trial import climb
from recsys.rank import recommend
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


class Given:
    """A model with scores for the rows it is asked about next."""

    sources = ("given",)

    def __init__(self, scores) -> None:
        self.scores = scores

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
        fitted[name] = models.build(name, CONFIG[name]).fit(parts.train)
        seconds[name] = f"{time.perf_counter() - began:.0f}"
        print(name, seconds[name], file=sys.stderr, flush=True)
    rows = []
    for name, lists in everyone(fitted, weights, parts.histories()).items():
        found = [f"{mean:.4f}" for mean in means(name, lists, parts)]
        rows.append([name, *found, seconds.get(name, ""), str(CONFIG.get(name, weights))[1:-1].replace("'", "")])
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
    for first in range(0, histories.shape[0], block):
        part = histories[first : first + block]
        scores = {name: model.score(part) for name, model in fitted.items()}
        for name, given in (scores | {"blend": blend(scores, weights)}).items():
            found.setdefault(name, []).append(recommend(Given(given), part, 20, memory_mb=8192))
    return {name: together(lists) for name, lists in found.items()}


def together(lists):
    """Return the TopK of all users from those of the blocks."""
    whole = {name: np.concatenate([getattr(one, name) for one in lists]) for name in ("items", "scores", "source")}
    shortfall = np.concatenate([one.shortfall for one in lists])
    return TopK(np.arange(len(shortfall)), **whole, sources=lists[0].sources, shortfall=shortfall)


def means(name, lists, parts):
    """Return the mean of each metric."""
    return evaluate(lists, parts, Judging(metrics=METRICS), name=name).per_user[list(METRICS)].mean()


def tune(folder: Path, users: int = 3000) -> None:
    """Choose settings and weights on both hold-outs and write them to bench/gowalla.toml; reads no test file.

    ALS is compared at low ranks, where fits are cheap and the best scaling is much the same. The blend's weights are
    the best of a grid.
    """
    everything = read(folder / "train.parquet")
    parts = [hold_out(everything, tilt, users) for tilt in TILTS]
    tried: dict[str, tuple] = {}
    als = pick(ALS_LADDERS, lambda s: judged(tried, "als", scaled(s) | {"rank": 128, "iterations": 8}, parts))
    rp3beta = pick(RP3_LADDERS, lambda s: judged(tried, "rp3beta", s | {"neighbours": 400}, parts))
    made = [models.build("spectral", {"rank": 1024}).fit(one.train) for one in parts]
    spectral = pick(SPECTRAL_LADDERS, lambda s: value(tried, f"spectral {s}", [thin(m, **s) for m in made], parts))
    trained = [sweeps(one.train, scaled(als), rank=256, after=SWEEPS) for one in parts]
    after = {sweep: f"als rank 256 {scaled(als)} iterations {sweep}" for sweep in SWEEPS}
    best = max(SWEEPS, key=lambda sweep: value(tried, after[sweep], [t[sweep] for t in trained], parts))
    rp3beta["neighbours"] = 400
    members = {"als": [t[best] for t in trained]}
    for name, params in (("spectral", spectral), ("rp3beta", rp3beta)):
        members[name] = [models.build(name, params).fit(one.train) for one in parts]
    weights = blended(tried, members, parts)
    chosen = {
        "als": {"rank": 1024, "iterations": best} | scaled(als),
        "spectral": spectral,
        "rp3beta": rp3beta,
        "weights": weights,
    }
    lines = [HEAD, *(f"[{name}]\n" + "".join(f"{k} = {v!r}\n" for k, v in own.items()) for name, own in chosen.items())]
    Path(__file__).with_suffix(".toml").write_text("\n".join(lines), encoding="utf-8")
    order = sorted(tried, key=lambda name: -mean(tried[name]))
    rows = [[name, *(f"{x:.4f}" for one in tried[name] for x in one), f"{mean(tried[name]):.4f}"] for name in order]
    heads = ["settings", *(f"{metric}, tilt {tilt}" for tilt in TILTS for metric in METRICS), "mean ndcg@20"]
    write_section(
        "gowalla_tune",
        "Gowalla: settings chosen on parts of train",
        "python bench/gowalla.py DATA tune",
        f"{users:,} users. Standard error of a mean about 0.004; of a difference, less.\n\n" + table(heads, rows),
    )


HEAD = """# What `bench/gowalla.py` fits, chosen by `python bench/gowalla.py DATA tune` on parts of train alone.
"""
TILTS = (0.0, 0.5)
SWEEPS = (4, 6, 8)
ALS_LADDERS = {"a0": (0.1, 0.03, 0.01, 0.003, 0.001), "reg": (0.03, 0.01, 0.003, 0.001, 0.0003)}
RP3_LADDERS = {"alpha": (0.5, 0.6, 0.7, 0.8, 0.9), "beta": (0.15, 0.2, 0.25, 0.3, 0.35)}
SPECTRAL_LADDERS = {"rank": (128, 256, 512, 768, 1024), "low": (0.1, 0.2, 0.3, 0.5, 1.0)}
WEIGHTS = [w for w in itertools.product((0, 0.2, 0.4, 0.6, 0.8, 1), repeat=3) if abs(sum(w) - 1) < 1e-9]


def pick(ladders, value):
    """Return the settings that climb the ladders from their middles."""
    place = climb([len(ladder) for ladder in ladders.values()], lambda at: value(settings(ladders, at)))
    return settings(ladders, place)


def settings(ladders, place):
    """Return name -> the value at its place."""
    return {name: ladder[at] for (name, ladder), at in zip(ladders.items(), place, strict=True)}


def scaled(s):
    """Return the parameters of ALS that say λ* and α0 of Rendle et al."""
    return {"alpha": 1 / s["a0"], "reg": s["reg"] * (1 + s["a0"]) / s["a0"], "nu": 1.0, "beta": s["a0"]}


def judged(tried, kind, params, parts):
    """Return the value of a kind and its parameters, fitted on each hold-out."""
    return value(tried, f"{kind} {params}", [models.build(kind, params).fit(one.train) for one in parts], parts)


def value(tried, name, fitted, parts):
    """Return the mean NDCG over the hold-outs of a model fitted on each; keep (recall, ndcg) of both in ``tried``."""
    tried[name] = [scored(m.score(one.histories()), one) for m, one in zip(fitted, parts, strict=True)]
    print(name, *tried[name], file=sys.stderr, flush=True)
    return mean(tried[name])


def mean(found):
    """Return the mean NDCG of both hold-outs."""
    return float(np.mean([ndcg for _, ndcg in found]))


def scored(given, one):
    """Return (recall, ndcg) of scores on a hold-out."""
    lists = recommend(Given(given), one.histories(), 20, memory_mb=8192)
    return tuple(float(x) for x in means("tune", lists, one))


def blended(tried, members, parts):
    """Return the weights of the grid with the best mean NDCG over both hold-outs."""
    names = {w: " + ".join(f"{x:g} {name}" for x, name in zip(w, members, strict=True) if x) for w in WEIGHTS}
    for place, one in enumerate(parts):
        z = {name: standardised(m[place].score(one.histories())) for name, m in members.items()}
        for w in WEIGHTS:
            given = sum(x * z[name] for x, name in zip(w, members, strict=True) if x)
            tried.setdefault(names[w], []).append(scored(given, one))
    best = max(WEIGHTS, key=lambda w: mean(tried[names[w]]))
    print(names[best], *tried[names[best]], file=sys.stderr, flush=True)
    return {name: float(x) for name, x in zip(members, best, strict=True)}


def thin(model, rank, low):
    """Return a spectral model with the first vectors of another."""
    found = copy.copy(model)
    found.vectors_, found.low = np.ascontiguousarray(model.vectors_[:, :rank]), low
    return found


def sweeps(train, params, rank, after):
    """Return sweep -> ALS after so many sweeps of one training."""
    model = models.build("als", params | {"rank": rank})
    matrix = train.matrix()
    by_item = matrix.T.tocsr()
    y = start(matrix.shape[1], rank, model.seed).astype(np.float32)
    known = np.bincount(train.item, minlength=len(train.items)) > 0
    found = {}
    for sweep in range(1, max(after) + 1):
        y = half_step(by_item, half_step(matrix, y, model.objective), model.objective)
        if sweep in after:
            found[sweep] = ALS.from_factors(y, known, **params)
    return found


def hold_out(everything: Interactions, tilt: float, users: int, share: float = 0.1) -> Split:
    """Return train without a share of each user's likes, drawn by chance ∝ popularity^tilt; test: some users'."""
    popularity = np.bincount(everything.item)
    hurry = -np.log(row_hash(everything.user, everything.item, seed=1)) / popularity[everything.item] ** tilt
    place = pd.Series(hurry).groupby(everything.user).rank(method="first").to_numpy()
    out = place <= np.maximum(1, np.round(share * np.bincount(everything.user)))[everything.user]
    train = part(everything, ~out, everything.users)
    chosen = np.sort(np.random.default_rng(2).permutation(len(everything.users))[:users])
    test = part(everything, out & np.isin(everything.user, chosen), IdMap.of(everything.users.ids[chosen]))
    return Split(train, train, test, f"hold-out, popularity^{tilt}")


def part(whole: Interactions, keep: np.ndarray, users: IdMap) -> Interactions:
    """Return some entries, with a user map that knows all their users."""
    row = users.rows(whole.users.names(whole.user[keep])).astype(np.int32)
    return Interactions(users, whole.items, row, whole.item[keep], whole.value[keep], whole.time[keep])


def read(path: Path) -> Interactions:
    """Return the pairs of a file; ids are rows already."""
    frame = pd.read_parquet(path).sort_values(["user_id", "item_id"])
    ids = [IdMap.of(np.arange(n)) for n in (29_858, 40_981)]
    pair = [frame[name].to_numpy(np.int32) for name in ("user_id", "item_id")]
    return Interactions(*ids, *pair, np.ones(len(frame), np.float32), np.full(len(frame), -1))


if __name__ == "__main__":
    (tune if sys.argv[2:] == ["tune"] else final)(Path(sys.argv[1]) / "gowalla")
