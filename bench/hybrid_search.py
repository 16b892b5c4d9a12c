"""The search of `hybrid` beside one that tries every setting of every kind: quality and CPU seconds.

    python bench/hybrid_search.py [LOG …]           writes a section of bench/RESULTS.md for each log
    python bench/hybrid_search.py --seconds LOG     only fits the hybrid, on all cores, which should be idle, and
                                                    writes another section: its seconds by the clock

LOG is films-400, films-1000, shop (400,000 events, 3,700 items), movielens, or long-shop (600,000 events, 36,000
items, for --seconds alone, as it has too many settings to try all); without any, the first four.

Both searches use the same trial, the same ladders and the same choice of weights. That of the hybrid has its default
time limit, the exhaustive one none. The exhaustive one leaves out nothing because it promises little, and tries all
combinations of the rungs of a kind, where there are at most MOST of them. Of a kind with more, it tries every rung of
every ladder in turn, round after round, until no rung of any ladder is better. Logs are split by time; quality is that
of the blend, on the trial that both searches see, and on the test part, which neither sees. The data is found by
RECSYS_DATA, or ../shared/data.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from pathlib import Path
from unittest import mock

from results import table, write_section

from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime
from recsys.data.synthetic import film_world
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.features.encoding import encode_features
from recsys.models import build
from recsys.models.combining import search
from recsys.models.combining.trial import Ladders, Position
from recsys.ranking.rank import recommend

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))

LOGS = {
    "films-400": lambda: film_world(users=400, items=300, events=12_000),
    "films-1000": lambda: film_world(users=1000, items=600, events=40_000),
    "shop": lambda: film_world(items=3700),
    "movielens": lambda: read_tables(DATA / "ml-latest-small"),
    "long-shop": lambda: film_world(users=43_000, items=36_000, events=600_000),
}
SEARCHED = [name for name in LOGS if name != "long-shop"]
"""Logs small enough for the exhaustive search."""

METRICS = ("ndcg@10", "ndcg@100")

MOST = 1_000
"""The largest number of combinations of rungs of a kind that are all tried."""


def try_all(
    start: Position,
    lengths: Sequence[int],
    value: Callable[[Position], float],
    rounds: Sequence[Sequence[Ladders]] | None = None,
    **_: float,
) -> Position:
    """Return the position with the highest value, in place of ``trial.climb``.

    Args:
        start, lengths, value: as for ``climb``.
        rounds: the first one has the ladders to search. None: all ladders.
    """
    axes = range(len(lengths)) if rounds is None else sorted({axis for ladders in rounds[0] for axis in ladders})
    if prod(lengths[axis] for axis in axes) <= MOST:
        # The first ladders need no other fit, so they change fastest.
        ranges = [range(length) if axis in axes else (start[axis],) for axis, length in enumerate(lengths)]
        return max((position[::-1] for position in product(*ranges[::-1])), key=value)
    position = start
    while True:
        before_round = position
        for axis in axes:
            rungs = [(*position[:axis], rung, *position[axis + 1 :]) for rung in range(lengths[axis])]
            position = max(rungs, key=value)
        if position == before_round:
            return position


@contextlib.contextmanager
def exhaustive():
    """Let hybrids search exhaustively."""
    with mock.patch.object(search, "climb", try_all):
        yield


def fit(parts, features, *, tries_all: bool):
    """Return a fitted hybrid and its CPU seconds."""
    limit = {"minutes": 1e6} if tries_all else {}
    model = build("hybrid", {"hold_out": "latest", "placebo": False} | limit)
    began = time.process_time()
    with exhaustive() if tries_all else contextlib.nullcontext():
        model.fit(parts.train, features)
    return model, time.process_time() - began


def judge(model, parts):
    """Return the metrics of each user of test."""
    lists = recommend(model, parts.histories(), 100)
    return evaluate(lists, Truth.from_split(parts, EvaluationSettings(metrics=METRICS)), name="hybrid").per_user


def read(name: str):
    """Return the split of a log and the features of its items."""
    tables = LOGS[name]()
    parts = split(tables.events, ByTime(), items=tables.items)
    return parts, encode_features(tables.items, "item_id", parts.train.items)


def rows_of(name: str) -> tuple[list[list[str]], str]:
    """Return the lines of the table for a log, and what the two searches chose."""
    parts, features = read(name)
    fitted = {tries_all: fit(parts, features, tries_all=tries_all) for tries_all in (False, True)}
    judged = {tries_all: judge(model, parts) for tries_all, (model, _) in fitted.items()}
    lines = []
    for tries_all, (model, seconds) in fitted.items():
        settings = sum(part["tried"] for part in model.record["parts"].values())
        means = [model.record["ablation"]["hybrid"], *(judged[tries_all][metric].mean() for metric in METRICS)]
        search_name = "exhaustive" if tries_all else "hybrid's"
        lines.append([f"{name}, {search_name}", f"{settings:,}", f"{seconds:,.0f}", *(f"{mean:.4f}" for mean in means)])
    (quick, _), (slow, _) = fitted[False], fitted[True]
    ratios = [
        quick.record["ablation"]["hybrid"] / slow.record["ablation"]["hybrid"],
        *(judged[False][metric].mean() / judged[True][metric].mean() for metric in METRICS),
    ]
    lines.append([f"{name}, ratio", "", f"{fitted[False][1] / fitted[True][1]:.3f}", *(f"{x:.4f}" for x in ratios)])
    differences = [
        "{} {:+.4f} [{:+.4f}, {:+.4f}]".format(metric, *mean_ci(judged[False][metric] - judged[True][metric]))
        for metric in METRICS
    ]
    chosen = "; ".join(
        f"{kind} {part['ndcg@100']:.4f} against {slow.record['parts'][kind]['ndcg@100']:.4f}"
        for kind, part in quick.record["parts"].items()
    )
    return lines, (
        f"{name}: {len(parts.train.users):,} × {len(parts.train.items):,}, {len(parts.train):,} pairs; the search of"
        " the hybrid minus the exhaustive one on"
        f" {len(judged[True]):,} users of test: {', '.join(differences)}. Weights"
        f" {quick.record['weights']} against {slow.record['weights']}. Each kind on the trial: {chosen}."
    )


def measure_seconds(name: str) -> None:
    """Fit a hybrid with its defaults as a run does, and write the section of its seconds."""
    parts, features = read(name)
    began = time.monotonic(), time.process_time()
    model = build("hybrid", {"hold_out": "latest"}).fit(parts.train, features)
    seconds, cpu_seconds = time.monotonic() - began[0], time.process_time() - began[1]
    per_user = judge(model, parts)
    tried = sum(part["tried"] for part in model.record["parts"].values())
    body = (
        f"{name}: {len(parts.train.users):,} × {len(parts.train.items):,}, {len(parts.train):,} pairs. A fit of"
        f" `hybrid` with its defaults, with trials, {tried} settings and all fits of the chosen members, in a new"
        f" process whose kernels were compiled before: {seconds:.0f} s by the clock, {cpu_seconds:.0f} CPU s. NDCG@100"
        f" on the trial {model.record['ablation']['hybrid']:.4f}; on {len(per_user):,} users of test NDCG@10"
        f" {per_user['ndcg@10'].mean():.4f}, NDCG@100 {per_user['ndcg@100'].mean():.4f}. Weights:"
        f" {model.record['weights']}."
    )
    command = f"python bench/hybrid_search.py --seconds {name}"
    write_section(f"hybrid-seconds-{name}", f"The seconds of a hybrid: {name}", command, body)


def main() -> None:
    """Measure and write a section."""
    if sys.argv[1:2] == ["--seconds"]:
        measure_seconds(sys.argv[2])
        return
    heads = [
        "log, search",
        "settings tried",
        "CPU s",
        "ndcg@100 on the trial",
        *(f"{name}, test" for name in METRICS),
    ]
    first = (
        "The CPU seconds of the first search include those of loading or compiling the kernels. The table is about"
        " whole blends: where the weights differ, it says more of their choice than of the search of settings, which"
        " the rows of each kind below compare."
    )
    for name in sys.argv[1:] or SEARCHED:
        lines, note = rows_of(name)
        body = "\n\n".join([table(heads, lines), first, note])
        title = f"The search of a hybrid beside an exhaustive one: {name}"
        write_section(f"hybrid-search-{name}", title, f"python bench/hybrid_search.py {name}", body)


if __name__ == "__main__":
    main()
