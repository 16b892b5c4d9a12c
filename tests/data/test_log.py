"""Logs that come in pieces: the same table as from one piece, in the smallest types that lose nothing."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.reading import columnar, lines
from recsys.data.reading.log import Log, keep_rows, widen_log
from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime, ColdItems, Fraction, HeldOutUsers, LastN
from recsys.data.weigh import FilterSettings, WeightSettings, interactions_to_table


def log_of(*pieces):
    log = Log()
    for piece in pieces:
        log.append(pd.DataFrame(piece))
    return log.table()


def test_ids_are_categories_in_id_order():
    found = log_of({"user_id": [30, 4], "item_id": ["b", "a"]}, {"user_id": [4, -7], "item_id": ["c", "a"]})
    assert found["user_id"].cat.categories.tolist() == [-7, 4, 30]
    assert found["user_id"].tolist() == [30, 4, 4, -7]
    assert found["item_id"].cat.categories.tolist() == ["a", "b", "c"]
    assert found["user_id"].cat.codes.to_numpy().tolist() == [2, 1, 1, 0]


def test_ids_that_turn_out_to_be_text_late():
    found = log_of({"user_id": [7, 10]}, {"user_id": ["7", "9"]}, {"user_id": ["007", "10"]}, {"user_id": [9, 11]})
    assert found["user_id"].tolist() == ["7", "10", "7", "9", "007", "10", "9", "11"]
    assert found["user_id"].cat.categories.tolist() == ["007", "10", "11", "7", "9"]


def test_text_that_is_all_canonical_is_integers_and_types_are_kept():
    assert log_of({"user_id": ["7", "10"]}, {"user_id": [3, 4]})["user_id"].cat.categories.dtype == np.int64
    small = pd.DataFrame({"user_id": np.array([3, 1], dtype=np.int16)})
    assert log_of(small, small)["user_id"].cat.categories.dtype == np.int16


def test_many_distinct_integers_are_kept_apart():
    rng = np.random.default_rng(1)
    ids = np.concatenate([rng.integers(-(2**63), 2**63 - 1, 40_000), np.arange(40_000) << 32, np.arange(9) - 4])
    pieces = [{"user_id": part} for part in np.array_split(np.concatenate([ids, ids[::-1]]), 7)]
    found = log_of(*pieces)
    assert np.array_equal(found["user_id"].to_numpy(), np.concatenate([ids, ids[::-1]]))
    assert np.array_equal(found["user_id"].cat.categories, np.unique(ids))


@pytest.mark.parametrize(
    ("value", "time", "types"),
    [
        ([3.5, -0.0], [5.0, 2.0**31 - 1], ("float32", "int32")),
        ([3.5, 0.1], [5.0, 2.0**31], ("float64", "float64")),
        ([2.0**24 + 1, 1e300], [5.25, 0.0], ("float64", "float64")),
    ],
)
def test_values_and_times_lose_nothing(value, time, types):
    pieces = [{"value": [v], "timestamp": [t]} for v, t in zip(value, time, strict=True)]
    found = log_of(*pieces)
    assert (found["value"].dtype, found["timestamp"].dtype) == types
    wide = widen_log(found)
    assert (wide["value"].tolist(), wide["timestamp"].tolist()) == (value, time)
    assert (wide.dtypes == np.float64).all()


def test_kept_rows_keep_their_types():
    found = log_of({"user_id": [3, 1, 3], "value": [1.0, 2.0, 3.0]})
    kept = keep_rows(found, np.array([True, False, True]))
    assert (kept["user_id"].tolist(), kept["value"].tolist()) == ([3, 3], [1.0, 3.0])
    assert kept["user_id"].cat.categories.tolist() == [1, 3]
    assert kept.index.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_pieces_of_any_size_give_the_same(kind, tmp_path, monkeypatch):
    """Refused rows in every piece; ids that are numbers until the last row; a value that is exact in no float32."""
    rng = np.random.default_rng(3)
    n = 3000
    frame = pd.DataFrame(
        {
            "user_id": [*rng.integers(0, 400, n - 1).astype(str), "x"],
            "item_id": rng.integers(0, 90, n).astype(str),
            "value": np.where(rng.random(n) < 0.02, np.nan, rng.integers(1, 9, n) / 10),
            "timestamp": 1_500_000_000 + rng.integers(0, 10**6, n),
            "event": rng.choice(["view", "buy, now"], n),
        }
    )
    path = tmp_path / f"e.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
    once = read_tables(path)
    monkeypatch.setattr(lines, "BLOCK", 777)
    monkeypatch.setattr(columnar, "ROWS", 100)
    pieces = read_tables(path)
    pd.testing.assert_frame_equal(pieces.log, once.log)
    assert (pieces.refusals.counts, pieces.refusals.rows) == (once.refusals.counts, once.refusals.rows)
    assert once.refusals.refused == frame["value"].isna().sum() > 20
    assert pieces.refusals.rows[0][1] == int(np.flatnonzero(frame["value"].isna())[0]) + (2 if kind == "csv" else 1)


def test_a_number_among_iso_times_in_a_later_piece(tmp_path, monkeypatch):
    """One piece or many: one number makes the times numbers, and the ISO times are refused."""
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,timestamp\n" + "a,b,2020-01-01\n" + "a,b,5\n" * 99)
    whole = read_tables(path)
    monkeypatch.setattr(lines, "BLOCK", 50)
    assert read_tables(path).refusals.counts == whole.refusals.counts == {"impossible time": 1}
    assert len(read_tables(path).log) == 99


@pytest.mark.parametrize("rule", [ByTime(), LastN(n=2), Fraction(), HeldOutUsers(), ColdItems()], ids=lambda r: r.rule)
@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_a_packed_log_is_split_as_the_plain_table(rule, text):
    rng = np.random.default_rng(4)
    n = 4000
    plain = pd.DataFrame({"user_id": rng.integers(0, 99, n), "item_id": rng.integers(0, 40, n)})
    plain = ("u" + plain.astype(str)).astype(object) if text else plain
    plain["value"], plain["timestamp"] = rng.integers(-2, 9, n) / 2.0, rng.integers(0, 999, n).astype(float)
    plain["event"] = rng.choice(["view", "buy", "back"], n)
    packed = log_of(plain[:1500], plain[1500:])
    settings = {
        "weighting": WeightSettings(events={"view": 0.1, "buy": 3, "back": 0}, half_life_days=0.001),
        "filters": FilterSettings(min_user_events=9, min_item_events=20, repeat=True),
    }
    one, other = split(plain, rule, **settings), split(packed, rule, **settings)
    assert one.about == other.about
    for name in ("train", "history", "test"):
        pd.testing.assert_frame_equal(
            interactions_to_table(getattr(one, name)), interactions_to_table(getattr(other, name))
        )
