"""A small run whose titles, ids and models are everything that a page may stumble over."""

import numpy as np
import pandas as pd

from recsys import config, flow
from recsys.report import write_report

LONG = "endless " * 62 + "x" * 504
ODD = [
    "<script>alert('title')</script>",
    '"><img src=x onerror=alert(1)>',
    "שלום עולם",
    "مرحبا بالعالم",
    "千と千尋の神隠し",
    "기생충",
    LONG,
    "$x_1^2$ & \\alpha_{%} #~|`*_[a](b)",
    "{{ 7 * 7 }}{% raw %}",
    "tab\tand  spaces",
    "🎬 film",
]


def odd_run(world, place, models=None, **settings):
    """Run the world with odd titles, one odd user id and a group that nobody is in; return the run folder."""
    place.mkdir(parents=True, exist_ok=True)
    events, items, users = (t.copy() for t in (world.events, world.items, world.users))
    items["title"] = [ODD[row % len(ODD)] for row in range(len(items))]
    odd_user = {events["user_id"].iloc[0]: "<b>user</b> & שלום"}
    events["user_id"], users["user_id"] = (t["user_id"].replace(odd_user) for t in (events, users))
    users["taste"] = np.where(np.arange(len(users)) % 3, "<i>most</i>", LONG)
    for name, table in (("events", events), ("items", items), ("users", users)):
        table.to_parquet(place / f"{name}.parquet", index=False)
    raw = {
        "out": str(place / "run <b>&"),
        "data": {name: str(place / f"{name}.parquet") for name in ("events", "items", "users")},
        "models": {"als": {"rank": 4, "iterations": 3}} if models is None else models,
        "recommend": {"k": 5, "min_history": 0},
        "judge": {"metrics": ["ndcg@5", "recall@5"], "relevant": 3.5, "resamples": 100, "segments": ["taste"]},
    } | settings
    flow.run(config.parse_config(raw))
    write_report(raw["out"])
    return raw["out"]


def twelve():
    """Return eight quick models of odd names beside the baselines, and one of each other way to explain."""
    names = ["m $1$", "m_2^", "<script>m3", "ثلاثة", "四", "m" * 80]
    found = {name: {"model": "als", "rank": 2 + place, "iterations": 2} for place, name in enumerate(names)}
    return found | {"content": {}, "ease": {}, "itemknn": {}}


def table(rows):
    """Return a topk table of (user, item, rank) rows."""
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
