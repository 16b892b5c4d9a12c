"""ml-latest-small with 20 % of the films cold, ranked among the cold films, any rating relevant; and warm films.

    python bench/cold.py               five seeds; writes its section of bench/RESULTS.md

Rival: a ridge regression from genre, year and "metadata present" alone to what everyone rated. The hybrid chooses
inside ``fit``, on the warm films. The shuffled one is the same with features handed out anew among the films that
have them.
"""

import os
import sys
from pathlib import Path

import numpy as np
from results import table, write_section
from scipy.sparse import csr_array, hstack

from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ColdItems, Fraction
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.features.encoding import columns_by_field, shuffle_features
from recsys.features.encoding import encode_features as read_features
from recsys.linalg import ridge
from recsys.models import build
from recsys.ranking.rank import RecommendOptions, recommend
from recsys.recommender import Recommender

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data")) / "ml-latest-small"
JUDGING = EvaluationSettings(metrics=("ndcg@10",))
HYBRID = {"placebo": False, "hold_out": "random"}
"""Its trials hide likes at random, as the splits here do."""

CROWD = ("itemknn", "rp3beta", "ease", "spectral", "als")


class Rival(Recommender):
    """Ridge from genre, year and whether there is any metadata to the ratings of each user of train."""

    def __init__(self, tables, parts, known):
        self.parts, where = parts, columns_by_field(known)
        told = np.isin(parts.train.items.ids, tables.items.item_id[tables.items.overview.fillna("") != ""])
        columns = np.concatenate([where["genres"], where["year"]])
        extra = csr_array(np.column_stack([told, np.ones(len(told))]).astype(np.float32))
        self.x = csr_array(hstack([known.matrix[:, columns], extra], format="csr"))

    def fit(self, train=None, features=None):
        """Learn a weight a feature and user."""
        seen = self.parts.train.matrix()
        seen.data[:] = 1
        warm = np.diff(seen.T.tocsr().indptr) > 0
        self.weights = ridge(self.x[warm], seen[:, warm].T.toarray(), 10.0, np.ones(warm.sum()))
        self.rows = self.parts.train.users.rows(self.parts.test.users.ids)
        return self

    def score(self, histories, users=None):
        """Return the scores of the tested users."""
        return (self.x @ self.weights[:, self.rows[users]]).T.astype(np.float32)


def ndcg(model, parts, candidates=None):
    """Return NDCG@10 of every tested user."""
    lists = recommend(model, parts.histories(), 10, options=RecommendOptions(candidates=candidates))
    return evaluate(lists, Truth.from_split(parts, JUDGING), name="x").per_user["ndcg@10"].to_numpy()


def cold(tables, seed):
    """Return {model: ndcg@10 a user} among the cold films of one seed."""
    parts = split(tables.events, ColdItems(share=0.2, seed=seed), items=tables.items)
    known = read_features(tables.items, "item_id", parts.train.items)
    new = np.isin(parts.train.items.ids, parts.test.items.ids)
    found = {"genre + year + metadata present": ndcg(Rival(tables, parts, known).fit(), parts, new)}
    model = build("hybrid", HYBRID).fit(parts.train, known)
    found["hybrid"] = ndcg(model, parts, new)
    found["content"] = ndcg(build("content", {}).fit(parts.train, known), parts, new)
    mixed = shuffle_features(known, seed)
    for part in model.members.values():
        part.fit(parts.train, mixed)
    found["hybrid, shuffled features"] = ndcg(model, parts, new)
    tell(seed, model, found)
    return found


def warm(tables, seed):
    """Return {model: ndcg@10 a user} on a random fifth of the ratings."""
    parts = split(tables.events, Fraction(test=0.2, seed=seed), items=tables.items)
    known = read_features(tables.items, "item_id", parts.train.items)
    found = {kind: ndcg(build(kind, {}).fit(parts.train), parts) for kind in CROWD}
    model = build("hybrid", HYBRID).fit(parts.train, known)
    found["hybrid"] = ndcg(model, parts)
    tell(seed, model, found)
    return found


def tell(seed, model, found):
    """Print what was chosen and what it reached."""
    means = {name: round(float(np.nanmean(values)), 4) for name, values in found.items()}
    print(seed, model.record["weights"], model.record.get("new_items"), means, file=sys.stderr, flush=True)


def rows(results):
    """Return a line a model: the mean over seeds and the interval of the first seed's users."""
    for name in results[0]:
        means = [np.nanmean(result[name]) for result in results]
        yield [name, f"{np.mean(means):.4f}", " ".join(f"{mean:.4f}" for mean in means)]


def main():
    """Measure and write."""
    tables = read_tables(DATA)
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    old = [warm(tables, seed) for seed in range(1)]
    new = [cold(tables, seed) for seed in seeds]
    ratio = np.mean([np.nanmean(r["hybrid"]) for r in new]) / np.mean([np.nanmean(r[next(iter(r))]) for r in new])
    best = max(CROWD, key=lambda kind: np.mean([np.nanmean(r[kind]) for r in old]))
    gap = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*mean_ci(old[0]["hybrid"] - old[0][best]))
    body = table(["cold films", "NDCG@10", "by seed"], list(rows(new)))
    body += f"\n\nHybrid / rival: {ratio:.2f}.\n\n" + table(["warm films", "NDCG@10", "by seed"], list(rows(old)))
    body += f"\n\nHybrid − {best}, paired by user: {gap}."
    write_section("cold", "ml-latest-small: cold films, and no harm to warm ones", "python bench/cold.py", body)


if __name__ == "__main__":
    main()
