"""Business rules as data: one TOML file says what may be recommended, to which users, and how much of each kind.

    allow = ["a1", "a2"]                 # only these
    deny = ["b7"]
    [deny_for]                           # user -> items
    alice = ["c3"]
    [[where]]                            # keep items whose attribute …
    field = "genres"
    none_of = ["horror"]                 # any_of, none_of; at_least, at_most for numbers
    [available]                          # keep items on offer at a time; an empty cell is no limit
    from_field = "from"
    until_field = "until"
    at = "2016-01-01"
    [[quota]]                            # at most this number of items with one value in a list
    field = "genres"
    at_most = 3

Every rule is applied before the best k items are chosen. An item without the attribute passes
``none_of`` and fails all other tests. A cell that is a list or contains a ``|`` has several values.
Values are compared as text, and upper and lower case are equal. A whole number is compared as an
integer: 1994 matches 1994.0, because pandas turns integers into floats if the column has missing
cells.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.sparse import csr_array

from recsys.errors import ConfigError, InputError, describe_invalid_value, suggest_nearest
from recsys.features.segment_popularity import value_as_text, values_as_text
from recsys.schema import ITEM
from recsys.storage import read_text
from recsys.types import IdMap

Ids = Annotated[list[int | str], Field(fail_fast=True)]
"""Ids of a rule. The check ends at the first wrong one, because a long list could have as many faults as elements."""

MAX_UNKNOWN = 10
"""The largest number of unknown ids that :func:`describe_rules` lists for one rule."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Where(_Strict):
    """The rule ``where``: keep the items whose attribute ``field`` passes every test that is set.

    Text is compared without regard to upper and lower case. An item without the attribute passes
    ``none_of`` and fails every other test.

    Attributes:
        field: a column of the items table.
        any_of: the item must have at least one of these values.
        none_of: the item must have none of these values.
        at_least, at_most: the smallest and the largest number that the attribute may be. An
            attribute that is not a number fails.
    """

    field: str
    any_of: Annotated[list[bool | int | float | str], Field(fail_fast=True)] | None = None
    none_of: Annotated[list[bool | int | float | str], Field(fail_fast=True)] | None = None
    at_least: float | None = None
    at_most: float | None = None


class Available(_Strict):
    """The rule ``available``: keep the items that are on offer at the time ``at``.

    An item is on offer if the time in its column ``from_field`` is at most ``at``, and the time in its
    column ``until_field`` is after ``at``. There is no limit where a column is not named, where a
    cell is empty, or for an item that the items table does not have. Times are ISO dates or times,
    in UTC if they have no zone, or seconds since 1970. A cell that is neither is an error in
    :func:`compile_rules`.

    Attributes:
        from_field: the column with the time from which an item is on offer, or None.
        until_field: the column with the time from which it is no longer on offer, or None.
        at: the time for which lists are made.
    """

    from_field: str | None = None
    until_field: str | None = None
    at: str | int | float | date | datetime


class Quota(_Strict):
    """The rule ``quota``: a list has at most ``at_most`` items with the same value of ``field``.

    Items above this number are left out of the list, and the next best items take their places. An
    item with several values counts for each of them. An item without a value is never left out.

    Attributes:
        field: a column of the items table.
        at_most: the largest number of items with the same value, ≥ 0.
    """

    field: str
    at_most: int = Field(ge=0)


class Rules(_Strict):
    """All rules of a file. By default there are no rules.

    Attributes:
        allow: ids of the only items that may be recommended. None: all.
        deny: ids of items that are never recommended.
        deny_for: user id as text -> ids of the items that this user never gets.
        where, available, quota: tests of attributes, the time of the offer, and limits per value.
    """

    allow: Ids | None = None
    deny: Ids = []
    deny_for: dict[str, Ids] = {}
    where: Annotated[list[Where], Field(fail_fast=True)] = []
    available: Available | None = None
    quota: Annotated[list[Quota], Field(fail_fast=True)] = []


TABLES: dict[str, type[BaseModel]] = {"where": Where, "available": Available, "quota": Quota}
"""Name of a rule that is a table of its own -> the class with its keys."""


@dataclass(frozen=True)
class CompiledRules:
    """Rules in the form of arrays, whose rows and columns are the users and items of two id maps.

    Attributes:
        candidates: bool[items], the items that may be recommended.
        denied: csr (users, items), one entry per denied pair.
        quotas: one pair per quota: csr (items, values), the values of each item, and the largest
            number of items with the same value in a list.
        removed: rule -> number of items (``deny_for``: pairs) that this rule alone would remove.
        unknown: rule -> ids in the rule that are not in the data.
    """

    candidates: np.ndarray
    denied: csr_array
    quotas: list[tuple[csr_array, int]]
    removed: dict[str, int]
    unknown: dict[str, list[Any]]

    @property
    def about(self) -> dict[str, Any]:
        """The contents of rules.json in a run folder: a dict with the keys removed and unknown."""
        return {"removed": self.removed, "unknown": self.unknown}


def load_rules(path: str | Path) -> Rules:
    """Read business rules from a TOML file at a path or URI. The description of this module shows its keys.

    Raises:
        ConfigError: the file does not exist or is not TOML, or a key is unknown (the message
            suggests the most similar one) or has a wrong type.
    """
    try:
        raw = tomllib.loads(read_text(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as rules: {error}") from error
    try:
        return Rules.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            message = describe_invalid_value([problem])
            if problem["type"] == "extra_forbidden":
                table_name, *path_in_table = problem["loc"]
                keys = (TABLES[str(table_name)] if path_in_table else Rules).model_fields
                message = f"unknown key.{suggest_nearest(str(problem['loc'][-1]), keys)}"
            lines.append(f"{path}: {key}: {message}")
        raise ConfigError("\n".join(lines)) from None


def compile_rules(rules: Rules, users: IdMap, items: IdMap, table: pd.DataFrame | None = None) -> CompiledRules:
    """Convert rules from ids to arrays over the rows of two id maps.

    Ids of the rules that are not in the maps are ignored, and listed in ``unknown`` of the result.

    Args:
        rules: the rules.
        users, items: the id maps of the users and of the items.
        table: the items table, which ``where``, ``available`` and ``quota`` need.

    Raises:
        ConfigError: the field of a rule is not a column of the items table or is its id column, or
            there is no items table.
        InputError: a time is neither an ISO date nor a number.
    """
    keep: dict[str, np.ndarray] = {}
    unknown: dict[str, list[Any]] = {}

    def rows(name: str, ids: Ids) -> np.ndarray:
        item_rows = _rows(items, ids)
        if (item_rows < 0).any():
            unknown.setdefault(name, []).extend(np.array(ids, dtype=object)[item_rows < 0].tolist())
        return item_rows[item_rows >= 0]

    if rules.allow is not None:
        keep["allow"] = np.isin(np.arange(len(items)), rows("allow", rules.allow))
    if rules.deny:
        keep["deny"] = ~np.isin(np.arange(len(items)), rows("deny", rules.deny))
    for number, test in enumerate(rules.where, start=1):
        keep[f"where {number} ({test.field})"] = _passes(test, _column(table, test.field, items))
    if rules.available:
        keep["available"] = _on_offer(rules.available, table, items)
    denied = _denied(rules, users, items, rows, unknown)
    quotas = [(_values(_column(table, quota.field, items)), quota.at_most) for quota in rules.quota]
    removed = {name: int((~mask).sum()) for name, mask in keep.items()}
    if rules.deny_for:
        removed["deny_for"] = denied.nnz
    candidates = np.logical_and.reduce([np.ones(len(items), dtype=bool), *keep.values()])
    return CompiledRules(candidates, denied, quotas, removed, unknown)


def describe_rules(about: dict[str, Any]) -> list[str]:
    """Return lines for people: what each rule removes by itself, and the ids in rules that are not in the data.

    Args:
        about: the content of rules.json (:attr:`CompiledRules.about`).

    >>> describe_rules({"removed": {"deny": 1, "deny_for": 20}, "unknown": {"deny": ["x", "y"]}})
    ['rules removed: 1 item by deny; 20 pairs by deny_for', 'rule deny: unknown ids x, y']
    """
    counts = []
    for name, count in about["removed"].items():
        noun = "pair" if name == "deny_for" else "item"
        counts.append(f"{count:,} {noun}{'' if count == 1 else 's'} by {name}")
    lines = [f"rules removed: {'; '.join(counts) or 'no item for good'}"]
    for name, ids in about["unknown"].items():
        listed = ", ".join(map(str, ids[:MAX_UNKNOWN]))
        lines.append(f"rule {name}: unknown ids {listed}{', …' if len(ids) > MAX_UNKNOWN else ''}")
    return lines


def _denied(rules: Rules, users: IdMap, items: IdMap, rows: Any, unknown: dict[str, list[Any]]) -> csr_array:
    """Return the denied pairs of the rule ``deny_for`` as csr (users, items).

    Args:
        rows: function (name of a rule, ids) -> the rows of the items with these ids.
        unknown: rule -> ids that are not in the data. Unknown user ids are added to it.
    """
    denied_users: list[int] = []
    denied_items: list[int] = []
    for user_id, ids in rules.deny_for.items():
        item_rows = np.unique(rows("deny_for", ids))
        user_row = int(_rows(users, [user_id])[0])
        if user_row < 0:
            unknown.setdefault("deny_for users", []).append(user_id)
            continue
        denied_users += [user_row] * len(item_rows)
        denied_items += item_rows.tolist()
    data = np.ones(len(denied_users), np.float32)
    pairs = csr_array((data, (denied_users, denied_items)), shape=(len(users), len(items)))
    pairs.sort_indices()
    return pairs


def _rows(id_map: IdMap, ids: Ids) -> np.ndarray:
    """Return the row of each id, int[ids], -1 for an id that the map does not have."""
    return id_map.rows([str(key) for key in ids])


def _column(table: pd.DataFrame | None, field: str, items: IdMap) -> pd.Series:
    """Return a column of the items table with one cell per item, in the order of ``items``.

    The cell of an item that the table does not have is missing.

    Raises:
        ConfigError: the table does not have the column, it is the id column, or there is no table.
    """
    if field == ITEM:
        raise ConfigError(
            f"a rule asks for the field '{ITEM}', which is not an attribute: put ids into `allow` or `deny`."
        )
    if table is None or field not in table:
        columns: set[str] = set() if table is None else set(table.columns) - {ITEM}
        if not columns:
            raise ConfigError(
                f"a rule asks for the field '{field}', but nothing is known of the items besides their ids: make the"
                " run with an items table ([data] items)."
            )
        hint = suggest_nearest(field, columns)
        raise ConfigError(f"a rule asks for the field '{field}', which the items table does not have.{hint}")
    return table.set_index(ITEM)[field].reindex(pd.Index(items.ids))


def _cells(column: pd.Series) -> list[list[str]]:
    """Return the values of each cell as text in lower case (casefolded).

    A missing cell has no values. A list, or a text such as ``a|b``, has several.
    """
    cells = [[value.strip() for value in cell.casefold().split("|")] for cell in values_as_text(column)]
    return [[value for value in cell if value] for cell in cells]


def _passes(test: Where, column: pd.Series) -> np.ndarray:
    """Return whether each cell passes every test of a ``where`` rule, bool[items]."""
    passes = np.ones(len(column), dtype=bool)
    cells = _cells(column)
    for listed, must_match in ((test.any_of, True), (test.none_of, False)):
        if listed is not None:
            values = {value_as_text(value).casefold() for value in listed}
            passes &= np.array([bool(values & set(cell)) == must_match for cell in cells], dtype=bool)
    if test.at_least is not None or test.at_most is not None:
        number = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
        low = -np.inf if test.at_least is None else test.at_least
        high = np.inf if test.at_most is None else test.at_most
        passes &= (number >= low) & (number <= high)
    return passes


def _on_offer(rule: Available, table: pd.DataFrame | None, items: IdMap) -> np.ndarray:
    """Return whether each item is on offer at the time of the rule, bool[items]."""
    time = _to_seconds(rule.at)
    is_on_offer = np.ones(len(items), dtype=bool)
    for field, is_start in ((rule.from_field, True), (rule.until_field, False)):
        if field:
            cells = values_as_text(_column(table, field, items))
            limit = np.array([_to_seconds(cell) if cell else np.nan for cell in cells])
            is_met = limit <= time if is_start else time < limit
            is_on_offer &= np.isnan(limit) | is_met
    return is_on_offer


def _to_seconds(moment: Any) -> float:
    """Return a time as seconds since 1970.

    Args:
        moment: a number of seconds, or an ISO date or time, in UTC if it has no zone.

    Raises:
        InputError: the text is neither a number nor an ISO date.
    """
    try:
        return float(moment) if not isinstance(moment, date) else _timestamp(moment)
    except OverflowError:
        raise InputError("available: a number of seconds has more digits than a time can have") from None
    except ValueError:
        pass
    try:
        return _timestamp(datetime.fromisoformat(str(moment)))
    except ValueError:
        raise InputError(f"available: {moment!r} is neither an ISO date nor seconds since 1970") from None


def _timestamp(moment: date) -> float:
    """Return seconds since 1970 of a date (its start) or a time (in UTC if it has no zone)."""
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _values(column: pd.Series) -> csr_array:
    """Return which values of a field each item has: csr (items, values), 1 where the item has it."""
    cells = [sorted(set(cell)) for cell in _cells(column)]
    row = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    code, names = pd.factorize(np.array([value for cell in cells for value in cell], dtype=object))
    return csr_array((np.ones(len(row), np.float32), (row, code)), shape=(len(cells), len(names)))
