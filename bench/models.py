"""Fit and recommend times beside the libraries that have the same model, at the quality that each reaches.

python bench/models.py                             beside implicit
python bench/models.py --rectools PYTHON --lenskit PYTHON       and beside these, each in an environment of its own:
                                                   they want other versions of NumPy than this package and each other
python bench/models.py --users 2000 --items 1000 --events 100000 --only EASE
python bench/models.py als-19m 64                  ALS alone beside implicit (bench/als_seconds.py), at one rank: 64,
                                                   128 or 256; on 19.2 M pairs, or als-400k: 400,000

A made-up film world, a fifth of the pairs held out by hash. Everything is fitted and asked once unmeasured (compiled
code is loaded, caches are warm) and REPEATS times measured, each time in an order drawn anew; medians are compared. All
list ten unseen items for every tested user with the same settings (bench/peers.py), and all are judged here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "passive"  # here and for peers: threads that wait must not burn what others need

import als_seconds
import numpy as np
import peers
from peers import BM25, BPR, CG, COSINE, EXACT, TFIDF, USERS, K
from results import table, write_section

from recsys import models
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import Fraction
from recsys.data.synthetic import film_world
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.ranking.rank import recommend
from recsys.types import TopK

REPEATS = 5
ALS = {"rank": peers.RANK, "iterations": peers.SWEEPS, "alpha": peers.ALPHA}
BPR_PARAMS = {"iterations": peers.BPR_SWEEPS, "learning_rate": peers.BPR_RATE, "reg": peers.BPR_REG}
KNN = {"neighbours": peers.NEIGHBOURS}
ITEM_KNN = KNN | {"shrink": 0.0}  # the peers have no shrinkage
OURS = {  # family -> {label: kind and parameters}; the first is the one that the peers are compared with
    CG: {
        "ours, ν = 1": ("als", ALS | {"reg": 0.05}),
        "ours, ν = 0": ("als", ALS | {"reg": peers.REG, "nu": 0}),
    },
    EXACT: {"ours, ν = 1": ("als", ALS | {"reg": 0.05, "solver": "cholesky"})},
    BPR: {"ours": ("bpr", BPR_PARAMS | {"rank": peers.RANK})},
    COSINE: {"ours": ("itemknn", ITEM_KNN)},
    TFIDF: {"ours": ("itemknn", ITEM_KNN | {"weighting": "tfidf"})},
    BM25: {"ours": ("itemknn", ITEM_KNN | {"weighting": "bm25"})},
    USERS: {"ours": ("userknn", KNN)},
    "EASE": {"ours": ("ease", {"reg": peers.EASE_REG})},
    "popular": {"ours": ("popular", {})},
    "random": {"ours": ("random", {})},
    "RP3beta, 200": {"ours": ("rp3beta", {})},
    "spectral, rank 256": {"ours": ("spectral", {})},
}


class Ours:
    """A kind of this package."""

    every = 1

    def __init__(self, parts, kind, params) -> None:
        self.parts, self.kind, self.params = parts, kind, params

    def run(self):
        """Return (seconds to fit, seconds to list, items int32[m, K])."""
        model = models.build(self.kind, self.params)
        fit, _ = peers.timed(model.fit, self.parts.train)
        ask, lists = peers.timed(lambda: recommend(model, self.parts.histories(), K))
        return fit, ask, lists.items[self.parts.train.users.rows(self.parts.test.users.ids) >= 0]


class Peer:
    """The process of another library."""

    def __init__(self, library, python, folder) -> None:
        self.folder = folder
        command = [python, str(Path(peers.__file__)), library, str(folder)]
        self.log = folder / f"{library}.log"
        with self.log.open("w") as log:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
        self.offer = json.loads(self.process.stdout.readline() or "{}")

    def run(self, family):
        """Return (seconds to fit, seconds to list, items int32[asked, K])."""
        print(family, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{family}: the library failed:\n{self.log.read_text()}")
        answer = json.loads(line)
        return answer["fit"], answer["ask"], np.load(self.folder / "lists.npy")

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait()


class Model:
    """One model of a peer."""

    def __init__(self, peer, family) -> None:
        self.peer, self.family, self.every = peer, family, peer.offer["every"]

    def run(self):
        """Return what :meth:`Peer.run` does."""
        return self.peer.run(self.family)


def opened(pythons, parts, folder):
    """Return library -> Peer of those that start; write down what they learn from."""
    train = parts.train
    shape = (len(train.users), len(train.items))
    np.savez(folder / "train.npz", user=train.user, item=train.item, shape=shape)
    rows = train.users.rows(parts.test.users.ids)
    np.save(folder / "asked.npy", rows[rows >= 0])
    found = {library: Peer(library, python, folder) for library, python in pythons.items()}
    for library in [library for library, peer in found.items() if not peer.offer]:
        print(f"{library} did not start: python -m venv ENV; ENV/bin/pip install {library}", file=sys.stderr)
        del found[library]
    return found


def family_rows(name, who, parts):
    """Return the rows of the table of one family; ``who``: label -> what runs."""
    seconds, judged = {label: ([], []) for label in who}, {}
    rng = np.random.default_rng(0)
    for repeat in range(REPEATS + 1):
        for label in rng.permutation(list(who)):  # who ran just before costs time: memory that another process freed
            fit, ask, items = who[label].run()
            if repeat:
                seconds[label][0].append(fit)
                seconds[label][1].append(ask)
            else:
                judged[label] = quality(items, parts, who[label].every)
    middle = {label: np.median(taken, axis=1) for label, taken in seconds.items()}  # (fit, ask) by (wall, CPU)
    theirs = [middle[label] for label in who if not label.startswith("ours")]
    first = next(iter(who))
    rows = []
    for label, times in middle.items():
        over = np.full((2, 2), np.nan)
        if label.startswith("ours") and theirs:
            over = times / np.min(theirs, axis=0)
        fit, ask = (
            [f"{spent[0]:.3f}", *("" if np.isnan(x) else f"{x:.2f}" for x in ratio)]
            for spent, ratio in zip(times, over, strict=True)
        )
        gap = ""
        if label != first:
            gap = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*mean_ci(judged[label] - judged[first]))
        cells = [name, label, f"{np.nanmean(judged[label]):.4f}", gap]
        rows.append([*cells, *fit, *ask])
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    return rows


def quality(items, parts, every):
    """Return float[m]: ndcg@K of lists of items for every so many of the tested users that train knows; else NaN."""
    m = len(parts.test.users)
    asked = np.flatnonzero(parts.train.users.rows(parts.test.users.ids) >= 0)[::every]
    full = np.full((m, K), -1, dtype=np.int32)
    full[asked] = items
    source = np.where(full >= 0, 0, -1).astype(np.int8)
    scores = np.where(full >= 0, -np.arange(K, dtype=np.float32), np.float32(np.nan))
    lists = TopK(np.arange(m), full, scores, source, ("peer",), np.zeros(m, dtype=np.int8))
    metric = f"ndcg@{K}"
    found = (
        evaluate(lists, Truth.from_split(parts, EvaluationSettings(metrics=(metric,))), name="peer")
        .per_user[metric]
        .to_numpy()
    )
    return np.where(np.isin(np.arange(m), asked), found, np.nan)


def main(users: int, items: int, events: int, only: str, **pythons: str) -> None:
    """Measure everything and write the section, if nothing was left out."""
    made = film_world(users, items, events)
    parts = split(made.events.assign(value=1.0), Fraction(), items=made.items)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        found = opened(pythons, parts, Path(folder))
        for name, ours in OURS.items():
            if only not in name:
                continue
            who = {label: Ours(parts, *settings) for label, settings in ours.items()}
            who |= {library: Model(peer, name) for library, peer in found.items() if name in peer.offer["models"]}
            rows += family_rows(name, who, parts)
        for peer in found.values():
            peer.close()
    over = ["÷ fastest", "CPU ÷ least"]
    heads = ["model", "who", f"ndcg@{K}", "− ours [95 %]", "fit, s", *over, f"top {K} for all, s", *over]
    body = (
        f"Film world of {users:,} users × {items:,} films, {len(parts.train):,} training pairs, all values 1, the same "
        f"settings for all; medians of {REPEATS} in changing order, after one run unmeasured. ÷ fastest: over the "
        "fastest peer; the same for CPU seconds of all threads, which others on the machine change less. "
        "Threads that wait sleep (OMP_WAIT_POLICY=passive, for all). "
        f"Load average when it ended: {os.getloadavg()[2]:.0f}. "
        "RecTools trains implicit's models by implicit. LensKit answers user by user: it is asked for one tested user "
        "in so many, its seconds are multiplied, and the difference is over the users that both were asked for.\n\n"
        + table(heads, rows)
    )
    if only:
        print(table(heads, rows))
    else:
        command = "python bench/models.py" + "".join(f" --{library} PYTHON" for library in list(found)[1:])
        write_section("models", "Models beside their peers", command, body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=als_seconds.LOGS, help="a log: ALS alone")
    parser.add_argument("rank", nargs="?", type=int, default=64, help="its rank")
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="its measured runs (0: the first one counts); only 5 are written"
    )
    for option, default in (("users", 10_000), ("items", 3_000), ("events", 500_000)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--only", default="", help="families whose name holds this text; writes nothing")
    for library in peers.LIBRARIES:
        parser.add_argument(f"--{library}", default=sys.executable, help="interpreter that has it")
    given = vars(parser.parse_args())
    log, rank, repeats = given.pop("part"), given.pop("rank"), given.pop("repeats")
    if log:
        als_seconds.main(log, rank, repeats, write=repeats == REPEATS)
    else:
        main(**given)
