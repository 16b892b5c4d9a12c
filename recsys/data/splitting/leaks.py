"""Audit a split that another program made: find information in train that comes from the test.

Each finding has a number and a sentence. :data:`LEAKS` lists what is a finding. What occurs
naturally in a sound split is not: cold users, cold items, or a pair that occurs again later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from recsys.data.splitting.strategies import to_iso
from recsys.schema import EVENT, ITEM, TIME, USER, VALUE

LEAKS = {
    "shared rows": "the same user, item and time (without times: the same user and item) in train and in test",
    "shared rows, respelt": "rows that are shared once case, blanks and leading zeros of ids are ignored",
    "future events": "train rows at or after the first test row",
    "own future": "train rows of a tested user that are later than a test row of the same user",
    "users from the future": "users whose every train row is at or after the first test row",
    "items from the future": "items whose every train row is at or after the first test row",
    "copied outcome": "a column that is the test's value under another name",
    "feature from test rows": "a column that follows the test's counts, values or times of its item or user, where"
    " train's own cannot explain it",
    "id order": "ids in an order that follows the test's counts, values or times, where train's own cannot explain it",
}
"""Name of each leak -> what it means."""

STRONG = 0.5
"""The smallest |partial rank correlation| with the test from which a column counts as a leak.

Columns that do not leak, such as release years, stay near 0.3.
"""

SURE = 5.0
"""The smallest distance of a correlation from 0, in standard errors, for a leak.

It prevents findings by chance if there are few ids.
"""


@dataclass(frozen=True)
class Finding:
    """One leak in a split.

    Attributes:
        leak: its name in :data:`LEAKS`.
        count: the number of rows, ids or columns that leak.
        message: a sentence that says what leaks, with an example where there is one.
    """

    leak: str
    count: int
    message: str


def find_leaks(train: pd.DataFrame, test: pd.DataFrame) -> list[Finding]:
    """Return the leaks of a split that is given as two tables of events.

    The list is empty if there are no leaks.

    Args:
        train, test: ``user_id``, ``item_id``, ``value``, and optionally ``timestamp`` (seconds
            since 1970) and ``event``. The ids of a column are of one type in both tables. All other
            columns are treated as features.
    """
    return [
        *_find_shared_rows(train, test),
        *_find_future_events(train, test),
        *_find_leaking_columns(train, test),
    ]


def split_overview(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Return facts about a split that are not leaks, as a dict for JSON.

    Its keys:

    * ``train``, ``test``: the numbers of ``rows``, ``users`` and ``items`` of each part;
    * ``cold_test_users``, ``cold_test_items``: the numbers of those in test that are not in train;
    * ``test_rows_of_pairs_in_train``: the number of test rows whose (user, item) pair is also in
      train;
    * ``cut``: the earliest time in test as an ISO time (UTC), or None without timestamps.

    Args:
        train, test: tables as for :func:`find_leaks`, not empty.
    """
    pair = [USER, ITEM]
    about = {
        name: {
            "rows": len(part),
            "users": int(part[USER].nunique()),
            "items": int(part[ITEM].nunique()),
        }
        for name, part in (("train", train), ("test", test))
    }
    train_pairs = pd.MultiIndex.from_frame(train[pair])
    cut = None
    if TIME in test:
        cut = to_iso(test[TIME].min())
    return about | {
        "cold_test_users": int((~pd.Index(test[USER].unique()).isin(train[USER].unique())).sum()),
        "cold_test_items": int((~pd.Index(test[ITEM].unique()).isin(train[ITEM].unique())).sum()),
        "test_rows_of_pairs_in_train": int(pd.MultiIndex.from_frame(test[pair]).isin(train_pairs).sum()),
        "cut": cut,
    }


def _find_shared_rows(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    key = [USER, ITEM]
    if TIME in train and TIME in test:
        key.append(TIME)
    is_shared = _in_both(train[key], test[key])
    if is_shared.any():
        yield Finding(
            "shared rows",
            int(is_shared.sum()),
            f"{is_shared.sum():,} test rows are in train, e.g. {_describe_row(test, is_shared)}",
        )
    normalised = [part[key].assign(**{c: _normalise_ids(part[c]) for c in (USER, ITEM)}) for part in (train, test)]
    respelt = _in_both(*normalised) & ~is_shared
    if respelt.any():
        example = _describe_row(test, respelt)
        message = f"{respelt.sum():,} test rows are in train under another spelling of their ids, e.g. {example}"
        yield Finding("shared rows, respelt", int(respelt.sum()), message)


def _in_both(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Return bool[n]: whether each row of ``test`` is also a row of ``train``."""
    return pd.MultiIndex.from_frame(test).isin(pd.MultiIndex.from_frame(train.drop_duplicates()))


def _normalise_ids(ids: pd.Series) -> pd.Series:
    """Return ids as text without outer blanks, capital letters and leading zeros."""
    text = ids.astype(str).str.strip().str.lower()
    return text.str.replace(r"^0+(?=.)", "", regex=True)


def _describe_row(rows: pd.DataFrame, chosen: np.ndarray) -> str:
    row = rows[chosen].iloc[0]
    text = f"user {str(row[USER])!r}, item {str(row[ITEM])!r}"
    if TIME in rows:
        text += f" at {to_iso(row[TIME])}"
    return text


def _find_future_events(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    if TIME not in train or TIME not in test:
        return
    cut = test[TIME].min()
    is_late = (train[TIME] >= cut).to_numpy()
    if is_late.any():
        message = f"{is_late.sum():,} of {len(train):,} train rows are at or after the first test row ({to_iso(cut)})"
        yield Finding("future events", int(is_late.sum()), message)
    first = train[USER].map(test.groupby(USER)[TIME].min())
    in_own_future = (train[TIME] > first).to_numpy()
    if in_own_future.any():
        example = _describe_row(train, in_own_future)
        message = f"{in_own_future.sum():,} train rows follow a test row of the same user, e.g. {example}"
        yield Finding("own future", int(in_own_future.sum()), message)
    for column, leak in ((USER, "users from the future"), (ITEM, "items from the future")):
        begins = train.groupby(column)[TIME].min()
        new = begins.index[begins >= cut]
        if len(new):
            kind = leak.partition(" ")[0]
            message = (
                f"train knows {len(new):,} {kind} only from rows at or after the first test row, e.g. {str(new[0])!r}"
            )
            yield Finding(leak, len(new), message)


def _find_leaking_columns(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    standard_columns = (USER, ITEM, VALUE, TIME, EVENT)
    columns = [column for column in train.columns.union(test.columns, sort=False) if column not in standard_columns]
    copies = [column for column in columns if column in test and _is_copy(_numeric_column(test[column]), test[VALUE])]
    if copies:
        yield Finding("copied outcome", len(copies), f"the test's {', '.join(copies)} is its value again")
    events = pd.concat([train, test], ignore_index=True)
    for key in (ITEM, USER):
        evidence = _test_statistics(train, test, key)
        for column in columns:
            # A copy of the value has a finding already, and it would follow the values in any case.
            if column in copies:
                continue
            number = _numeric_column(events[column])
            if number is None:
                continue
            strength, name = _strongest_correlation(number.groupby(events[key]).mean(), evidence)
            if strength >= STRONG:
                yield Finding(
                    "feature from test rows",
                    1,
                    _sentence(f"column '{column}'", key, name, strength),
                )
        ids = pd.Index(events[key].unique()).sort_values()
        strength, name = _strongest_correlation(pd.Series(np.arange(len(ids), dtype=float), index=ids), evidence)
        if strength >= STRONG:
            yield Finding("id order", 1, _sentence(f"the order of {key}", key, name, strength))


def _sentence(subject: str, key: str, statistic: str, strength: float) -> str:
    owner = "user's"
    if key == ITEM:
        owner = "item's"
    return (
        f"{subject} follows the {owner} {statistic} in the test (partial rank correlation {strength:.2f} given train)"
    )


def _numeric_column(column: pd.Series) -> pd.Series | None:
    """Return a column as float64 if it is a numeric feature, else None.

    All of its values must be finite numbers or missing, and more than two of them different.
    """
    number = pd.to_numeric(column, errors="coerce").astype(float)
    is_given = column.notna() & (column.astype(str).str.strip() != "")
    # A column of two values is a flag, and its order means too little to be called a leak.
    if not np.isfinite(number[is_given]).all() or number.nunique() <= 2:
        return None
    return number


def _is_copy(number: pd.Series | None, value: pd.Series) -> bool:
    """Return whether a column determines the value of the events, and the value determines the
    column.

    The result is False if the column is not numeric, or if there are fewer than three values.
    """
    if number is None or value.nunique() < 3:
        return False
    return bool(number.groupby(value).nunique().max() == 1 and value.groupby(number).nunique().max() == 1)


def _test_statistics(
    train: pd.DataFrame, test: pd.DataFrame, key: str
) -> dict[str, tuple[pd.Series, dict[str, pd.Series]]]:
    """Return the statistics of the test that a leaking feature may follow, each with its controls.

    The result is name of a statistic -> (its value for each id in the test, the controls). The
    controls are all statistics of the same ids in train (see :func:`_strongest_correlation`).

    Args:
        key: the column of the ids, users or items.
    """
    learnt = _statistics(train, key)
    tested = _statistics(test, key)
    tested["number of rows"] = tested["number of rows"].reindex(learnt["number of rows"].index, fill_value=0)
    return {name: (statistic, learnt) for name, statistic in tested.items()}


def _statistics(part: pd.DataFrame, key: str) -> dict[str, pd.Series]:
    by_id = part.groupby(key)
    statistics = {"number of rows": by_id.size().astype(float)}
    if part[VALUE].nunique() > 2:
        statistics["mean value"] = by_id[VALUE].mean()
    if TIME in part:
        statistics["latest time"] = by_id[TIME].max()
    return statistics


def _strongest_correlation(
    feature: pd.Series, evidence: dict[str, tuple[pd.Series, dict[str, pd.Series]]]
) -> tuple[float, str]:
    """Return the largest |partial rank correlation| of a feature with a statistic of the test, in
    [0, 1).

    The name of that statistic is returned too. The feature and the statistic are replaced by their
    ranks. The part of both that is a linear function of the ranks of train's statistics is
    subtracted, and the remainders are correlated. A correlation near 1 means that the feature
    follows the test in a way that train does not explain. A correlation that is not significant
    (:data:`SURE`) counts as 0, and the result is then (0, "").

    Args:
        feature: one value per id.
        evidence: the result of :func:`_test_statistics`.
    """
    strongest = (0.0, "")
    for name, (tested, learnt) in evidence.items():
        frame = pd.DataFrame({"feature": feature, "tested": tested, **learnt}).dropna()
        if len(frame) <= len(learnt) + 3:
            continue
        ranks = np.apply_along_axis(rankdata, 0, frame.to_numpy())
        controls = np.column_stack([np.ones(len(frame)), ranks[:, 2:]])
        rest = ranks[:, :2] - controls @ np.linalg.lstsq(controls, ranks[:, :2], rcond=None)[0]
        length = np.sqrt((rest**2).sum(axis=0))
        if (length > 1e-6 * len(frame)).all():
            strength = min(abs(float(rest[:, 0] @ rest[:, 1])) / float(length.prod()), 1 - 1e-12)
            if np.arctanh(strength) * np.sqrt(len(frame) - len(learnt) - 3) >= SURE:  # Fisher's z
                strongest = max(strongest, (strength, name))
    return strongest
