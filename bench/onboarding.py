"""Asking newcomers on ml-latest-small: NDCG@10 after 0, 1, 3, 5 and 10 questions, strategy by strategy.

python bench/onboarding.py DATA [HALVES]      DATA: the folder that holds ml-latest-small; 10 halves by default

Five folds of users: each user is a newcomer once, to a model fitted on the other four folds. A random half of his
ratings is what he can answer from (4 and more: likes; less: dislikes; anything else: he does not know it); the likes of
the other half are what he is judged on. Several such halves, averaged user by user, so that intervals are over users.
The strategy of a fold is the one that was best on the users of the other folds, after five questions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section
from scipy.sparse import csr_array

from recsys.evaluation.judging.judge import judge
from recsys.evaluation.judging.metrics import parse
from recsys.evaluation.testing.significance import mean_ci
from recsys.models.onboarding import STRATEGIES, Onboarding, simulate
from recsys.types import IdMap, Interactions

QUESTIONS, FOLDS, DECISIVE, LIKE = (0, 1, 3, 5, 10), 5, 5, 4.0
ASKERS = {name: {"strategy": name} for name in STRATEGIES if name != "best_guess"}
ASKERS |= {f"best_guess, curiosity {c}": {"strategy": "best_guess", "curiosity": c} for c in (0, 0.05, 0.1, 0.2, 0.5)}


def interactions(rows: pd.DataFrame, items: IdMap) -> Interactions:
    """Return ratings as Interactions over all items."""
    users = IdMap.from_ids(rows["userId"])
    rows = rows.sort_values(["userId", "movieId"])
    user, item = users.rows(rows["userId"]).astype(np.int32), items.rows(rows["movieId"]).astype(np.int32)
    return Interactions(users, items, user, item, rows["rating"].to_numpy(np.float32), rows["timestamp"].to_numpy())


def newcomers(rows: pd.DataFrame, users: np.ndarray, items: IdMap, value: np.ndarray) -> csr_array:
    """Return csr (users, items) of the values."""
    cell = np.searchsorted(users, rows["userId"]), items.rows(rows["movieId"])
    found = csr_array((value, cell), shape=(len(users), len(items)))
    found.sort_indices()
    return found


def simulated(ratings: pd.DataFrame, halves: int) -> pd.DataFrame:
    """Return ndcg@10 by (user, fold) and (strategy, questions), the mean over halves; users without truth are out."""
    rng, items, metric = np.random.default_rng(0), IdMap.from_ids(ratings["movieId"]), parse("ndcg@10")
    everyone = np.sort(ratings["userId"].unique())
    fold_of = pd.Series(rng.permutation(np.arange(len(everyone)) % FOLDS), index=everyone)
    fold = ratings["userId"].map(fold_of).to_numpy()
    models = {
        (f, name): Onboarding(**settings, like=LIKE).fit(interactions(ratings[fold != f], items))
        for f in range(FOLDS)
        for name, settings in ASKERS.items()
    }
    parts = []
    for _ in range(halves):
        asked = rng.random(len(ratings)) < 0.5
        for f in range(FOLDS):
            users = fold_of.index[fold_of == f].to_numpy()
            mine, liked = fold == f, (ratings["rating"] >= LIKE).to_numpy()
            pool, held = ratings[mine & asked], ratings[mine & ~asked & liked]
            knowledge = newcomers(pool, users, items, np.where(pool["rating"] >= LIKE, 1.0, -1.0))
            truth = newcomers(held, users, items, np.ones(len(held)))
            values = {
                (name, count): metric(judge(lists, truth))
                for name in ASKERS
                for count, lists in simulate(models[f, name], knowledge, questions=QUESTIONS).items()
            }
            index = pd.MultiIndex.from_arrays([users, np.full(len(users), f)], names=["user", "fold"])
            parts.append(pd.DataFrame(values, index=index))
    return pd.concat(parts).groupby(level=["user", "fold"]).mean().dropna()


def chosen(values: pd.DataFrame) -> tuple[pd.Series, dict[int, str]]:
    """Return (each user's value under the strategy chosen on the other folds, the choice of each fold)."""
    fold = values.index.get_level_values("fold")
    choice = {f: values[fold != f].xs(DECISIVE, axis=1, level=1).mean().idxmax() for f in range(FOLDS)}
    found = [values.loc[fold == f, (strategy, DECISIVE)] for f, strategy in choice.items()]
    return pd.concat(found).reindex(values.index), choice


def cell(values: pd.Series, sign: str = "") -> str:
    """Return mean and 95 % interval over users."""
    mean, low, high = mean_ci(values.to_numpy())
    return f"{mean:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def main(data: Path, halves: int) -> None:
    """Simulate and write the section."""
    values = simulated(pd.read_csv(data / "ml-latest-small" / "ratings.csv"), halves)
    rows = [
        [name.replace("_", " "), *(f"{values[name, count].mean():.4f}" for count in QUESTIONS),
         cell(values[name, DECISIVE] - values["popular", DECISIVE], "+")]
        for name in ASKERS
    ]  # fmt: skip
    best, choice = chosen(values)
    against = best - values["popular", DECISIVE]
    body = (
        f"{len(values)} newcomers with something to judge by, {halves} random halves each.\n\n"
        + table(["questions", *map(str, QUESTIONS), f"{DECISIVE} questions, against popular"], rows)
        + f"\nChosen on the other folds: {', '.join(f'fold {f} {name}' for f, name in choice.items())}."
        f" After {DECISIVE} questions {cell(best)}, against asking for the most popular {cell(against, '+')}."
    )
    write_section("onboarding", "Asking newcomers", "python bench/onboarding.py DATA", body)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10)
