"""Fit and recommend times beside the libraries that have the same model, at the quality that each reaches.

python bench/models.py                     beside implicit, and RecTools where it is installed
python bench/models.py --users 2000 --items 1000 --events 100000

A made-up film world, a fifth of the pairs held out by hash. Everything is fitted and asked in turn, REPEATS
times; medians are compared. Both sides list ten unseen items for every tested user.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from results import table, write_section
from scipy.sparse import csr_matrix

from recsys import models
from recsys.data.rules import Fraction
from recsys.data.split import split
from recsys.data.synthetic import film_world
from recsys.evaluation.evaluate import Judging, evaluate
from recsys.linalg import one_blas_thread
from recsys.rank import recommend
from recsys.types import TopK

K, REPEATS = 10, 3
RANK, SWEEPS, ALPHA = 64, 15, 10.0


class Ours:
    """A kind of this package."""

    def __init__(self, kind, **params) -> None:
        self.kind, self.params = kind, params

    def fit(self, parts):
        """Fit on train."""
        self.model = models.build(self.kind, self.params).fit(parts.train)

    def lists(self, parts):
        """Return int32[m, K] items."""
        return recommend(self.model, parts.histories(), K).items


class Implicit:
    """A model of the implicit library; ``make`` returns a new one."""

    def __init__(self, make, scale=1.0) -> None:
        self.make, self.scale = make, scale

    def fit(self, parts):
        """Fit on the likes; confidence 1 + α where ``scale`` says so."""
        self.matrix = csr_matrix(parts.train.matrix())
        self.matrix.data[:] = self.scale
        with one_blas_thread():
            self.model = self.make()
            self.model.fit(self.matrix, show_progress=False)

    def lists(self, parts):
        """Return int32[m, K] items."""
        rows = parts.train.users.rows(parts.test.users.ids)
        with one_blas_thread():
            return self.model.recommend(rows, self.matrix[rows], N=K)[0]


class RecTools:
    """A model of RecTools; it takes and gives frames of ids."""

    def __init__(self, make) -> None:
        self.make = make

    def fit(self, parts):
        """Build its Dataset and fit."""
        import pandas as pd
        from rectools.dataset import Dataset

        train = parts.train
        frame = pd.DataFrame({"user_id": train.user, "item_id": train.item, "weight": 1.0, "datetime": "2020-01-01"})
        self.data = Dataset.construct(frame)
        self.model = self.make().fit(self.data)

    def lists(self, parts):
        """Return int32[m, K] items."""
        rows = parts.train.users.rows(parts.test.users.ids)
        frame = self.model.recommend(rows, self.data, k=K, filter_viewed=True)
        found = np.full((len(parts.train.users), K), -1, dtype=np.int32)
        found[frame["user_id"], frame["rank"] - 1] = frame["item_id"]
        return found[rows]


def pairs():
    """Return name -> {who: model} of the same model in several libraries."""
    from implicit.cpu.als import AlternatingLeastSquares
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import CosineRecommender

    def als(use_cg):
        return lambda: AlternatingLeastSquares(
            factors=RANK,
            regularization=1.0,
            iterations=SWEEPS,
            use_cg=use_cg,
            random_state=0,
            calculate_training_loss=False,
        )

    def bpr():
        return BayesianPersonalizedRanking(
            factors=RANK, iterations=50, learning_rate=0.05, num_threads=1, random_state=0
        )

    ours = {"rank": RANK, "iterations": SWEEPS, "alpha": ALPHA}
    found = {
        f"ALS, rank {RANK}": {
            "ours, ν = 1, exact": Ours("als", reg=0.05, **ours),
            "ours, ν = 0, trained by implicit": Ours("als", reg=1.0, nu=0, **ours),
            "implicit, conjugate gradient": Implicit(als(True), 1 + ALPHA),
            "implicit, Cholesky": Implicit(als(False), 1 + ALPHA),
        },
        f"BPR, rank {RANK}": {
            "ours": Ours("bpr", rank=RANK, iterations=50, learning_rate=0.05),
            "implicit, one thread": Implicit(bpr),
        },
        "item neighbours, cosine, 100": {
            "ours": Ours("itemknn", neighbours=100),
            "implicit": Implicit(lambda: CosineRecommender(K=101)),
        },
        "EASE": {"ours": Ours("ease", reg=250.0)},
        "user neighbours, cosine, 100": {"ours": Ours("userknn", neighbours=100)},
        "RP3beta": {"ours": Ours("rp3beta")},
        "spectral, rank 256": {"ours": Ours("spectral")},
    }
    try:
        from rectools.models import EASEModel, ImplicitItemKNNWrapperModel
    except ImportError:
        print("RecTools is not installed: pip install rectools", file=sys.stderr)
    else:
        found["EASE"]["RecTools"] = RecTools(lambda: EASEModel(regularization=250.0))
        found["item neighbours, cosine, 100"]["RecTools"] = RecTools(
            lambda: ImplicitItemKNNWrapperModel(CosineRecommender(K=101))
        )
    return found


def main(users: int, items: int, events: int) -> None:
    """Measure everything and write the section."""
    made = film_world(users, items, events)
    liked = made.events.assign(value=1.0)
    parts = split(liked, Fraction(), items=made.items)
    rows = []
    for name, who in pairs().items():
        seconds, lists = {label: ([], []) for label in who}, {}
        for _ in range(REPEATS):
            for label, model in who.items():
                for taken, work in zip(seconds[label], (model.fit, model.lists), strict=True):
                    began = time.perf_counter()
                    lists[label] = work(parts)
                    taken.append(time.perf_counter() - began)
        peers = [label for label in who if not label.startswith("ours")]
        for label, (fit, ask) in seconds.items():
            mine = label.startswith("ours") and peers
            ratio = [min(np.median(seconds[peer][place]) for peer in peers) for place in (0, 1)] if mine else []
            times = [f"{np.median(taken):.2f}" for taken in (fit, ask)]
            over = [f"{np.median(taken) / best:.2f}" for taken, best in zip((fit, ask), ratio, strict=False)] or [
                "",
                "",
            ]
            rows.append([name, label, f"{quality(lists[label], parts):.4f}", times[0], over[0], times[1], over[1]])
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    heads = ["model", "who", f"ndcg@{K}", "fit, s", "÷ fastest peer", f"top {K} for all, s", "÷ fastest peer"]
    body = (
        f"Film world of {users:,} users × {items:,} films, {len(parts.train):,} training pairs, all values 1; "
        f"medians of {REPEATS}, in turn. Compiled code is cached by an earlier run.\n\n" + table(heads, rows)
    )
    write_section("models", "Models beside their peers", "python bench/models.py", body)


def quality(items, parts):
    """Return the mean ndcg@K of lists of item rows."""
    m, k = items.shape
    source = np.where(items >= 0, 0, -1).astype(np.int8)
    scores = np.broadcast_to(-np.arange(k, dtype=np.float32), (m, k))
    lists = TopK(np.arange(m), items.astype(np.int32), scores, source, ("peer",), np.zeros(m, dtype=np.int8))
    metric = f"ndcg@{K}"
    return evaluate(lists, parts, Judging(metrics=(metric,)), name="peer").per_user[metric].mean()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("users", 10_000), ("items", 3_000), ("events", 500_000)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(**vars(parser.parse_args()))
