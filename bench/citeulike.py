"""citeulike-t, sparse split P = 10: ``build("hybrid", {})`` beside the published rows.

    python bench/citeulike.py [--parts]     fits once (some minutes) and writes its section of bench/RESULTS.md;
                                            --parts: each chosen part by itself as well

Everything is chosen inside ``fit``, on a part of train; test is looked at once, at the end. Protocol of Ferrari
Dacrema et al., TOIS 2021, Table 18: every article that is not in the user's train part is ranked, recall divides by
the number of test articles, users with test articles are averaged. The data is found by RECSYS_DATA, or
../shared/data.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section
from scipy.sparse import csr_array

from recsys.data.weigh import interactions_from_table
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.models import build
from recsys.ranking.rank import recommend
from recsys.types import Features, IdMap, Split

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data")) / "citeulike-t"
METRICS = ("recall@50", "recall@100", "recall@300")
PUBLISHED = {
    "TopPopular": (0.0578, 0.0862, 0.1568),
    "ItemKNN CF": (0.2133, 0.2658, 0.3457),
    "P3α": (0.2276, 0.2769, 0.3571),
    "iALS": (0.2338, 0.3107, 0.4374),
    "content kNN cosine": (0.1625, 0.2237, 0.3493),
    "content + CF kNN": (0.2675, 0.3490, 0.4740),
    "CVAE": (0.2387, 0.3274, 0.4854),
    "CDL": (0.2231, 0.3019, 0.4618),
}


def load():
    """Return (Split, Features): rows are the ids themselves."""
    parts = {name: pd.read_parquet(DATA / f"{name}_p10.parquet") for name in ("train", "test")}
    words = pd.read_parquet(DATA / "words.parquet")
    articles = IdMap.from_ids(parts["train"]["item_id"], parts["test"]["item_id"], words["item_id"])
    train = interactions_from_table(complete(parts["train"]), items=articles)
    test = interactions_from_table(complete(parts["test"]), items=articles)
    code, names = pd.factorize(words["word"], sort=True)
    shape = (len(articles), len(names))
    counts = csr_array((words["count"].to_numpy(np.float32), (articles.rows(words["item_id"]), code)), shape=shape)
    return Split(train, train, test, "given"), Features(counts, tuple(f"text={word}" for word in names))


def complete(pairs):
    """Return a table of interactions: every pair counts 1, at no known time."""
    return pairs.assign(value=np.float32(1), timestamp=-1).drop_duplicates(["user_id", "item_id"])


def measure(model, split):
    """Return {metric: mean} and the per-user table."""
    lists = recommend(model, split.histories(), 300)
    judged = evaluate(lists, Truth.from_split(split, EvaluationSettings(metrics=METRICS)), name="hybrid")
    return judged.per_user


def main():
    """Fit, judge, write."""
    split, features = load()
    begin = time.perf_counter()
    model = build("hybrid", {}).fit(split.train, features)
    seconds = time.perf_counter() - begin
    ours = {"hybrid": measure(model, split)}
    if "--parts" in sys.argv:
        ours |= {name: measure(part, split) for name, part in model.members.items()}
    rows = [[name, *(f"{value:.4f}" for value in values)] for name, values in PUBLISHED.items()]
    for name, per_user in ours.items():
        cells = ["{:.4f} [{:.4f}, {:.4f}]".format(*mean_ci(per_user[metric].to_numpy())) for metric in METRICS]
        rows.append([f"**{name}**" if name == "hybrid" else f"its part {name}", *cells])
    record = model.record
    parts = "; ".join(f"{kind} {part['ndcg@100']:.4f} {part['params']}" for kind, part in record["parts"].items())
    body = table(["model", *METRICS], rows)
    body += f"\n\n{len(ours['hybrid']):,} users; fit, choosing included: {seconds:,.0f} s. Chosen: {record['weights']}."
    body += (
        f" Why: {record['why']}. Parts on hidden likes: {parts}. By history: {record.get('by_history', 'the same')}."
    )
    body += f" New items: {record.get('new_items', {}).get('weights', 'no choice')}."
    body += f" Ablation on hidden likes: {record['ablation']}."
    write_section(
        "citeulike",
        "citeulike-t, P = 10: hybrid against published rows",
        " ".join(["python bench/citeulike.py", *sys.argv[1:]]),
        body,
    )


if __name__ == "__main__":
    main()
