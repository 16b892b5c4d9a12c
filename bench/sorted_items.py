"""Lists of ALS from sorted items, beside lists from the scores of all items.

    python bench/sorted_items.py

ALS of rank 64 is trained on whole logs: the clicks of Globo, Gowalla, citeulike-t and ml-latest-small, found by
RECSYS_DATA or ../shared/data. Lists of 20 items that a user has not seen are made for 20,000 users, drawn at random, or
for all. Both ways take turns, on all cores. They must make the same lists.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys import kernels, linalg
from recsys.models import build
from recsys.models.collaborative.als import ALS
from recsys.ranking.sorted_items import ITEMS_PER_BLOCK, SortedItems
from recsys.types import Histories, IdMap, Interactions, Selection

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))
RANK, K, USERS, ROUNDS = 64, 20, 20_000, 5
ROWS = 1024
"""Number of users whose scores are in memory at a time, if all scores are computed."""


def read_log(name: str) -> pd.DataFrame:
    """Return the distinct pairs of a log, with the columns user_id and item_id."""
    if name == "Globo, clicks":
        log = pd.read_parquet(DATA / "globo-clicks" / "clicks.parquet")
    elif name == "Gowalla":
        log = pd.read_parquet(DATA / "gowalla" / "train.parquet")
    elif name == "citeulike-t":
        log = pd.read_parquet(DATA / "citeulike-t" / "train_p10.parquet")
    else:
        log = pd.read_csv(DATA / "ml-latest-small" / "ratings.csv")
        log = log.rename(columns={"userId": "user_id", "movieId": "item_id"})
    return log[["user_id", "item_id"]].drop_duplicates()


def train(log: pd.DataFrame) -> tuple[ALS, Histories]:
    """Return ALS trained on a log, and the histories of the users who get lists."""
    users, items = (IdMap.from_ids(log[column]) for column in ("user_id", "item_id"))
    cells = np.column_stack([users.rows(log["user_id"]), items.rows(log["item_id"])]).astype(np.int32)
    user, item = cells[np.lexsort(cells.T[::-1])].T
    ones = np.ones(len(log), dtype=np.float32)
    pairs = Interactions(users, items, user.copy(), item.copy(), ones, np.full(len(log), -1))
    model = build("als", {"rank": RANK}).fit(pairs)
    rows = np.random.default_rng(0).choice(len(users), min(USERS, len(users)), replace=False)
    return model, pairs.histories()[np.sort(rows)]


def list_by_all_scores(vectors: np.ndarray, model: ALS, histories: Histories) -> np.ndarray:
    """Return the lists from the scores of all items, int32[m, K]."""
    lists = []
    for start in range(0, len(vectors), ROWS):
        scores = linalg.product(vectors[start : start + ROWS], model.item_factors_.T)
        scores[:, ~model.known_] = np.nan
        seen = histories[start : start + ROWS].values
        lists.append(kernels.select_top_k(scores, seen.indptr, seen.indices, K)[0])
    return np.concatenate(lists)


def measure(name: str) -> list[str]:
    """Return the row of the table of one log."""
    model, histories = train(read_log(name))
    vectors = model.user_factors(histories)
    seconds: dict[str, list[float]] = {"sorted": [], "all scores": [], "product": []}
    # The first round compiles kernels, and is not counted.
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        sorted_items = SortedItems.from_factors(model.item_factors_, model.known_)
        lists, scores = sorted_items.top_k(vectors, Selection(K, histories.values))
        seconds["sorted"].append(time.perf_counter() - start)
        start = time.perf_counter()
        expected = list_by_all_scores(vectors, model, histories)
        seconds["all scores"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for row in range(0, len(vectors), ROWS):
            linalg.product(vectors[row : row + ROWS], model.item_factors_.T)
        seconds["product"].append(time.perf_counter() - start)
    same = (lists == expected).all(axis=1).mean()
    # A user is done where the next length times the user's own is below the last score of the list.
    needed = np.searchsorted(-sorted_items.lengths, -scores[:, -1] / np.linalg.norm(vectors, axis=1))
    needed = np.minimum(np.ceil(needed / ITEMS_PER_BLOCK) * ITEMS_PER_BLOCK, len(sorted_items.items))
    median = {way: np.median(times[1:]) for way, times in seconds.items()}
    return [
        name,
        f"{len(vectors):,}",
        f"{len(sorted_items.items):,}",
        f"{np.mean(needed) / len(sorted_items.items):.1%}",
        *(f"{median[way]:.2f}" for way in ("sorted", "all scores", "product")),
        f"{median['sorted'] / median['all scores']:.2f}",
        f"{median['sorted'] / median['product']:.2f}",
        f"{same:.2%}",
    ]


def main() -> None:
    """Measure every log, and write the section."""
    rows = [measure(name) for name in ("Globo, clicks", "Gowalla", "citeulike-t", "ml-latest-small")]
    heads = ["log", "users", "items", "scores needed", "sorted items, s", "all scores, s", "product alone, s"]
    heads += ["÷ all scores", "÷ product", "same lists"]
    body = (
        f"ALS of rank {RANK} with its defaults, lists of {K}; medians of {ROUNDS} rounds, in which the ways take turns,"
        " on all cores. Product alone: the scores of all items, from which nothing is selected.\n\n"
        + table(heads, rows)
    )
    write_section("sorted_items", "Lists from sorted items", "python bench/sorted_items.py", body)


if __name__ == "__main__":
    main()
