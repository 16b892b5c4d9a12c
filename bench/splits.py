"""Is a split the same whatever happens to the rows: all five rules on ten million made-up events.

python bench/splits.py [MILLION]        default 10

Each rule splits the log three times: as it lies; again in the same session, after all that was kept was let go and the
rows were shuffled into other partitions; and in a new process with other partitions again. A side is the number of
its pairs and a sum of 64-bit hashes over (user, item, value, time): the same sums, the same pairs. What train and test
share is counted by a join.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from results import table, write_section

from recsys.config import SparkSettings
from recsys.data.splitting.strategies import AnyRule
from recsys.data.synthetic import Recipe, generate_world
from recsys.data.weigh import FilterSettings, WeightSettings
from recsys.spark.data.split import split
from recsys.spark.session import session

RULES = ("time", "last", "fraction", "users", "items")
KEYS = ("user_id", "item_id")


def main(million: float) -> None:
    """Split and compare, a rule a process and a second process for the restart."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        events = int(million * 1e6)
        generate_world(Recipe(events // 100, 27_000, events, 0, 4.0), Path(place), "parquet")
        for name in RULES:
            first, again = child(name, place, "twice", 24)
            (restarted,) = child(name, place, "once", 7)
            sides = ", ".join(f"{side} {own['pairs']:,}" for side, own in first["sides"].items())
            same = ["the same" if other["sides"] == first["sides"] else "OTHER" for other in (again, restarted)]
            rows.append([name, sides, *same, f"{first['shared']:,}"])
            print(rows[-1], flush=True)
    heads = ["rule", "pairs", "let go, shuffled, other partitions", "new process", "pairs in train and test"]
    body = f"{events:,} made-up events, by default settings of each rule.\n\n{table(heads, rows)}"
    write_section("splits", "A split is the same again", f"python bench/splits.py {million:g}", body)


def child(rule: str, place: str, how: str, partitions: int) -> list[dict[str, Any]]:
    """Return what a process of its own finds."""
    words = [sys.executable, __file__, "child", rule, place, how, str(partitions)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def look(rule: str, place: Path, how: str, partitions: int) -> list[dict[str, Any]]:
    """Split once or twice in this process."""
    spark = session(SparkSettings(driver_memory="6g", shuffle_partitions=partitions))
    events = spark.read.parquet(str(place / "events.parquet"))
    found = [sides(events, rule, place / f"{rule}-{how}-0")]
    if how == "twice":
        spark.catalog.clearCache()
        found.append(sides(events.repartition(partitions + 37, F.rand(1)), rule, place / f"{rule}-{how}-1"))
    spark.stop()
    return found


def sides(events: DataFrame, rule: str, work: Path) -> dict[str, Any]:
    """Return pairs and hash sum of each side, and how many pairs train and test share."""
    chosen: AnyRule = TypeAdapter(AnyRule).validate_python({"rule": rule})
    parts = split(events, chosen, weighting=WeightSettings(), filters=FilterSettings(), items=None, work=work).by_id
    told = {}
    for side, pairs in parts.items():
        hashed = F.xxhash64(*sorted(pairs.columns)).cast("decimal(38,0)")
        row = pairs.agg(F.count(F.lit(1)), F.sum(hashed)).first()
        told[side] = {"pairs": row[0], "hash": str(row[1])}
    shared = parts["train"].join(parts["test"], [*KEYS, "timestamp"]).count()
    return {"sides": told, "shared": shared}


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _, _, rule, place, how, partitions = sys.argv
        print(json.dumps(look(rule, Path(place), how, int(partitions))))
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 10)
