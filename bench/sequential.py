"""The next item on Beauty, LastFM and Yelp: models of order beside published rows and beside EASE.

    python bench/sequential.py [Beauty LastFM Yelp]     some minutes each; writes its section of bench/RESULTS.md

Protocol of S3-Rec (Zhou et al., CIKM 2020) and of those after it: the last item of each user is the test, the one
before it the validation, and every item that is not in the user's train part is ranked. Settings and the weights of
the blend are chosen by NDCG@10 of the validation items, on the same ladders for all sets. Then test is looked at once.
As in the published rows, models are fitted without the validation items, which are part of the history that they score;
the last columns have the same models fitted with them, as one would for use. A user whose test item is in their
history, as happens in Yelp, counts as 0. ``sasrec`` (extra ``deep``) is too slow for a ladder and a second fit: it
has its defaults, which were chosen by the validation items of Beauty.

The data is found by RECSYS_DATA, or ../shared/data.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from results import table, write_section

from recsys.data.weigh import interactions_from_table
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.models import build
from recsys.models.combining.trial import climb
from recsys.ranking.rank import recommend
from recsys.types import IdMap, Split

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data")) / "sequences"
SETS = ("Beauty", "LastFM", "Yelp")
METRICS = ("hit_rate@10", "ndcg@10")
PUBLISHED = {
    "PopRec": ((0.0152, 0.0068), (0.0440, 0.0203), (0.0099, 0.0051)),
    "SASRec (S3-Rec's)": ((0.0605, 0.0318), (0.0688, 0.0390), (0.0274, 0.0136)),
    "S3-Rec": ((0.0647, 0.0327), (0.0743, 0.0427), (0.0341, 0.0168)),
    "DuoRec": ((0.0845, 0.0443), None, None),
    "SASRec, sampled softmax": ((0.0921, 0.0531), None, None),
    "eSASRec": ((0.0928, 0.0523), None, None),
}
"""Hit rate and NDCG at 10 on Beauty, LastFM and Yelp."""

MEMORY_MB = 8192
LADDERS = {
    "popular": {},
    "ease": {"reg": (50.0, 200.0, 800.0)},
    "transitions": {
        "window": (3, 10, 30),
        "backward": (0.0, 0.25, 0.5, 1.0),
        "source_power": (0.3, 0.5, 0.7),
        "target_power": (0.0, 0.15, 0.25, 0.4),
        "decay": (0.35, 0.5, 0.65, 0.8, 0.9, 1.0),
    },
    "next_item": {"decays": ((0.5,), (0.65,), (0.8,), (0.9,), (0.97,)), "reg": (3.0, 10.0, 30.0, 100.0, 300.0)},
}
"""Kind -> parameter -> rungs. A search starts in the middle and climbs while the validation value rises."""

SHARES = (0.2, 0.4, 0.6, 0.8)
"""Weights of ``transitions`` in a blend with ``next_item``."""


def load(name):
    """Return a table of user_id, item_id, timestamp (the place in the sequence) and the places from the end."""
    rows = []
    with (DATA / f"{name}.txt").open() as lines:
        for line in lines:
            user, *items = map(int, line.split())
            rows += [(user, item, place, len(items) - 1 - place) for place, item in enumerate(items)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "from_end"]).assign(value=np.float32(1))


def split_at(log, target, fitted_until):
    """Return the split whose test is the like at ``target`` places from the end.

    History is all before it, and train all likes that are more than ``fitted_until`` places from the end.
    """
    items = IdMap.from_ids(log["item_id"])
    # Of a pair that a user repeats, train and history keep the latest event.
    train, history = (
        interactions_from_table(
            log[log["from_end"] > last].drop_duplicates(["user_id", "item_id"], keep="last"), items=items
        )
        for last in (fitted_until, target)
    )
    test = interactions_from_table(log[log["from_end"] == target], items=items)
    return Split(train, history, test, "last")


def judge(model, split):
    """Return the per-user table of a fitted model."""
    truth = Truth.from_split(split, EvaluationSettings(metrics=METRICS), exclude_seen=False)
    return evaluate(recommend(model, split.histories(), 10), truth, name="model").per_user


def settings_of(kind, position):
    """Return the parameters at a position on the ladders of a kind."""
    return {name: rungs[rung] for (name, rungs), rung in zip(LADDERS[kind].items(), position, strict=True)}


def fit(kind, params, split):
    """Return a fitted model, and the CPU seconds of its fit."""
    if kind in ("ease", "next_item"):
        params = params | {"memory_mb": MEMORY_MB}
    begin = os.times()
    model = build(kind, params).fit(split.train)
    end = os.times()
    return model, end.user + end.system - begin.user - begin.system


def choose(kind, validation):
    """Return the parameters with the best NDCG@10 on the validation items, and that value."""

    def value(position):
        model, seconds = fit(kind, settings_of(kind, position), validation)
        ndcg = float(judge(model, validation)["ndcg@10"].mean())
        print(f"  {kind} {settings_of(kind, position)}: {ndcg:.4f}, {seconds:.1f} CPU s", flush=True)
        values[position] = ndcg
        return ndcg

    values = {}
    lengths = [len(rungs) for rungs in LADDERS[kind].values()]
    position = climb(tuple(length // 2 for length in lengths), lengths, value)
    return settings_of(kind, position), values.get(position) or value(position)


def measure(name):
    """Return rows of the table of one set: model, metrics with intervals, CPU seconds of the last fit, settings."""
    print(name, flush=True)
    log = load(name)
    validation, test, refitted = split_at(log, 1, 1), split_at(log, 0, 1), split_at(log, 0, 0)
    chosen = {kind: choose(kind, validation) for kind in LADDERS}
    parts = {kind: chosen[kind][0] for kind in ("transitions", "next_item")}
    parts["next_item"] = parts["next_item"] | {"memory_mb": MEMORY_MB}
    blends = {share: {"transitions": share, "next_item": 1 - share} for share in SHARES}
    fitted = build("blend", {"parts": parts, "weights": blends[SHARES[0]]}).fit(validation.train)

    def blend_value(share):
        fitted.weights = blends[share]
        return float(judge(fitted, validation)["ndcg@10"].mean())

    share = max(SHARES, key=blend_value)
    settings = {kind: (kind, params) for kind, (params, _) in chosen.items()}
    settings["sasrec"] = ("sasrec", {})
    settings["blend of both"] = ("blend", {"parts": parts, "weights": blends[share]})
    rows = []
    for label, (kind, params) in settings.items():
        model, seconds = fit(kind, params, test)
        per_user = judge(model, test)
        cells = ["{:.4f} [{:.4f}, {:.4f}]".format(*mean_ci(per_user[metric].to_numpy())) for metric in METRICS]
        if kind == "sasrec":
            cells += ["", ""]
        else:
            again = judge(fit(kind, params, refitted)[0], refitted)
            cells += [f"{again[metric].mean():.4f}" for metric in METRICS]
        words = ", ".join(f"{key} {setting}" for key, setting in params.get("weights", params).items())
        rows.append([f"**{label}**", *cells, f"{seconds:.1f}", words])
    return rows


def main():
    """Measure the sets of the command line, all by default, and write."""
    names = sys.argv[1:] or list(SETS)
    body = ""
    for name in names:
        published = {model: row[SETS.index(name)] for model, row in PUBLISHED.items()}
        rows = [[model, *(f"{value:.4f}" for value in row), "", "", "", ""] for model, row in published.items() if row]
        rows += measure(name)
        heads = [
            "model",
            *METRICS,
            *(f"{metric}, refitted" for metric in METRICS),
            "fit, CPU s",
            "chosen on validation",
        ]
        body += f"{name}:\n\n" + table(heads, rows) + "\n\n"
    write_section(
        "sequential", "The next item: models of order", " ".join(["python bench/sequential.py", *names]), body
    )


if __name__ == "__main__":
    main()
