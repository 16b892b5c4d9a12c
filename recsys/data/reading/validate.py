"""What makes a row of events acceptable: one set of rules, which both engines run on batches of rows.

A batch is a frame with the canonical columns as the reader found them: text, or typed columns of Parquet. A row
gets the first reason that applies, in the order of :data:`REASONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.schema import EVENT, ITEM, TIME, USER, VALUE, is_category

REASONS = (
    "",
    "wrong column count",
    "undecodable bytes",
    "missing user id",
    "missing item id",
    "unparsable value",
    "non-finite value",
    "impossible time",
    "duplicate id",
    "not a JSON object",
    "id is no text or integer",
)
"""Why a row is refused; position 0 means that it is not."""

TimeUnit = Literal["s", "ms", "us", "iso"]
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
LATEST = 4_102_444_800.0
"""2100-01-01, the end of plausible times; they start in 1970."""

NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
NOT_FINITE = r"(?i:\s*[+-]?(nan|inf|infinity)\s*)"


def reason_code(reason: str) -> int:
    """Return the position of a reason in :data:`REASONS`."""
    return REASONS.index(reason)


def check_events(batch: pd.DataFrame, unit: TimeUnit | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Return (events, why): the batch with canonical dtypes, and int8[n] positions in REASONS.

    Ids keep their form; text ids stay text here (``schema.unify_ids`` decides over whole tables). ``value`` is
    float64, 1 without the column; ``timestamp`` is float64 seconds since 1970. Refused rows hold fillers.
    """
    why = np.zeros(len(batch), dtype=np.int8)
    columns = {}
    for column in (USER, ITEM):
        columns[column] = batch[column]
        refuse_rows(why, is_missing(batch[column]), f"missing {column.removesuffix('_id')} id")
        refuse_rows(why, is_undecodable(batch[column]), "undecodable bytes")
    if VALUE in batch:
        value, spelt_out = parse_numbers(batch[VALUE])
        refuse_rows(why, np.isnan(value) & ~spelt_out, "unparsable value")
        refuse_rows(why, ~np.isfinite(value), "non-finite value")
        columns[VALUE] = pd.Series(value, index=batch.index)
    else:
        columns[VALUE] = pd.Series(1.0, index=batch.index)
    if TIME in batch:
        seconds = parse_times(batch[TIME], unit or "s")
        with np.errstate(invalid="ignore"):
            refuse_rows(why, ~((seconds >= 0) & (seconds < LATEST)), "impossible time")
        columns[TIME] = pd.Series(seconds, index=batch.index)
    if EVENT in batch:
        kinds = batch[EVENT]
        whole = is_category(kinds) and not kinds.hasnans
        columns[EVENT] = kinds if whole else kinds.astype(object).where(kinds.notna(), "").astype(str).astype(object)
    return pd.DataFrame(columns), why


def refuse_rows(why: np.ndarray, rows: np.ndarray, reason: str) -> None:
    """Give ``rows`` the reason, unless they have an earlier one."""
    now = reason_code(reason)
    why[rows & ((why == 0) | (why > now))] = now


def is_missing(ids: pd.Series) -> np.ndarray:
    """Return bool[n]: null, or text that is empty or blank. Other blanks belong to the id: "a " is not "a"."""
    if is_category(ids):
        return _by_category(is_missing, ids)
    absent = ids.isna().to_numpy()
    if ids.dtype == object:
        absent |= (ids.str.strip() == "").to_numpy(dtype=bool, na_value=False)
    return absent


def is_undecodable(text: pd.Series) -> np.ndarray:
    """Return bool[n]: the reader met bytes here that are not of the file's encoding.

    The local reader keeps them as lone surrogates, Spark as U+FFFD.
    """
    if is_category(text):
        return _by_category(is_undecodable, text)
    if text.dtype != object:
        return np.zeros(len(text), dtype=bool)
    return text.str.contains("[\ufffd\udc80-\udcff]", regex=True).to_numpy(dtype=bool, na_value=False)


def _by_category(test: Callable[[pd.Series], np.ndarray], column: pd.Series) -> np.ndarray:
    """Return what ``test`` says of each row, asked once for each distinct text (and for null, code -1)."""
    distinct = pd.Series([*column.cat.categories, None], dtype=object)
    return test(distinct)[column.cat.codes.to_numpy()]


def parse_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return (float64[n], bool[n]): NaN where it is no number; True where NaN or infinity is spelt out."""
    if is_category(column):
        column = column.astype(object)
    if column.dtype != object:
        value = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return value, np.isnan(value) & column.notna().to_numpy()
    spelt_out = column.str.fullmatch(NOT_FINITE).to_numpy(dtype=bool, na_value=False)
    fits = column.str.fullmatch(NUMBER).to_numpy(dtype=bool, na_value=False)
    value = np.full(len(column), np.nan)
    value[fits] = column[fits].astype(np.float64)  # Python's own, correctly rounded
    value[spelt_out] = column[spelt_out].astype(np.float64)
    return value, spelt_out


def parse_times(column: pd.Series, unit: TimeUnit) -> np.ndarray:
    """Return float64[n] seconds since 1970, NaN where there is none. ISO times without a zone are UTC."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return _since_1970(pd.to_datetime(column, utc=True))
    if unit == "iso":
        column = column.astype(object) if is_category(column) else column
        return _since_1970(pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce"))
    return parse_numbers(column)[0] / PER_SECOND[unit]


def _since_1970(moments: pd.Series) -> np.ndarray:
    micros = moments.dt.as_unit("us").astype("int64").to_numpy() / 1e6
    return np.where(moments.isna(), np.nan, micros)


def count_times(column: pd.Series) -> np.ndarray:
    """Return int64[3]: times of this batch that are numbers, those past 2100 if they were seconds, and the rest.

    Add the counts of all batches and hand them to :func:`guess_time_unit`.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return np.array([0, 0, len(column)])
    value, _ = parse_numbers(column)
    found = ~np.isnan(value)
    return np.array([found.sum(), (value[found] >= LATEST).sum(), (~found).sum()])


def guess_time_unit(counts: Any, where: str) -> TimeUnit:
    """Return ``iso`` when no time is a number, else ``s``.

    Raises:
        InputError: most numbers would lie after 2100: they must be milliseconds or microseconds.
    """
    found, late, _ = counts
    if found and late * 2 > found:
        raise InputError(
            f"{where}: most timestamps, read as seconds, lie after the year 2100. They look like milliseconds or"
            " microseconds: set [data] time_unit = 'ms' or 'us'."
        )
    return "s" if found else "iso"
