"""The libraries that bench/models.py measures beside: one process each, in an environment of its own.

python bench/peers.py LIBRARY FOLDER       started by bench/models.py; LIBRARY is implicit, rectools or lenskit

FOLDER holds train.npz (user, item: the pairs; shape) and asked.npy (rows of the users to list for). Each line of
standard input is a model's name; the answer is a line of JSON with seconds to fit and to list (wall, CPU), and the
lists in lists.npy. Imports, and a library's own copy of the pairs, come before any clock starts. Nothing of recsys is
imported.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

K = 10
RANK, SWEEPS, ALPHA, REG = 64, 15, 10.0, 1.0
BPR_SWEEPS, BPR_RATE, BPR_REG = 50, 0.05, 0.01
NEIGHBOURS, EASE_REG = 100, 250.0
SLOW = 200
"""LensKit answers user by user: it is asked for about so many of them, and its seconds are scaled up."""

CG, EXACT = f"ALS by conjugate gradients, rank {RANK}", f"ALS, exact, rank {RANK}"
BPR = f"BPR, rank {RANK}"
COSINE, TFIDF, BM25 = (f"item neighbours, {name}, {NEIGHBOURS}" for name in ("cosine", "TF-IDF", "BM25"))
USERS = f"user neighbours, cosine, {NEIGHBOURS}"


class Implicit:
    """implicit: matrices of rows."""

    every = 1

    def __init__(self, folder) -> None:
        user, item, shape, self.rows = pairs(folder)
        self.matrix = csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)
        self.confident = self.matrix * np.float32(1 + ALPHA)

    def models(self):
        """Return name -> function that makes a new model."""
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

        return {
            CG: lambda: implicit_als(True),
            EXACT: lambda: implicit_als(False),
            BPR: implicit_bpr,
            COSINE: lambda: CosineRecommender(K=NEIGHBOURS + 1),  # itself is among them
            TFIDF: lambda: TFIDFRecommender(K=NEIGHBOURS + 1),
            BM25: lambda: BM25Recommender(K=NEIGHBOURS + 1),
        }

    def fit(self, name, model):
        """Fit it."""
        model.fit(self.confident if name in (CG, EXACT) else self.matrix, show_progress=False)
        return model

    def lists(self, model):
        """Return what :meth:`arrays` takes."""
        return model.recommend(self.rows, self.matrix[self.rows], N=K)[0]

    def arrays(self, found):
        """Return int[m, K] items."""
        return found


class RecTools:
    """RecTools: frames of ids. It trains implicit's models by implicit."""

    every = 1

    def __init__(self, folder) -> None:
        from rectools.dataset import Dataset

        user, item, self.shape, self.rows = pairs(folder)
        table = pd.DataFrame({"user_id": user, "item_id": item, "weight": 1.0, "datetime": "2020-01-01"})
        self.data = Dataset.construct(table)
        self.confident = Dataset.construct(table.assign(weight=1 + ALPHA))

    def models(self):
        """Return name -> function that makes a new model."""
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
        from rectools import models as of

        return {
            CG: lambda: of.ImplicitALSWrapperModel(implicit_als(True)),
            EXACT: lambda: of.ImplicitALSWrapperModel(implicit_als(False)),
            BPR: lambda: of.ImplicitBPRWrapperModel(implicit_bpr(), recommend_n_threads=0),
            COSINE: lambda: of.ImplicitItemKNNWrapperModel(CosineRecommender(K=NEIGHBOURS + 1)),
            TFIDF: lambda: of.ImplicitItemKNNWrapperModel(TFIDFRecommender(K=NEIGHBOURS + 1)),
            BM25: lambda: of.ImplicitItemKNNWrapperModel(BM25Recommender(K=NEIGHBOURS + 1)),
            "EASE": lambda: of.EASEModel(regularization=EASE_REG),
            "popular": of.PopularModel,
            "random": of.RandomModel,
        }

    def fit(self, name, model):
        """Fit it."""
        return model.fit(self.confident if name in (CG, EXACT) else self.data)

    def lists(self, model):
        """Return what :meth:`arrays` takes."""
        return model.recommend(self.rows, self.data, k=K, filter_viewed=True)

    def arrays(self, found):
        """Return int[m, K] items."""
        return filled(found, self.rows, self.shape[0])


class LensKit:
    """LensKit: pipelines that answer one user at a time."""

    def __init__(self, folder) -> None:
        from lenskit.data import from_interactions_df

        user, item, self.shape, rows = pairs(folder)
        self.data = from_interactions_df(pd.DataFrame({"user_id": user, "item_id": item}))
        self.every = max(1, len(rows) // SLOW)
        self.rows = rows[:: self.every]

    def models(self):
        """Return name -> function that makes a new model."""
        from lenskit.als import ImplicitMFScorer
        from lenskit.basic import PopScorer
        from lenskit.knn import EASEScorer, ItemKNNScorer, UserKNNScorer
        from lenskit.pipeline import topn_pipeline

        knn = {"max_nbrs": NEIGHBOURS, "feedback": "implicit"}
        scorers = {
            EXACT: lambda: ImplicitMFScorer(embedding_size=RANK, epochs=SWEEPS, weight=ALPHA, regularization=REG),
            COSINE: lambda: ItemKNNScorer(save_nbrs=NEIGHBOURS, **knn),
            USERS: lambda: UserKNNScorer(**knn),
            "EASE": lambda: EASEScorer(regularization=EASE_REG),
            "popular": PopScorer,
        }
        return {name: lambda make=make: topn_pipeline(make(), n=K) for name, make in scorers.items()}

    def fit(self, name, model):
        """Fit it."""
        model.train(self.data)
        return model

    def lists(self, model):
        """Return what :meth:`arrays` takes; more than one process is slower, for each starts anew."""
        from lenskit import batch

        return batch.recommend(model, self.rows, n_jobs=1)

    def arrays(self, found):
        """Return int[m, K] items."""
        return filled(found.to_df(), self.rows, self.shape[0])


def implicit_als(use_cg):
    """Return a new ALS of implicit."""
    from implicit.cpu.als import AlternatingLeastSquares

    return AlternatingLeastSquares(
        factors=RANK, regularization=REG, iterations=SWEEPS, use_cg=use_cg, random_state=0, num_threads=0
    )


def implicit_bpr():
    """Return a new BPR of implicit, on one thread: with more, no two fits are alike."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    return BayesianPersonalizedRanking(
        factors=RANK,
        iterations=BPR_SWEEPS,
        learning_rate=BPR_RATE,
        regularization=BPR_REG,
        num_threads=1,
        random_state=0,
    )


def pairs(folder):
    """Return (user, item, shape, rows asked for)."""
    with np.load(folder / "train.npz") as train:
        return train["user"], train["item"], tuple(train["shape"]), np.load(folder / "asked.npy")


def filled(table, rows, users):
    """Return int32[len(rows), K] of a frame user_id, item_id, rank; -1 where a list is short."""
    found = np.full((users, K), -1, dtype=np.int32)
    found[table["user_id"], table["rank"] - 1] = table["item_id"]
    return found[rows]


def timed(work, *given):
    """Return (float[2] seconds on the clock and of CPU over all threads, result)."""
    began = np.array([time.perf_counter(), time.process_time()])
    found = work(*given)
    return np.array([time.perf_counter(), time.process_time()]) - began, found


LIBRARIES = {"implicit": Implicit, "rectools": RecTools, "lenskit": LensKit}


def main(name: str, folder: Path) -> None:
    """Say what there is, then answer line by line."""
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    library = LIBRARIES[name](folder)
    models = library.models()
    print(json.dumps({"models": list(models), "every": library.every}), file=answers, flush=True)
    for line in sys.stdin:
        asked = line.strip()
        # implicit asks for BLAS on one thread where it has threads of its own; the rest use what they find
        quiet = (
            nullcontext()
            if name == "lenskit" or asked in ("EASE", "popular", "random")
            else threadpool_limits(1, "blas")
        )
        with quiet:
            fit, model = timed(library.fit, asked, models[asked]())
            ask, found = timed(library.lists, model)
        np.save(folder / "lists.npy", library.arrays(found))
        print(json.dumps({"fit": list(fit), "ask": list(ask * library.every)}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
