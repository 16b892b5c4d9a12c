"""Defaults of models, compared on validation parts of eight logs of different kinds; no test part is opened.

    python bench/defaults.py [KIND …]      an hour or more for all; writes a section of bench/RESULTS.md for each kind

Of each log, the newest fifth of each user's likes is hidden (any fifth where there are no times), after its own test
part was left out: the last item of the sequences, the newest fifth of ml-latest-small, of the clicks and of the
made-up world, the test files of citeulike-t and gowalla. A setting is worth its NDCG@100 divided by that of the best
setting on the same log; a good default is never far from the best. The data is found by RECSYS_DATA, or
../shared/data.
"""

import os
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime
from recsys.data.synthetic import film_world
from recsys.data.weigh import interactions_from_table
from recsys.errors import InputError
from recsys.models import build
from recsys.models.combining.trial import hide_pairs
from recsys.types import Interactions

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))

GRIDS = {
    "rp3beta": {
        "alpha": (0.3, 0.5, 0.7, 0.85, 1.0),
        "beta": (0.1, 0.2, 0.3, 0.4, 0.6),
        "neighbours": (200,),
    },
    "itemknn": {
        "weighting": ("cosine", "tfidf", "bm25"),
        "shrink": (0.0, 5.0, 10.0, 20.0, 50.0),
        "neighbours": (100, 200),
    },
    "ease": {"reg": (30.0, 100.0, 250.0, 500.0, 1000.0, 2000.0)},
    "userknn": {
        "weighting": ("cosine", "tfidf"),
        "shrink": (0.0, 5.0, 20.0),
        "neighbours": (50, 100, 200, 400),
    },
    "spectral": {"rank": (64, 256), "low": (0.1, 0.3, 1.0, 3.0)},
    "transitions": {
        "source_power": (0.25, 0.5, 0.75),
        "target_power": (0.0, 0.1, 0.2),
        "decay": (0.6, 0.7, 0.8, 0.9),
    },
    "als": {"alpha": (3.0, 10.0, 30.0, 100.0), "reg": (0.01, 0.03, 0.05, 0.1), "beta": (0.0, 0.03)},
}
"""Kind -> parameter -> values. All their combinations are tried."""

CLICK_USERS = 40_000
"""Users of the clicks that take part, drawn at random."""


def sequences(name: str) -> Interactions:
    """Return the likes of a file of sequences without the last item of each user."""
    rows = []
    for line in (DATA / "sequences" / f"{name}.txt").read_text().splitlines():
        user, *items = map(int, line.split())
        rows += [(user, item, place * 86_400) for place, item in enumerate(items[:-1])]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    log = log.drop_duplicates(["user_id", "item_id"], keep="last")
    return interactions_from_table(log.assign(value=np.float32(1)))


def pairs(path: str) -> Interactions:
    """Return the pairs of a file without times."""
    log = pd.read_parquet(DATA / path).drop_duplicates(["user_id", "item_id"])
    return interactions_from_table(log.assign(value=np.float32(1), timestamp=-1))


def older_part(log: pd.DataFrame) -> Interactions:
    """Return all but the newest fifth of a log."""
    return split(log, ByTime()).train


def clicks() -> Interactions:
    """Return the older clicks of some users."""
    log = pd.read_parquet(DATA / "globo-clicks" / "clicks.parquet", columns=["user_id", "item_id", "timestamp"])
    log["timestamp"] //= 1000
    users = np.random.default_rng(0).choice(log["user_id"].unique(), CLICK_USERS, replace=False)
    return older_part(read_tables(log[log["user_id"].isin(users)]).take_log())


LOGS = {
    "ml-latest-small": lambda: older_part(read_tables(DATA / "ml-latest-small").take_log()),
    "film world": lambda: older_part(film_world(3000, 1500, 150_000).events),
    "globo": clicks,
    "citeulike-t": lambda: pairs("citeulike-t/train_p10.parquet"),
    "gowalla": lambda: pairs("gowalla/train.parquet"),
    "Beauty": lambda: sequences("Beauty"),
    "LastFM": lambda: sequences("LastFM"),
    "Yelp": lambda: sequences("Yelp"),
}
"""Name -> the likes without any test part."""


def settings_of(kind: str) -> list[dict]:
    """Return all combinations of the grid of a kind, its default first."""
    grid = GRIDS[kind]
    default = build(kind, {})
    combinations = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    chosen = {name: getattr(default, name) for name in grid}
    return [chosen, *(settings for settings in combinations if settings != chosen)]


def measure(kind: str, trials: dict) -> pd.DataFrame:
    """Return the NDCG@100 of each setting (rows) on each log (columns); NaN where it does not fit in memory."""
    values = {}
    for name, trial in trials.items():
        rows = np.arange(len(trial.users))
        for position, settings in enumerate(settings_of(kind)):
            try:
                model = build(kind, settings).fit(trial.train)
            except InputError:
                break
            values[position, name] = float(trial.judge(model, rows).mean())
        print(kind, name, file=sys.stderr, flush=True)
    return pd.Series(values).unstack()


def section_of(kind: str, trials: dict) -> str:
    """Return the best settings of a kind and its default, as a table."""
    values = measure(kind, trials)
    shares = values / values.max()
    mean = shares.mean(axis=1)
    best = list(mean.sort_values(ascending=False).index[:5])
    rows = []
    for position in dict.fromkeys([*best, 0]):
        settings = ", ".join(f"{name} {value}" for name, value in settings_of(kind)[position].items())
        if position == 0:
            settings = f"default: {settings}"
        cells = [f"{shares.loc[position, name]:.3f}" for name in values]
        rows.append([settings, f"{mean[position]:.3f}", f"{shares.loc[position].min():.3f}", *cells])
    return table([f"{kind}, of {len(values)} settings", "mean", "worst", *values], rows)


def main() -> None:
    """Measure and write."""
    trials = {name: hide_pairs(load(), 0.2, 2000, seed=0) for name, load in LOGS.items()}
    sizes = "; ".join(
        f"{name} {len(trial.train.users):,} × {len(trial.train.items):,}, {len(trial.train):,} pairs"
        for name, trial in trials.items()
    )
    note = f"NDCG@100 divided by that of the best setting on the same log, up to 2,000 users each. {sizes}."
    for kind in sys.argv[1:] or list(GRIDS):
        body = f"{section_of(kind, trials)}\n\n{note}"
        title = f"Defaults of {kind} on validation parts of eight logs"
        write_section(f"defaults-{kind}", title, f"python bench/defaults.py {kind}", body)


if __name__ == "__main__":
    main()
