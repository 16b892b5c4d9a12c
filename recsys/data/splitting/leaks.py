"""An audit of a split that somebody else made: what does train know that it could not have known?

Every check is a sentence and a number. What is natural in an honest split (cold users, cold items, a pair that
comes back later) is no finding; :data:`LEAKS` says what is.
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
"""What is found, and what it means."""

STRONG, SURE = 0.5, 5.0
"""Partial rank correlation from which a column is a leak (release years and the like stay near 0.3), and how many
standard errors from 0 it must lie, so that few ids cannot raise an alarm by chance."""


@dataclass(frozen=True)
class Finding:
    """One leak: its name in :data:`LEAKS`, the rows, ids or columns concerned, and one sentence with an example."""

    leak: str
    count: int
    says: str


def find_leaks(train: pd.DataFrame, test: pd.DataFrame) -> list[Finding]:
    """Return the leaks of a split given as two tables of events, none when it is clean.

    Both have ``user_id`` and ``item_id`` of one kind, ``value``, perhaps ``timestamp`` (seconds) and ``event``,
    and any further columns, which are taken for features.
    """
    return [*_shared(train, test), *_future(train, test), *_features(train, test)]


def split_overview(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, Any]:
    """Return what is natural in a split and still worth knowing: sizes, cold users and items, pairs that come back."""
    pair = [USER, ITEM]
    about = {
        name: {"rows": len(part), "users": int(part[USER].nunique()), "items": int(part[ITEM].nunique())}
        for name, part in (("train", train), ("test", test))
    }
    known = pd.MultiIndex.from_frame(train[pair])
    return about | {
        "cold_test_users": int((~pd.Index(test[USER].unique()).isin(train[USER].unique())).sum()),
        "cold_test_items": int((~pd.Index(test[ITEM].unique()).isin(train[ITEM].unique())).sum()),
        "test_rows_of_pairs_in_train": int(pd.MultiIndex.from_frame(test[pair]).isin(known).sum()),
        "cut": to_iso(test[TIME].min()) if TIME in test else None,
    }


def _shared(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    key = [USER, ITEM, *([TIME] if TIME in train and TIME in test else [])]
    same = _in_both(train[key], test[key])
    if same.any():
        yield Finding("shared rows", int(same.sum()), f"{same.sum():,} test rows are in train, e.g. {_row(test, same)}")
    plain = [part[key].assign(**{c: _plain(part[c]) for c in (USER, ITEM)}) for part in (train, test)]
    respelt = _in_both(*plain) & ~same
    if respelt.any():
        says = (
            f"{respelt.sum():,} test rows are in train under another spelling of their ids, e.g. {_row(test, respelt)}"
        )
        yield Finding("shared rows, respelt", int(respelt.sum()), says)


def _in_both(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    return pd.MultiIndex.from_frame(test).isin(pd.MultiIndex.from_frame(train.drop_duplicates()))


def _plain(ids: pd.Series) -> pd.Series:
    text = ids.astype(str).str.strip().str.lower()
    return text.str.replace(r"^0+(?=.)", "", regex=True)


def _row(rows: pd.DataFrame, chosen: np.ndarray) -> str:
    row = rows[chosen].iloc[0]
    when = f" at {to_iso(row[TIME])}" if TIME in rows else ""
    return f"user {row[USER]!r}, item {row[ITEM]!r}{when}"


def _future(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    if TIME not in train or TIME not in test:
        return
    cut = test[TIME].min()
    late = (train[TIME] >= cut).to_numpy()
    if late.any():
        says = f"{late.sum():,} of {len(train):,} train rows are at or after the first test row ({to_iso(cut)})"
        yield Finding("future events", int(late.sum()), says)
    first = train[USER].map(test.groupby(USER)[TIME].min())
    own = (train[TIME] > first).to_numpy()
    if own.any():
        says = f"{own.sum():,} train rows follow a test row of the same user, e.g. {_row(train, own)}"
        yield Finding("own future", int(own.sum()), says)
    for column, leak in ((USER, "users from the future"), (ITEM, "items from the future")):
        begins = train.groupby(column)[TIME].min()
        new = begins.index[begins >= cut]
        if len(new):
            what = leak.partition(" ")[0]
            says = f"train knows {len(new):,} {what} only from rows at or after the first test row, e.g. {new[0]!r}"
            yield Finding(leak, len(new), says)


def _features(train: pd.DataFrame, test: pd.DataFrame) -> Iterator[Finding]:
    known = (USER, ITEM, VALUE, TIME, EVENT)
    columns = [column for column in train.columns.union(test.columns, sort=False) if column not in known]
    copies = [column for column in columns if column in test and _is_copy(_number(test[column]), test[VALUE])]
    if copies:
        yield Finding("copied outcome", len(copies), f"the test's {', '.join(copies)} is its value again")
    both = pd.concat([train, test], ignore_index=True)
    for key in (ITEM, USER):
        evidence = _evidence(train, test, key)
        for column in columns:
            number = _number(both[column]) if column not in copies else None
            if number is None:
                continue
            strength, name = _strongest(number.groupby(both[key]).mean(), evidence)
            if strength >= STRONG:
                yield Finding("feature from test rows", 1, _sentence(f"column '{column}'", key, name, strength))
        ids = pd.Index(both[key].unique()).sort_values()
        strength, name = _strongest(pd.Series(np.arange(len(ids), dtype=float), index=ids), evidence)
        if strength >= STRONG:
            yield Finding("id order", 1, _sentence(f"the order of {key}", key, name, strength))


def _sentence(what: str, key: str, statistic: str, strength: float) -> str:
    whose = "item's" if key == ITEM else "user's"
    return f"{what} follows the {whose} {statistic} in the test (partial rank correlation {strength:.2f} given train)"


def _number(column: pd.Series) -> pd.Series | None:
    """Return a column as float64 when it is a number wherever it is given, and not always the same; else None."""
    number = pd.to_numeric(column, errors="coerce").astype(float)
    given = column.notna() & (column.astype(str).str.strip() != "")
    return number if np.isfinite(number[given]).all() and number.nunique() > 2 else None


def _is_copy(number: pd.Series | None, value: pd.Series) -> bool:
    """Return whether a column orders the rows as the value does, one for one."""
    if number is None or value.nunique() < 3:
        return False
    return bool(number.groupby(value).nunique().max() == 1 and value.groupby(number).nunique().max() == 1)


def _evidence(train: pd.DataFrame, test: pd.DataFrame, key: str) -> dict[str, tuple[pd.Series, dict[str, pd.Series]]]:
    """Return statistic -> (it in the test by id, the controls: all statistics in train by id)."""
    learnt, tested = _statistics(train, key), _statistics(test, key)
    tested["number of rows"] = tested["number of rows"].reindex(learnt["number of rows"].index, fill_value=0)
    return {name: (statistic, learnt) for name, statistic in tested.items()}


def _statistics(part: pd.DataFrame, key: str) -> dict[str, pd.Series]:
    by_id = part.groupby(key)
    found = {"number of rows": by_id.size().astype(float)}
    if part[VALUE].nunique() > 2:
        found["mean value"] = by_id[VALUE].mean()
    if TIME in part:
        found["latest time"] = by_id[TIME].max()
    return found


def _strongest(feature: pd.Series, evidence: dict[str, tuple[pd.Series, dict[str, pd.Series]]]) -> tuple[float, str]:
    """Return the largest |partial rank correlation| of a feature with a statistic of the test, and its name.

    Ranks of both are taken, what a line in the ranks of train's statistics explains is removed, and the rest is
    correlated: 0 = train explains all that the feature says of the test, 1 = the feature is the test's own.
    Correlations within the reach of chance count as 0.
    """
    best = (0.0, "")
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
                best = max(best, (strength, name))
    return best
