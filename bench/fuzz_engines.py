"""Odd files and odd logs through Spark, against the local engine and against the equations that hold.

    python bench/fuzz_engines.py files 300   both engines read a file: same rows, refusals and ids, or both refuse
    python bench/fuzz_engines.py als 500     the Spark trainer: finite factors that solve them, or one sentence

A third argument is the first seed, so that one file can be read again. SIGTERM ends the set after the one
that is tried, and the section says how many were.
"""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from results import table, write_section
from scipy.sparse import coo_array

from recsys.config import DataSettings, SparkSettings
from recsys.data.reading.read import read_tables
from recsys.errors import RecsysError
from recsys.spark.data.read import read_tables as read_on_spark
from recsys.spark.errors import spark_errors_explained
from recsys.spark.session import session
from recsys.spark.training.als import fit_als
from recsys.spark.training.parameters import SparkALSParameters

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cluster import SHORT_LIVED
from fuzz import mutate
from random_logs import backward_error, random_log, require_one_sentence

MAX_ITERATIONS = 2
"""The most sweeps of a training, but for every :data:`LONG_EVERY`-th seed, which has up to :data:`MAX_LONG_ITERATIONS`.

On the executors a sweep is four Spark jobs, however small the log is. The equations of the users hold after any number
of sweeps.
"""
MAX_LONG_ITERATIONS = 5
LONG_EVERY = 10

QUIET = {"spark.ui.enabled": "false", "spark.log.level": "OFF"}

SMALL_JOBS = QUIET | {
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.driver.extraJavaOptions": f"{SHORT_LIVED} -XX:+UseSerialGC",
}
"""Settings with which Spark spends the least on a job of a few rows."""

SESSIONS = {
    "files": ("local[2]", QUIET | {"spark.sql.shuffle.partitions": "2"}),
    # The trainer cuts a log into four blocks per core, so one core has blocks to sum. Sums of several tasks are those
    # of tests/spark/test_spark_trainer.py.
    "als": ("local[1]", SMALL_JOBS),
}
"""Kind -> the master and the settings of its session."""

QUOTED_LINE_END = "line end"
"""What Spark says, and the local engine does not, of a quoted field with a line end (docs/data.md)."""


def main(kind: str, count: str, first: str = "0") -> int:
    """Try ``count`` files or logs, print each fault with its seed, and return the number of faults."""
    master, conf = SESSIONS[kind]
    spark = session(SparkSettings(master=master, driver_memory="2g", conf=conf))
    outcomes: Counter[tuple[str, str]] = Counter()
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    faults = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(int(first), int(first) + int(count)):
            place = Path(folder, "place")
            place.mkdir()
            label = ""
            try:
                label, outcome = KINDS[kind](spark, seed, place)
            except Exception as error:
                faults += 1
                outcome = "fault"
                print(f"{kind} {seed} {label}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            outcomes[label, outcome] += 1
            shutil.rmtree(place)
            if sum(outcomes.values()) % 100 == 0:
                print(f"{sum(outcomes.values()):,} after {time.monotonic() - start:.0f} s", file=sys.stderr)
            if stop_signals:
                break
    spark.stop()
    labels = sorted({label for label, _ in outcomes})
    rows = [[label, *(f"{outcomes[label, outcome]:,}" for outcome in ("done", "refused"))] for label in labels]
    head, title = TITLES[kind]
    tried = sum(outcomes.values())
    body = f"{tried:,} tried, {faults} faults.\n\n" + table([head, "done", "refused"], rows)
    print(f"{body}\n{time.monotonic() - start:.0f} s", file=sys.stderr)
    write_section(f"fuzz_spark_{kind}", title, f"python bench/fuzz_engines.py {kind} {tried}", body)
    return faults


# ------------------------------------------------------------------------------------------------ files


def compare_reading(spark: Any, seed: int, place: Path) -> tuple[str, str]:
    """Read one odd file or folder with both engines; raise AssertionError where they differ."""
    rng = np.random.default_rng(seed)
    label = str(rng.choice(["csv", "csv", "csv folder", "json lines", "parquet", "parquet folder"]))
    source, settings = WRITERS[label](rng, place / "in")
    data = DataSettings(events=str(source), max_refused_share=0.95, **settings)
    local, local_error = _outcome(lambda: read_tables(source, reading=data.reading))

    def collect() -> Any:
        # Executors meet a damaged page only when they read it.
        with spark_errors_explained(str(place)):
            large = read_on_spark(spark, data, place / "work")
            return large.refusals, large.events.toPandas()

    large, large_error = _outcome(collect)
    if large_error and QUOTED_LINE_END in large_error and not local_error:
        return label, "refused"
    assert bool(local_error) == bool(large_error), f"local: {local_error or 'read'}\nSpark: {large_error or 'read'}"
    if local_error:
        return label, "refused"
    refusals, events = large
    assert local.refusals.total == refusals.total, (local.refusals.total, refusals.total)
    assert local.refusals.counts == refusals.counts, (local.refusals.counts, refusals.counts)
    rows = [_rows(local.events), _rows(events)]
    assert rows[0] == rows[1], f"rows differ: {sorted(set(rows[0]) ^ set(rows[1]))[:6]}"
    return label, "done"


def _outcome(read: Any) -> tuple[Any, str]:
    """Return (tables, "") or (None, the message of the refusal). Any other error is passed on."""
    try:
        return read(), ""
    except RecsysError as error:
        if error.exit_code != 2:
            raise
        return None, str(error)


def _rows(frame: pd.DataFrame) -> list[str]:
    columns = sorted(frame.columns)
    return sorted(map(repr, frame[columns].astype(object).itertuples(index=False, name=None)))


def _frame(rng: np.random.Generator) -> pd.DataFrame:
    """Return a log of which some ids, values and times are odd."""
    size = int(rng.integers(1, 120))
    users = rng.choice(
        ["u1", "u2", "7", "007", "7.0", " a", "a ", "", "NULL", "é", 'say "x"', "a,b", "x;y", "-0"], size
    )
    values = rng.choice(["1", "2.5", "0", "-1", "1e3", "+4", "nan", "inf", "", "1,5", " 3 ", "0x1f"], size)
    times = 1_500_000_000 + rng.integers(0, 10**6, size)
    frame = {"user_id": users, "item_id": rng.integers(-3, 40, size).astype(str), "value": values, "timestamp": times}
    if rng.random() < 0.6:
        frame["user_id"] = rng.integers(0, 20, size).astype(str)
    if rng.random() < 0.7:
        frame["value"] = rng.integers(1, 6, size).astype(str)
    if rng.random() < 0.3:
        dates = pd.to_datetime(times, unit="s")
        frame["timestamp"] = dates.strftime(str(rng.choice(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M"])))
    if rng.random() < 0.3:
        frame["event"] = rng.choice(["view", "buy", ""], size)
    table = pd.DataFrame(frame)
    return table[list(rng.permutation(table.columns))]


def _write_text(rng: np.random.Generator, path: Path, frame: pd.DataFrame, delimiter: str, odd: bool) -> Path:
    quoting = int(rng.choice([0, 1]))
    text = frame.to_csv(index=False, sep=delimiter[0], quoting=quoting, lineterminator=str(rng.choice(["\n", "\r\n"])))
    data = text.encode()
    if rng.random() < 0.1:
        data = b"\xef\xbb\xbf" + data
    if rng.random() < 0.1:
        data = data.rstrip()
    if odd:
        data = mutate(data, rng)
    compression = str(rng.choice(["", "", "", ".gz", ".zst"]))
    if compression == ".gz":
        data = gzip.compress(data, mtime=0)
    elif compression == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path = path.with_name(path.name + compression)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def write_csv(rng: np.random.Generator, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write one file of delimited text."""
    delimiter = str(rng.choice([",", ",", ";", "\t", "|"]))
    name = str(rng.choice(["e.csv", "e v.csv", "e[1].csv", "é.csv", "{a}.csv"]))
    path = _write_text(rng, folder / name, _frame(rng), delimiter, rng.random() < 0.6)
    return path, {} if delimiter == "," else {"delimiter": delimiter}


def write_csv_folder(rng: np.random.Generator, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write a folder of parts, whose columns stand in any order."""
    for number in range(int(rng.integers(1, 5))):
        _write_text(rng, folder / f"part-{number}.csv", _frame(rng), ",", rng.random() < 0.2)
    if rng.random() < 0.2:
        (folder / "_SUCCESS").write_text("")
    if rng.random() < 0.2:
        (folder / ".hidden").write_text("x")
    return folder, {}


def write_json_lines(rng: np.random.Generator, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write one file of JSON lines, some values of which have another type than the others."""
    lines = []
    for row in _frame(rng).to_dict("records"):
        odd: list[Any] = [None, 1, 7.0, 7.5, True, "", [], {"a": 1}, "x", 2**63, -1]
        if rng.random() < 0.1:
            row[str(rng.choice(list(row)))] = odd[int(rng.integers(0, len(odd)))]
        lines.append(json.dumps(row, ensure_ascii=bool(rng.random() < 0.5)))
    data = "\n".join(lines).encode()
    if rng.random() < 0.4:
        data = mutate(data, rng)
    folder.mkdir(parents=True)
    path = folder / "e.jsonl"
    path.write_bytes(data)
    return path, {}


def _arrow_table(rng: np.random.Generator) -> pa.Table:
    """Return a log whose columns have any of the types that a Parquet file may have."""
    size = int(rng.integers(1, 60))
    whole = rng.integers(0, 30, size)
    ids: list[Any] = [
        pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64(),
        pa.string(), pa.large_string(), pa.decimal128(24, 0), pa.decimal128(24, 2), pa.bool_(), pa.binary(),
        pa.date32(), pa.dictionary(pa.int32(), pa.string()),
    ]  # fmt: skip
    numbers: list[Any] = [
        pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(24, 2), pa.bool_(), pa.string(),
    ]  # fmt: skip
    times: list[Any] = [
        pa.int64(), pa.float64(), pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"),
        pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin"), pa.date32(), pa.string(),
    ]  # fmt: skip
    columns = {
        "user_id": _array(whole, ids[int(rng.integers(0, len(ids)))], rng),
        "item_id": _array(rng.integers(0, 9, size), ids[int(rng.integers(0, len(ids)))], rng),
    }
    if rng.random() < 0.7:
        columns["value"] = _array(rng.integers(0, 2, size), numbers[int(rng.integers(0, len(numbers)))], rng)
    if rng.random() < 0.7:
        kind = times[int(rng.integers(0, len(times)))]
        seconds = 1_500_000_000 + rng.integers(0, 10**6, size)
        if pa.types.is_timestamp(kind):
            unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
            columns["timestamp"] = pa.array(seconds * unit, pa.int64()).cast(kind)
        elif pa.types.is_date(kind):
            columns["timestamp"] = pa.array(17_000 + whole, pa.int32()).cast(kind)
        else:
            columns["timestamp"] = _array(seconds, kind, rng)
    return pa.table(columns)


def _array(numbers: np.ndarray, kind: Any, rng: np.random.Generator) -> pa.Array:
    """Return whole numbers as an array of a type, some of them missing now and then."""
    missing = (rng.random(len(numbers)) < 0.1) & (rng.random() < 0.2)
    values = pa.array(numbers, pa.int64(), mask=missing)
    if pa.types.is_dictionary(kind):
        return values.cast(pa.string()).dictionary_encode()
    if pa.types.is_date(kind):
        return values.cast(pa.int32()).cast(kind)
    if pa.types.is_binary(kind):
        return values.cast(pa.string()).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array(numbers % 2 == 0, mask=missing)
    return values.cast(kind)


def write_parquet(rng: np.random.Generator, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write one Parquet file, damaged now and then."""
    folder.mkdir(parents=True)
    path = folder / "e.parquet"
    pq.write_table(_arrow_table(rng), path, compression=str(rng.choice(["snappy", "gzip", "zstd", "none"])))
    if rng.random() < 0.2:
        path.write_bytes(mutate(path.read_bytes(), rng))
    return path, {}


def write_parquet_folder(rng: np.random.Generator, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write a folder of Parquet parts, whose types and columns may differ."""
    folder.mkdir(parents=True)
    first = _arrow_table(rng)
    for number in range(int(rng.integers(1, 4))):
        part = first if rng.random() < 0.6 else _arrow_table(rng)
        pq.write_table(part, folder / f"part-{number}.parquet")
    return folder, {}


WRITERS = {
    "csv": write_csv,
    "csv folder": write_csv_folder,
    "json lines": write_json_lines,
    "parquet": write_parquet,
    "parquet folder": write_parquet_folder,
}

# -------------------------------------------------------------------------------------------------- als


def solve_random_log(spark: Any, seed: int, place: Path) -> tuple[str, str]:
    """Train on one random log; raise AssertionError unless it is solved, or refused in one sentence."""
    log = random_log(seed)
    label = f"rank {log.params['rank']}"
    most_sweeps = MAX_ITERATIONS if seed % LONG_EVERY else MAX_LONG_ITERATIONS
    params = log.params | {"iterations": min(log.params["iterations"], most_sweeps)}
    if seed % 2:
        # Other seeds train on the driver, because their logs are small.
        params["driver_pairs"] = 0
    pairs = coo_array(log.matrix)
    columns = {"user": pairs.row.astype(np.int32), "item": pairs.col.astype(np.int32), "value": pairs.data}
    frame = spark.createDataFrame(pd.DataFrame(columns), "user int, item int, value float")
    try:
        model = fit_als(frame, log.matrix.shape[1], SparkALSParameters(**params), place / "als")
        users = model.users.toPandas()
    except RecsysError as error:
        require_one_sentence(error, log)
        return label, "refused"
    y = np.nan_to_num(model.items).astype(np.float64)
    x = np.zeros((log.matrix.shape[0], params["rank"]))
    if len(users):
        x[users["user"]] = np.stack(users["features"])
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
    assert np.isfinite(model.curve.losses).all()
    if params["reg"] > 1e-5:
        error = backward_error(x, y, log.matrix, log.objective)
        assert error < 1e-5, f"users do not solve their equations: {error:.1e} {log.params}"
    return label, "done"


KINDS = {"files": compare_reading, "als": solve_random_log}
TITLES = {
    "files": ("what", "Odd files, read by both engines"),
    "als": ("model", "Random logs on the Spark trainer"),
}


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
