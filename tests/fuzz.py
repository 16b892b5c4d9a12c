"""Files that are broken at random, and what must hold of every one of them.

``tests/data/test_fuzz.py`` runs a few thousand, ``bench/fuzz_readers.py`` a hundred thousand.
"""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.data.reading.read import read_events
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.validate import check_events, count_times, guess_time_unit
from recsys.errors import RecsysError
from recsys.schema import EVENTS, unify_ids

COLUMNS = EVENTS.required + EVENTS.optional
TOKENS = [
    b'"', b'""', b",", b";", b"\t", b"\n", b"\r\n", b"\r", b"\n\n", b"\x00", b"\xff", b"\xc3", b"\xef\xbb\xbf", b" ",
    b"nan", b"-inf", b"1e999", b"1e5", b"0x1f", b"007", b"-0", b"9223372036854775808", b"1,000", b"NULL",
    b"\xe2\x80\xa8",
    b"2020-02-30", b"2020-01-01T00:00:00+25:00", b"[", b"]", b"{", b"}", b":", b"\\", b"\\ud800", b"null", b"true",
    b'{"user_id":1}', b"\xd9\xa3", b"\xed\xa0\x80", b"a" * 200,
]  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Return clean files by name, one of each format."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 9, 30)],
            "item_id": rng.integers(0, 9, 30),
            "value": rng.integers(1, 6, 30) / 2,
            "timestamp": 1_500_000_000 + rng.integers(0, 999, 30),
            "event": rng.choice(["view", "buy, now", 'so "called"'], 30),
        }
    )
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    text = frame.to_csv(index=False).encode()
    return {
        "e.csv": text,
        "e.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "e.jsonl": "".join(json.dumps(row) + "\n" for row in frame.to_dict("records")).encode(),
        "e.csv.gz": gzip.compress(text, mtime=0),
        "e.parquet": parquet.getvalue(),
    }


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return ``data`` after one to four random accidents."""
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data) + 1))
        to = min(len(data), at + int(rng.integers(0, 40)))
        accident = rng.integers(0, 6)
        if accident == 0:
            data = data[:at] + TOKENS[rng.integers(0, len(TOKENS))] + data[at:]
        elif accident == 1:
            data = data[:at] + TOKENS[rng.integers(0, len(TOKENS))] + data[to:]
        elif accident == 2:
            data = data[:at] + data[to:]
        elif accident == 3:
            data = data[:to] + data[at:]
        elif accident == 4 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(0, 8)))]) + data[at + 1 :]
        elif rng.random() < 0.2:
            data = data[:at]
    return data


def check(path: Path) -> str:
    """Return ``read`` or ``refused``; raise AssertionError when rows are lost, or any other error as it comes."""
    reading = ReadSettings(max_refused_share=1)
    try:
        events, refusals = read_events(path, reading)
    except RecsysError as error:
        says = str(error)
    else:
        says = ""
    if says:
        assert path.name in says, f"the message does not name the file: {says}"
        return "refused"
    assert len(events) + refusals.refused == refusals.total
    if path.name != "e.parquet":
        assert refusals.total == rows_present(path), "rows were lost, or made up"
    if path.suffix in (".csv", ".tsv"):
        plain = by_hand(path)
        for column in events:
            assert events[column].astype(str).tolist() == plain[column].astype(str).tolist(), "another table"
    return "read"


def by_hand(path: Path) -> pd.DataFrame:
    """Return the accepted rows of a CSV file, read whole by Python's own reader, as text."""
    names, *rows = _rows(path)
    cells = [[row[place] if place < len(row) else "" for row in rows] for place in range(len(names))]
    wanted = {column: pd.Series(cells[names.index(column)], dtype=object) for column in COLUMNS if column in names}
    times = wanted.get("timestamp", pd.Series(dtype=object))
    found, why = check_events(pd.DataFrame(wanted), guess_time_unit(count_times(times), "here"))
    found = found[(why == 0) & np.array([len(row) == len(names) for row in rows], dtype=bool)]
    for column in ("user_id", "item_id"):
        found[column] = unify_ids(found[column])[0]
    return found.reset_index(drop=True)


def rows_present(path: Path) -> int:
    """Return the rows of a text file by the plainest way there is."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8-sig", "surrogateescape")
    if path.suffix == ".jsonl":
        return sum(bool(line.strip()) for line in io.StringIO(text, newline=None))
    return len(_rows(path)) - 1


def _rows(path: Path) -> list[list[str]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="")
    return [row for row in csv.reader(text, delimiter="\t" if path.suffix == ".tsv" else ",") if row]
