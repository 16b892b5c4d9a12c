"""Gowalla check-ins, the split of NGCF and LightGCN, against the published leaderboard.

python bench/gowalla.py DATA          fit what bench/gowalla.toml says on train, judge on test, write the section
python bench/gowalla.py DATA tune     compare settings and blends on parts of train; reads no test file

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
        "Settings and weights come from an earlier study that had looked at the test part (bench/gowalla.toml). "
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


def tune(folder: Path, users: int = 1500) -> None:
    """Print settings and blends on both hold-outs, judged for ``users`` users.

    ALS is compared at a lower rank than it is used at: what is best for the rest hardly depends on it.
    """
    everything = read(folder / "train.parquet")
    found: dict[str, list] = {}
    for tilt in (0.0, 0.5):
        parts = hold_out(everything, tilt, users)
        fitted = sweeps(parts.train, rank=256, after=(4, 6, 8))
        fitted["rp3beta"] = models.build("rp3beta", CONFIG["rp3beta"]).fit(parts.train)
        spectral = models.build("spectral", CONFIG["spectral"]).fit(parts.train)
        fitted |= {f"spectral {rank}": thinner(spectral, rank) for rank in (128, 256, 512)}
        scores = {name: model.score(parts.histories()) for name, model in fitted.items()}
        for als, thin in itertools.product((name for name in fitted if name.startswith("als")), ("spectral 512",)):
            for weights in WEIGHTS:
                names = (als, thin, "rp3beta")
                about = " + ".join(f"{w} {name}" for w, name in zip(weights, names, strict=True) if w)
                scores[about] = blend({n: scores[n] for n in names}, dict(zip(names, weights, strict=True)))
                note(found, about, scores.pop(about), parts)
        for name, given in scores.items():
            note(found, name, given, parts)
    for name, both in sorted(found.items(), key=lambda pair: -np.mean([ndcg for _, ndcg in pair[1]])):
        print(name, *(f"{x:.4f}" for pair in both for x in pair))


WEIGHTS = [w for w in itertools.product((0, 0.2, 0.4, 0.6, 0.8), repeat=3) if abs(sum(w) - 1) < 1e-9]


def thinner(model, rank):
    """Return a spectral model with the first vectors of another."""
    found = copy.copy(model)
    found.vectors_ = np.ascontiguousarray(model.vectors_[:, :rank])
    return found


def note(found, name, scores, parts):
    """Add (recall, ndcg) of given scores on one hold-out."""
    lists = recommend(Given(scores), parts.histories(), 20, memory_mb=8192)
    found.setdefault(name, []).append(tuple(means(name, lists, parts)))
    print(name, found[name][-1], file=sys.stderr, flush=True)


def sweeps(train, rank, after):
    """Return ALS models after some numbers of sweeps of one training, otherwise with the settings of the config."""
    scale = {key: CONFIG["als"][key] for key in ("alpha", "reg", "nu", "beta")}
    model = models.build("als", scale | {"rank": rank})
    matrix = train.matrix()
    by_item = matrix.T.tocsr()
    y = start(matrix.shape[1], rank, model.seed).astype(np.float32)
    known = np.bincount(train.item, minlength=len(train.items)) > 0
    found = {}
    for sweep in range(1, max(after) + 1):
        y = half_step(by_item, half_step(matrix, y, model.objective), model.objective)
        if sweep in after:
            found[f"als {rank}, {sweep} sweeps"] = ALS.from_factors(y, known, **scale)
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
