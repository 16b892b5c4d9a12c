"""Define the rules that decide whether a row of events is accepted.

Both engines apply them to batches of rows. A batch is a frame with the canonical columns as they
were read: text, or typed columns of Parquet. A refused row gets the first reason that applies, in
the order of :data:`REASONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from recsys.errors import InputError
from recsys.schema import EVENT, FALLBACK, ITEM, TIME, USER, VALUE, is_category

IMPOSSIBLE_TIME = "impossible time"
UNPARSABLE_VALUE = "unparsable value"
REASONS = (
    "",
    "wrong column count",
    "undecodable bytes",
    "missing user id",
    "missing item id",
    UNPARSABLE_VALUE,
    "non-finite value",
    IMPOSSIBLE_TIME,
    "duplicate id",
    "not a JSON object",
    "id is neither text nor an integer",
)
"""The reasons why a row is refused. Position 0 means accepted."""

TimeUnit = Literal["s", "ms", "us", "ns", "yyyymmdd", "iso"]
"""How times are written: seconds or parts of them, dates as digits, or ISO 8601."""
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Unit of numeric times -> how many of them are one second."""
LATEST = 4_102_444_800.0
"""2100-01-01 in seconds since 1970. Times before 1970, and times from this one on, are refused."""

SPREADSHEET_DAYS = (36_526, 54_789)
"""The numbers that may be days of a spreadsheet, from 2000 to the end of 2049.

They count from 1899-12-30. The second number is not included.
"""

DATES = (19_900_101, 20_991_232)
"""The bounds of the numbers that may be dates of eight digits, such as 20180920: 1990 to 2099."""

GUEST = "guest:"
"""Prefix of the id that replaces a missing user id (:func:`fill_missing_users`)."""

NUMBER = r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*"
"""Pattern of a text that is a finite number."""
NOT_FINITE = r"(?i:\s*[+-]?(nan|inf|infinity)\s*)"
"""Pattern of a text that is a spelling of NaN or infinity."""


def reason_code(reason: str) -> int:
    """Return the position of a reason in :data:`REASONS`.

    Raises:
        ValueError: there is no such reason.
    """
    return REASONS.index(reason)


def check_events(batch: pd.DataFrame, unit: TimeUnit | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the events of a batch with canonical dtypes, and the reason why each row is refused.

    The reasons are int8[n], positions in :data:`REASONS`, 0 for an accepted row. All rows are
    returned; the contents of refused rows are undefined.

    * Ids are as in the batch. Text ids stay text, because :func:`recsys.schema.unify_ids` decides
      over whole tables.
    * ``value`` is float64. It is 1 if the batch has no such column.
    * ``timestamp`` is float64 seconds since 1970, if the batch has it.
    * ``event`` is text, if the batch has it. A missing type is the empty text.

    Args:
        batch: ``user_id`` and ``item_id``, and optionally ``value``, ``timestamp``, ``event`` and
            ``fallback_id``.
        unit: the unit of numeric times. None: seconds.
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
        refuse_rows(reasons, np.isnan(value) & ~spelt_out, UNPARSABLE_VALUE)
        refuse_rows(reasons, ~np.isfinite(value), "non-finite value")
        columns[VALUE] = pd.Series(value, index=batch.index)
    else:
        columns[VALUE] = pd.Series(1.0, index=batch.index)
    if TIME in batch:
        seconds = parse_times(batch[TIME], unit or "s")
        with np.errstate(invalid="ignore"):
            refuse_rows(reasons, ~((seconds >= 0) & (seconds < LATEST)), IMPOSSIBLE_TIME)
        columns[TIME] = pd.Series(seconds, index=batch.index)
    if EVENT in batch:
        kinds = batch[EVENT]
        is_complete = is_category(kinds) and not kinds.hasnans
        if not is_complete:
            kinds = kinds.astype(object).where(kinds.notna(), "").astype(str).astype(object)
        columns[EVENT] = kinds
    return pd.DataFrame(columns), reasons


def refuse_rows(reasons: np.ndarray, rows: np.ndarray, reason: str) -> None:
    """Set the reason of some rows, unless they have a reason that is earlier in :data:`REASONS`.

    Args:
        reasons: int[n], changed in place.
        rows: bool[n], the rows to refuse.
        reason: one of :data:`REASONS`.
    """
    code = reason_code(reason)
    reasons[rows & ((reasons == 0) | (reasons > code))] = code


def is_missing(ids: pd.Series) -> np.ndarray:
    """Return bool[n]: whether each id is null, empty or blank.

    Blanks around other characters belong to the id: "a " is not "a".
    """
    if is_category(ids):
        return _test_categories(is_missing, ids)
    absent = ids.isna().to_numpy()
    if ids.dtype == object:
        absent |= (ids.str.strip() == "").to_numpy(dtype=bool, na_value=False)
    return absent


def fill_missing_users(ids: pd.Series, fallback: pd.Series) -> pd.Series:
    """Replace each missing user id by ``guest:`` and the text of ``fallback``, and return the ids.

    For example, ``fallback`` has the number of the invoice. All rows of one invoice then get the
    same id, and no real user has this id. If any id is replaced, all ids become text. If the text
    in ``fallback`` is missing too, the id stays missing.

    Args:
        ids: the user ids.
        fallback: one text or number per id.
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
    """Return bool[n]: whether each text has bytes that are invalid in the encoding of the file.

    The local reader represents such bytes by lone surrogates, and Spark by the character U+FFFD.
    """
    if is_category(text):
        return _test_categories(is_undecodable, text)
    if text.dtype != object:
        return np.zeros(len(text), dtype=bool)
    return text.str.contains("[\ufffd\udc80-\udcff]", regex=True).to_numpy(dtype=bool, na_value=False)


def _test_categories(test: Callable[[pd.Series], np.ndarray], column: pd.Series) -> np.ndarray:
    """Return the result of ``test`` for each row of a categorical, computed once per category."""
    distinct = pd.Series([*column.cat.categories, None], dtype=object)
    return test(distinct)[column.cat.codes.to_numpy()]


def parse_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Parse a column as numbers, and return the numbers and whether a NaN was written out.

    The first array is float64[n]. A text that is not a number becomes NaN, and "inf" becomes
    infinity. The second is bool[n], True for a text that spells NaN or infinity, such as "nan". In
    a column of numbers it is True for a NaN that is not null.
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
    """Return the times of a column as seconds since 1970, float64[n].

    A text that is not a time becomes NaN. ISO times without a zone are UTC. Dates as digits are
    20180920 or 20180920153000, in UTC. A column of datetimes needs no unit.

    Args:
        column: the times, as numbers, text or datetimes.
        unit: how they are written.
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
    """Return float64[n], the seconds since 1970 of dates written as digits: 20180920 or
    20180920153000."""
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
    """Count the forms in which the times of a batch are written, for :func:`guess_time_unit`.

    The result is int64[5], the numbers of times

    1. that are numbers;
    2. that would be after 2100 if they were seconds;
    3. that look like dates written as digits;
    4. that look like the days of a spreadsheet;
    5. that are other text.

    Missing times are not counted. In a column of datetimes every row counts as text. To get the
    counts of a whole log, add the results of its batches.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return np.array([0, 0, 0, 0, len(column)])
    value, _ = parse_numbers(column)
    is_number = ~np.isnan(value)
    numbers = value[is_number]
    dates = looks_like_date(numbers[np.isfinite(numbers)])
    days = (numbers >= SPREADSHEET_DAYS[0]) & (numbers < SPREADSHEET_DAYS[1])
    is_text = ~is_number & ~is_missing(column)
    return np.array([is_number.sum(), (numbers >= LATEST).sum(), dates.sum(), days.sum(), is_text.sum()])


def looks_like_date(numbers: Any) -> Any:
    """Return whether each number looks like a date written as digits: 20180920 or 20180920153000.

    Args:
        numbers: an array, or a Spark column. The result has the same form.
    """
    short = (numbers >= DATES[0]) & (numbers < DATES[1])
    long = (numbers >= DATES[0] * 1e6) & (numbers < DATES[1] * 1e6)
    # As seconds, the eight digits of a date of our time are moments of a few weeks of 1970.
    day = ((numbers % 100 >= 1) & (numbers % 100 < 32)) | long
    month = (((numbers % 10_000) >= 101) & ((numbers % 10_000) < 1232)) | long
    return (short | long) & day & month


def unit_of_counts(counts: Any) -> TimeUnit:
    """Return the unit of times: ``s`` if more of them are numbers than other text, else ``iso``.

    Args:
        counts: the result of :func:`count_times`.
    """
    if counts[0] > counts[-1]:
        return "s"
    return "iso"


def guess_time_unit(counts: Any, source: str) -> TimeUnit:
    """Return the unit of the times of a log whose settings have no unit: ``s`` or ``iso``.

    It is ``s`` (seconds since 1970) if more times are numbers than other text. The times of the
    other form are refused row by row.

    Args:
        counts: the sum of the results of :func:`count_times` over the log.
        source: the file or table, for the error message.

    Raises:
        InputError: the times cannot be seconds. Most numbers look like dates written as digits, or
            most would be after 2100, or all look like the days of a spreadsheet.
    """
    numbers, after_2100, dates, days, rest = counts
    if numbers and dates * 2 > numbers and rest > numbers:
        raise InputError(
            f"{source}: {numbers:,} timestamps are digits, and most of these look like dates (20180920), while"
            f" {rest:,} are text: set [data] time_unit = 'iso' (--time-unit iso), which reads 2018-09-20 and"
            " 20180920."
        )
    if numbers and dates * 2 > numbers:
        raise InputError(
            f"{source}: most timestamps look like dates written as digits (20180920). Read as seconds they would all"
            " lie in 1970, or far in the future: set [data] time_unit = 'yyyymmdd', or 's' if they are seconds."
        )
    if numbers and days == numbers and numbers > rest:
        raise InputError(
            f"{source}: the timestamps look like the days of a spreadsheet (45292 is 2024-01-01). Read as seconds they"
            " would all lie on the first day of 1970: write them as dates, for example with pandas.to_datetime(days,"
            " unit='D', origin='1899-12-30'), or set [data] time_unit = 's' if they are seconds."
        )
    if numbers and after_2100 * 2 > numbers:
        raise InputError(
            f"{source}: most timestamps, read as seconds, lie after the year 2100. They look like milliseconds,"
            " microseconds or nanoseconds: set [data] time_unit = 'ms' or 'us' or 'ns'."
        )
    return unit_of_counts(counts)
