"""The rules that decide whether a row of events is accepted; both engines run them on batches of
rows.

A batch is a frame with the canonical columns as read: text, or typed columns of Parquet. A refused
row gets the first reason that applies, in the order of :data:`REASONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.schema import EVENT, FALLBACK, ITEM, TIME, USER, VALUE, is_category

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
    "id is neither text nor an integer",
)
"""Reasons for which a row is refused; position 0 means accepted."""

TimeUnit = Literal["s", "ms", "us", "ns", "yyyymmdd", "iso"]
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
LATEST = 4_102_444_800.0
"""2100-01-01, the end of plausible times, which start in 1970."""

DATES = (19_900_101, 20_991_232)
"""Dates written as digits are recognised from 1990 to 2099."""

GUEST = "guest:"
"""Beginning of the user id of a row without one, where the settings name a column to use instead."""

NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
NOT_FINITE = r"(?i:\s*[+-]?(nan|inf|infinity)\s*)"


def reason_code(reason: str) -> int:
    """Return the position of a reason in :data:`REASONS`."""
    return REASONS.index(reason)


def check_events(batch: pd.DataFrame, unit: TimeUnit | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Return (events, reasons): the batch with canonical dtypes, and int8[n] positions in REASONS.

    Text ids stay text here, because ``schema.unify_ids`` decides over whole tables. ``value`` is
    float64, 1 if there is no such column; ``timestamp`` is float64 seconds since 1970. The contents
    of refused rows are undefined.
    """
    reasons = np.zeros(len(batch), dtype=np.int8)
    columns = {}
    for column in (USER, ITEM):
        ids = batch[column]
        if column == USER and FALLBACK in batch:
            ids = fill_missing_users(ids, batch[FALLBACK])
        columns[column] = ids
        refuse_rows(reasons, is_missing(ids), f"missing {column.removesuffix('_id')} id")
        refuse_rows(reasons, is_undecodable(ids), "undecodable bytes")
    if VALUE in batch:
        value, spelt_out = parse_numbers(batch[VALUE])
        refuse_rows(reasons, np.isnan(value) & ~spelt_out, "unparsable value")
        refuse_rows(reasons, ~np.isfinite(value), "non-finite value")
        columns[VALUE] = pd.Series(value, index=batch.index)
    else:
        columns[VALUE] = pd.Series(1.0, index=batch.index)
    if TIME in batch:
        seconds = parse_times(batch[TIME], unit or "s")
        with np.errstate(invalid="ignore"):
            refuse_rows(reasons, ~((seconds >= 0) & (seconds < LATEST)), "impossible time")
        columns[TIME] = pd.Series(seconds, index=batch.index)
    if EVENT in batch:
        kinds = batch[EVENT]
        is_complete = is_category(kinds) and not kinds.hasnans
        if not is_complete:
            kinds = kinds.astype(object).where(kinds.notna(), "").astype(str).astype(object)
        columns[EVENT] = kinds
    return pd.DataFrame(columns), reasons


def refuse_rows(reasons: np.ndarray, rows: np.ndarray, reason: str) -> None:
    """Set the reason of ``rows``, unless they have an earlier one of REASONS."""
    code = reason_code(reason)
    reasons[rows & ((reasons == 0) | (reasons > code))] = code


def is_missing(ids: pd.Series) -> np.ndarray:
    """Return bool[n]: the id is null, empty or blank. Other blanks belong to the id: "a " is not
    "a".
    """
    if is_category(ids):
        return _test_categories(is_missing, ids)
    absent = ids.isna().to_numpy()
    if ids.dtype == object:
        absent |= (ids.str.strip() == "").to_numpy(dtype=bool, na_value=False)
    return absent


def fill_missing_users(ids: pd.Series, fallback: pd.Series) -> pd.Series:
    """Return user ids where missing ones are ``guest:`` and the text of the fallback column.

    All rows of one guest visit, such as one invoice, get one id, which is no id of a customer. The
    ids are text as soon as one is filled in.
    """
    fill = is_missing(ids) & ~is_missing(fallback)
    if not fill.any():
        return ids
    filled = ids.astype(object)
    # None and NaN stay as they are, for validation to refuse.
    filled = filled.where(filled.isna(), filled.astype(str))
    filled[fill] = GUEST + fallback[fill].astype(object).astype(str)
    return filled


def is_undecodable(text: pd.Series) -> np.ndarray:
    """Return bool[n]: the text has bytes that are invalid in the encoding of the file.

    The local reader keeps such bytes as lone surrogates, Spark as U+FFFD.
    """
    if is_category(text):
        return _test_categories(is_undecodable, text)
    if text.dtype != object:
        return np.zeros(len(text), dtype=bool)
    return text.str.contains("[\ufffd\udc80-\udcff]", regex=True).to_numpy(dtype=bool, na_value=False)


def _test_categories(test: Callable[[pd.Series], np.ndarray], column: pd.Series) -> np.ndarray:
    """Return the result of ``test`` for each row, computed once per distinct text (and for null,
    code -1).
    """
    distinct = pd.Series([*column.cat.categories, None], dtype=object)
    return test(distinct)[column.cat.codes.to_numpy()]


def parse_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return (float64[n], NaN where the text is not a number; bool[n], whether NaN or infinity is
    spelt out).
    """
    if is_category(column):
        column = column.astype(object)
    if column.dtype != object:
        value = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return value, np.isnan(value) & column.notna().to_numpy()
    spelt_out = column.str.fullmatch(NOT_FINITE).to_numpy(dtype=bool, na_value=False)
    is_number = column.str.fullmatch(NUMBER).to_numpy(dtype=bool, na_value=False)
    value = np.full(len(column), np.nan)
    # The conversion is that of Python, which rounds correctly.
    value[is_number] = column[is_number].astype(np.float64)
    value[spelt_out] = column[spelt_out].astype(np.float64)
    return value, spelt_out


def parse_times(column: pd.Series, unit: TimeUnit) -> np.ndarray:
    """Return float64[n] seconds since 1970, NaN where the text is not a time. ISO times without a
    zone are UTC.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return _to_seconds(pd.to_datetime(column, utc=True))
    if unit == "iso":
        if is_category(column):
            column = column.astype(object)
        return _to_seconds(pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce"))
    if unit == "yyyymmdd":
        return _parse_digits(parse_numbers(column)[0])
    return parse_numbers(column)[0] / PER_SECOND[unit]


def _parse_digits(numbers: np.ndarray) -> np.ndarray:
    """Return float64[n] seconds of dates written as digits: 20180920 or 20180920153000."""
    is_usable = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (numbers >= 0) & (numbers < 1e14)
    digits = np.where(is_usable, numbers, 0.0).astype(np.int64)
    short = digits < 10**8
    digits = np.where(short, digits * 10**6, digits)
    text = pd.Series(digits).astype(str).str.zfill(14)
    moments = pd.to_datetime(text, utc=True, format="%Y%m%d%H%M%S", errors="coerce")
    return np.where(is_usable, _to_seconds(moments), np.nan)


def _to_seconds(moments: pd.Series) -> np.ndarray:
    micros = moments.dt.as_unit("us").astype("int64").to_numpy() / 1e6
    return np.where(moments.isna(), np.nan, micros)


def count_times(column: pd.Series) -> np.ndarray:
    """Count the times of a batch: int64[4], numbers, numbers after 2100 if read as seconds, numbers
    that look like dates written as digits, and the rest.

    Pass the sum of the counts of all batches to :func:`guess_time_unit`.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return np.array([0, 0, 0, len(column)])
    value, _ = parse_numbers(column)
    is_number = ~np.isnan(value)
    numbers = value[is_number]
    dates = looks_like_date(numbers[np.isfinite(numbers)])
    return np.array([is_number.sum(), (numbers >= LATEST).sum(), dates.sum(), (~is_number).sum()])


def looks_like_date(numbers: Any) -> Any:
    """Return whether numbers (an array, or a column of Spark) look like 20180920 or 20180920153000."""
    short = (numbers >= DATES[0]) & (numbers < DATES[1])
    long = (numbers >= DATES[0] * 1e6) & (numbers < DATES[1] * 1e6)
    # As seconds, the eight digits of a date of our time are moments of a few weeks of 1970.
    day = ((numbers % 100 >= 1) & (numbers % 100 < 32)) | long
    month = (((numbers % 10_000) >= 101) & ((numbers % 10_000) < 1232)) | long
    return (short | long) & day & month


def guess_time_unit(counts: Any, source: str) -> TimeUnit:
    """Return ``iso`` if no time is a number, else ``s``.

    Raises:
        InputError: most of the numbers look like dates written as digits, or as seconds most times
            would be after 2100; they must be milliseconds or microseconds.
    """
    numbers, after_2100, dates, rest = counts
    if numbers and dates * 2 > numbers and rest > numbers:
        raise InputError(
            f"{source}: {numbers:,} timestamps are digits, and most of these look like dates (20180920), while"
            f" {rest:,} are text or empty: set [data] time_unit = 'iso' (--time-unit iso), which reads 2018-09-20 and"
            " 20180920."
        )
    if numbers and dates * 2 > numbers:
        raise InputError(
            f"{source}: most timestamps look like dates written as digits (20180920). Read as seconds they would all"
            " lie in 1970, or far in the future: set [data] time_unit = 'yyyymmdd', or 's' if they are seconds."
        )
    if numbers and after_2100 * 2 > numbers:
        raise InputError(
            f"{source}: most timestamps, read as seconds, lie after the year 2100. They look like milliseconds,"
            " microseconds or nanoseconds: set [data] time_unit = 'ms' or 'us' or 'ns'."
        )
    if numbers:
        return "s"
    return "iso"
