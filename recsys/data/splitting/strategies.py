"""Define the split rules, each with a drawing, and assign every raw event to a part.

A drawing has one user per line, and time goes from left to right. ``o`` is a train event. ``h`` is
an event of the history only, which is known when a model scores but which models never train on.
``x`` is a test event, and ``|`` is the cut.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from recsys.data.hashing import hash_words, id_bits, id_hash, pair_hash, to_unit_interval
from recsys.data.reading.log import keep_rows
from recsys.errors import InputError
from recsys.schema import ITEM, SIDE, TIME, USER
from recsys.types import IdMap

TRAIN, HISTORY, TEST = 0, 1, 2
"""The sides of a split, as :func:`assign_sides` returns them."""

SIDES = {"train": TRAIN, "history": HISTORY, "test": TEST}
"""Name of a part of a split -> its number."""

Share = Annotated[float, Field(gt=0, lt=1)]
"""A share, greater than 0 and less than 1."""


class _Rule(BaseModel):
    """The base class of the split rules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def has_history_events(self) -> bool:
        """Whether some events are only in the history, and in neither train nor test."""
        return False


class ByTime(_Rule):
    """One cut in time for all users: later events are the test, as after the deployment of a model.
    This is the default.

        Alice   o  o  o  .  |  x  .  x
        Bob     .  o  .  o  |  .  .  .
        Carol   .  .  .  .  |  .  x  .

    Carol has no history, so she is a cold user, and the report counts her. Events with the same
    timestamp are always on the same side of the cut.
    """

    rule: Literal["time"] = "time"
    test: Share = Field(
        default=0.2,
        description="largest share of all events in the test, which holds the newest; unused if `at` is set",
    )
    at: float | None = Field(
        default=None,
        description=(
            "start of the test: an ISO date or date and time (UTC), or seconds since 1970; unset: from `test`"
        ),
        json_schema_extra={"type": "date or number"},
    )
    until: float | None = Field(
        default=None,
        description="end of the test, as `at`: events from then on are left out; unset: the end of the log",
        json_schema_extra={"type": "date or number"},
    )
    folds: int = Field(
        default=1,
        ge=1,
        description=(
            "number of folds of a rolling backtest: the run is repeated on as many windows of time, each as long as the"
            " test (`test` of the events, or the time from `at` to the end), one before the other; the last fold is the"
            " split itself"
        ),
    )

    @model_validator(mode="after")
    def _require_room(self) -> ByTime:
        if self.at is None and self.folds * self.test >= 1:
            raise ValueError(
                f"{self.folds} folds with test = {self.test:g} of the events each leave nothing to train on: use fewer"
                " folds or a smaller test"
            )
        if self.at is not None and self.until is not None and self.until <= self.at:
            raise ValueError("the test ends before it begins: set until to a later time than at")
        return self

    @field_validator("at", "until", mode="before")
    @classmethod
    def _to_seconds(cls, moment: Any) -> Any:
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError:
                raise ValueError("must be an ISO date, such as 2024-05-31, or seconds since 1970") from None
        # A datetime is a date too, so only a date without a time of day becomes its midnight.
        if isinstance(moment, date) and not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day)
        if not isinstance(moment, datetime):
            return moment
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()


class LastN(_Rule):
    """The last ``n`` events of each user are the test. This rule leaks: Bob's test event is earlier
    than train events of Alice and Carol.

        Alice   o  o  .  .  .  .  o  x
        Bob     .  o  x  .  .  .  .  .
        Carol   .  .  .  .  .  o  .  .

    Here n = 1. A user with at most n events, as Carol, has train events only. The last events are
    those in the order (timestamp, item id). Repeats of one event (same user, item and time) are
    never on two sides. If they would be, all of them are train events.
    """

    rule: Literal["last"] = "last"
    n: int = Field(default=1, ge=1, description="number of test events of each user who has more than n events")


class Fraction(_Rule):
    """Each (user, item) pair is in train or test by its hash, at whatever time it occurs. Use this
    rule for events without timestamps. For events with timestamps it leaks.

        Alice   o  x  o  .  o  .  x  o
        Bob     .  o  .  o  .  o  .  o
        Carol   .  .  .  .  .  x  o  .

    All events of one (user, item) pair are on the same side, because a repeat in train would
    reveal the test event.
    """

    rule: Literal["fraction"] = "fraction"
    test: Share = Field(default=0.2, description="expected share of (user, item) pairs in the test")
    seed: int = Field(default=0, ge=0, description="seed of the hash; another seed gives another split")


class HeldOutUsers(_Rule):
    """Some users, chosen by the hash of their id, are never trained on. Predictions for them use the
    start of their history.

        Alice   o  o  o  .  o  .  o  o
        Bob     .  h  h  h  .  h  .  x
        Carol   .  o  .  .  .  .  o  .

    Bob is held out. The first ``history`` share of his events, rounded down, is known at
    prediction time. The order is (timestamp, item id), or by hash without timestamps. Repeats of
    one event are always on the same side. History rows of a held-out user whose item is not a
    candidate are removed and counted.
    """

    rule: Literal["users"] = "users"
    share: Share = Field(default=0.2, description="expected share of users held out")
    history: Share = Field(
        default=0.8,
        description="share of a held-out user's events that is known at prediction time",
    )
    seed: int = Field(default=0, ge=0, description="seed of the hash; another seed gives another split")

    @property
    def has_history_events(self) -> bool:
        """True, because the first events of held-out users are in the history, but not in train."""
        return True


class ColdItems(_Rule):
    """Some items, chosen by the hash of their id, are in the test only. A model can predict them only
    from their attributes.

        Alice   o  o  x  .  o  .  o  o
        Bob     .  x  .  o  .  o  .  .
        Carol   .  .  o  .  .  .  o  x

    A cold item is a candidate only if the items table has it. The others are counted. Lists rank the
    cold items alone, unless ``[judge] candidates`` says otherwise.
    """

    rule: Literal["items"] = "items"
    share: Share = Field(default=0.2, description="expected share of items held out")
    seed: int = Field(default=0, ge=0, description="seed of the hash; another seed gives another split")


class Folds(_Rule):
    """Cross-validation: each (user, item) pair is in the test of one fold, by its hash, and in
    train of the others. For ``[judge] task = "ratings"``.

        Alice   2  1  4  .  3  .  1  5
        Bob     .  5  .  2  .  3  .  1
        Carol   .  .  .  .  .  4  2  .

    The numbers are folds. Every model is fitted once per fold, and predicts the ratings of the fold
    from those of the other folds. If ``fold`` is set, only that fold is the test. The hash starts
    from a fixed number of its own (:data:`FOLDS_SALT`). So a fold is never the test part of ``rule
    = "fraction"`` or a fold of ``recsys tune``.
    """

    rule: Literal["folds"] = "folds"
    folds: int = Field(default=5, ge=2, le=100, description="number of folds")
    fold: int | None = Field(
        default=None, ge=1, description="the only fold to test on, from 1 to `folds`; unset: each fold in turn"
    )
    seed: int = Field(default=0, ge=0, description="seed of the hash; another seed gives other folds")

    @model_validator(mode="after")
    def _require_fold(self) -> Folds:
        if self.fold is not None and self.fold > self.folds:
            raise ValueError(f"there are {self.folds} folds, and no fold {self.fold}")
        return self


class ByFiles(_Rule):
    """The parts are files: a published benchmark, or a split of your own. `[data] events` stays unset.

        Alice   o  o  x  .  o  .  x  o
        Bob     .  h  .  h  .  x  .  .
        Carol   .  .  .  o  o  .  .  x

    Here ``o`` are the events of ``train``, ``h`` those of ``history`` and ``x`` those of ``test``.
    All parts are read as ``[data]`` says. History rows whose item is not a candidate are removed
    and counted.
    """

    rule: Literal["files"] = "files"
    train: str = Field(description="file or folder of the events that models learn from")
    test: str = Field(description="file or folder of the events that lists are judged against")
    history: str | None = Field(
        default=None,
        description=(
            "file or folder of further events that are known at prediction time but never trained on, such as those"
            " of held-out users; unset: none"
        ),
    )

    @model_validator(mode="after")
    def _require_several_files(self) -> ByFiles:
        if len(set(self.files.values())) < len(self.files):
            raise ValueError("train, test and history are the same file: name one file for each part")
        return self

    @property
    def files(self) -> dict[str, str]:
        """Name of each part -> its file or folder."""
        files = {"train": self.train, "test": self.test}
        if self.history is not None:
            files["history"] = self.history
        return files

    @property
    def has_history_events(self) -> bool:
        """Whether there is a file of events that are only in the history."""
        return self.history is not None


def _with_rule(settings: Any) -> Any:
    """Return the settings of a split, with the default rule, by time, if they name none."""
    if isinstance(settings, dict) and "rule" not in settings:
        return {"rule": "time"} | settings
    return settings


AnyRule = Annotated[
    ByTime | LastN | Fraction | HeldOutUsers | ColdItems | Folds | ByFiles,
    Field(discriminator="rule"),
    BeforeValidator(_with_rule),
]
"""Any of the split rules. The key ``rule`` selects one of them; it is ``time`` if it is absent."""


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The start of 1970 in UTC."""


def to_iso(seconds: float) -> str:
    """Return seconds since 1970 as ISO 8601 text in UTC. At midnight, the time of day is left out.

    >>> to_iso(1451606400.0), to_iso(1451606400.25)
    ('2016-01-01', '2016-01-01T00:00:00.250000Z')
    """
    text = (EPOCH + timedelta(seconds=float(seconds))).replace(tzinfo=None).isoformat()
    if text.endswith("T00:00:00"):
        return text.removesuffix("T00:00:00")
    return text + "Z"


def cut_time(times: np.ndarray, test: float) -> float:
    """Return the cut T of ``ByTime(test=…)``. An event is a test event if its timestamp is ≥ T.

    T is the smallest timestamp of the log such that at most ``int(test * n)`` of the n events are
    at T or later. If the newest timestamp alone has more events than that, T is the newest
    timestamp.

    Args:
        times: float64[n], n ≥ 1, in any order.
        test: the share of test events, in (0, 1).

    >>> cut_time(np.array([1.0, 2.0, 3.0, 3.0, 3.0]), test=0.4), cut_time(np.arange(10.0), test=0.2)
    (3.0, 8.0)
    """
    # Without ties, the test would be the sorted times from position ``first`` on.
    first = len(times) - int(test * len(times))
    if first == len(times):
        return float(times.max())
    neighbours = np.partition(times, [max(first - 1, 0), first])[max(first - 1, 0) : first + 1]
    cut = neighbours[-1]
    if first and neighbours[0] == cut:
        # Events of one time stay on one side, so the cut moves on to the next time there is.
        later_times = times[times > cut]
        if len(later_times):
            cut = later_times.min()
    return float(cut)


def window_starts(rule: ByTime, cut_of: Callable[[float], float], end: float) -> list[float]:
    """Return the start of the test of each fold of a rolling backtest, earliest first.

    Without ``at``, each window has the share ``test`` of the events. With ``at``, each window is as
    long as the time from ``at`` to ``end``. Times are in seconds since 1970.

    Args:
        rule: the split rule with the number of folds.
        cut_of: a function from a share to the :func:`cut_time` of the events.
        end: the time of the newest event.
    """
    if rule.at is None:
        return [cut_of(rule.test * number) for number in range(rule.folds, 0, -1)]
    return [rule.at - number * (end - rule.at) for number in reversed(range(rule.folds))]


def require_fold_events(counts: list[int]) -> None:
    """Check that every fold of a rolling backtest has train events and test events.

    Args:
        counts: the number of events before the first window, then in each window.

    Raises:
        InputError: one of the numbers is 0. The message names the fold.
    """
    if min(counts):
        return
    part = "nothing to train on"
    if counts[0]:
        part = "no test events"
    raise InputError(
        f"[split] folds: fold {max(counts.index(0), 1)} of {len(counts) - 1} has {part}. Use fewer folds, or longer"
        " windows: a larger `test`, or an earlier `at`."
    )


def keep_until(events: pd.DataFrame, rule: AnyRule) -> pd.DataFrame:
    """Return the events before the end of the test, or all events if the rule sets no end.

    Raises:
        InputError: the rule sets an end, but the events have no timestamps.
    """
    if not isinstance(rule, ByTime) or rule.until is None:
        return events
    return keep_rows(events, _require_times(events, rule) < rule.until)


def fold_starts(events: pd.DataFrame, rule: AnyRule) -> list[float]:
    """Return the start of the test of each fold of a rolling backtest, earliest first.

    Starts are in seconds since 1970. The list is empty for a rule without a backtest.

    Raises:
        InputError: the events have no timestamps, or a fold has no train events or no test events.
    """
    if not isinstance(rule, ByTime) or rule.folds == 1:
        return []
    times = _require_times(keep_until(events, rule), rule)
    starts = window_starts(rule, lambda share: cut_time(times, share), float(times.max()))
    require_fold_events([int(count) for count in np.diff([0, *np.searchsorted(np.sort(times), starts), len(times)])])
    return starts


def assign_sides(events: pd.DataFrame, rule: AnyRule) -> np.ndarray:
    """Return the part of each event as int8[n]: 0 train, 1 history only, 2 test (:data:`SIDES`).

    The part does not depend on the order of the rows. For ``rule = "folds"``, the test is the fold
    ``fold``, or the first fold if that is not set.

    Args:
        events: user_id, item_id, and optionally timestamp (seconds since 1970). For ``rule =
            "files"``, the column ``side`` too.
        rule: the split rule.

    Raises:
        InputError: the rule needs timestamps and there are none, train or test would be empty, or
            for ``rule = "files"`` there is no column ``side``.
    """
    side = _apply_rule(events, rule)
    empty = next(
        (name for name, code in (("train", TRAIN), ("test", TEST)) if not (side == code).any()),
        None,
    )
    if empty:
        span = None
        if TIME in events:
            span = (events[TIME].min(), events[TIME].max())
        raise InputError(empty_side_message(empty, len(events), rule, span))
    return side


def _apply_rule(events: pd.DataFrame, rule: AnyRule) -> np.ndarray:
    if not len(events):
        raise InputError("there are no events to split.")
    if isinstance(rule, ByTime):
        times = _require_times(events, rule)
        cut = rule.at
        if cut is None:
            cut = cut_time(times, rule.test)
        test = times >= cut
    elif isinstance(rule, LastN):
        events_before, _, total = _rank_in_user(events, _require_times(events, rule))
        test = (total - events_before <= rule.n) & (total > rule.n)
    elif isinstance(rule, Fraction):
        test = pair_hash(events[USER], events[ITEM], rule.seed) < rule.test
    elif isinstance(rule, ColdItems):
        test = id_hash(events[ITEM], rule.seed) < rule.share
    elif isinstance(rule, Folds):
        test = fold_of_pairs(events[USER], events[ITEM], rule) == (rule.fold or 1)
    elif isinstance(rule, ByFiles):
        return _sides_of_files(events)
    else:
        return _hold_out_users(events, rule)
    return np.where(test, TEST, TRAIN).astype(np.int8)


FOLDS_SALT = np.array(0x666F6C6473, dtype=np.uint64)
"""A number that is hashed before the ids of a pair, so that folds differ from :func:`pair_hash`.

It has the letters of "folds".
"""


def fold_of_pairs(user_ids: Any, item_ids: Any, rule: Folds) -> np.ndarray:
    """Return the fold of each (user, item) pair, int64[n] in 1 … ``rule.folds``.

    It depends only on the ids, the number of folds and the seed.

    Args:
        user_ids, item_ids: n ids each, integers or text.
        rule: the number of folds, and the seed.

    >>> fold_of_pairs(["alice", "bob", "alice"], [7, 7, 8], Folds(folds=3)).tolist()
    [3, 1, 1]
    """
    bits = hash_words(rule.seed, FOLDS_SALT, id_bits(user_ids), id_bits(item_ids))
    return (to_unit_interval(bits) * rule.folds).astype(np.int64) + 1


def _sides_of_files(events: pd.DataFrame) -> np.ndarray:
    if SIDE not in events:
        raise InputError(
            "rule = 'files' needs events with their part, in a column `side`: read them by"
            " read_tables({'train': …, 'test': …})."
        )
    return events[SIDE].to_numpy()


def _hold_out_users(events: pd.DataFrame, rule: HeldOutUsers) -> np.ndarray:
    is_held_out = id_hash(events[USER], rule.seed) < rule.share
    held_out = keep_rows(events, is_held_out)
    # Without times, a hash of the pair gives each user an order that is random but always the same.
    if TIME in events:
        time = held_out[TIME].to_numpy()
    else:
        time = pair_hash(held_out[USER], held_out[ITEM], rule.seed)
    _, events_up_to, total = _rank_in_user(held_out, time)
    side = np.full(len(events), TRAIN, dtype=np.int8)
    side[is_held_out] = np.where(events_up_to <= np.floor(rule.history * total), HISTORY, TEST)
    return side


def _require_times(events: pd.DataFrame, rule: AnyRule) -> np.ndarray:
    if TIME not in events:
        raise InputError(missing_times_message(rule))
    return events[TIME].to_numpy()


def _rank_in_user(events: pd.DataFrame, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the position of each event among the events of its user, as three counts, int64[n]
    each.

    They are the number of earlier events, the number of earlier and equal events, and the number of
    all events of the user. Events are in the order (time, item id). Events with the same user, time
    and item are equal.
    """
    user, item = (IdMap.from_ids(events[column]).rows_int32(events[column]) for column in (USER, ITEM))
    order = np.lexsort((item, time, user))
    user = user[order]
    time = time[order]
    item = item[order]
    of_user, total = _run_bounds(np.diff(user) != 0)
    of_equals, length = _run_bounds((np.diff(user) != 0) | (np.diff(time) != 0) | (np.diff(item) != 0))
    standing = np.empty((3, len(order)), dtype=np.int64)
    standing[:, order] = of_equals - of_user, of_equals + length - of_user, total
    return standing[0], standing[1], standing[2]


def _run_bounds(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the start and the length of the run of equal rows that contains each position,
    int64[n] each.

    Args:
        change: bool[n - 1], whether each row differs from the row before it.
    """
    starts = np.append(0, np.flatnonzero(change) + 1)
    lengths = np.diff(np.append(starts, len(change) + 1))
    return np.repeat(starts, lengths), np.repeat(lengths, lengths)


def missing_times_message(rule: AnyRule) -> str:
    """Return the error message for events without timestamps under a rule that needs timestamps."""
    return (
        f"rule = '{rule.rule}' needs timestamps and the events have none."
        " Map a column to `timestamp` under [data.columns], or use rule = 'fraction'."
    )


def empty_side_message(part: str, events: int, rule: AnyRule, span: tuple[float, float] | None) -> str:
    """Return the error message for a rule that leaves no train or no test events.

    Args:
        part: the part without events, ``train`` or ``test``.
        events: the number of events that were split.
        rule: the split rule.
        span: the first and the last time of the log, in seconds since 1970. None without
            timestamps.
    """
    if not isinstance(rule, ByTime) or span is None:
        setting = {"last": "n", "fraction": "test", "files": "file"}.get(rule.rule, "share")
        return (
            f"rule = '{rule.rule}' leaves no {part} events of {events:,}."
            f" Use another `{setting}`{' or seed' if hasattr(rule, 'seed') else ''}, or more events."
        )
    if rule.at is None:
        start = to_iso(span[0])
    else:
        start = to_iso(rule.at)
    if part == "train":
        return (
            f"everything is in the test window: all {events:,} events are at or after {start}."
            " Use a later `at`, or rule = 'fraction'."
        )
    return (
        f"test window is empty: no events at or after {start}; the log ends {to_iso(span[1])}."
        " Use an earlier `at`, or rule = 'fraction'."
    )
