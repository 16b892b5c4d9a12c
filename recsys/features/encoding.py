"""Encode an items (or users) table as :class:`recsys.types.Features`: raw counts and values, one
row per id.

Every column except the id and names that start with ``_`` is a *field*, whose kind is inferred from
its values:

* *vector*: every value is a list of the same number of numbers, at least eight and not all whole, or
  such a list as text (``[0.12, -0.5, …]``), or the field is a set of numbered columns (``emb_0`` to
  ``emb_383``): an embedding, taken as it is: ``emb=[0]``, ``emb=[1]``;
* *number*: every value is a number, with more than ten distinct ones: ``year=1987``, ``year=1994``
  (see :func:`_interpolate_knots`);
* *list*: some value contains a ``|``, or is a list: ``genres=drama``, ``genres=war``;
* *category*: at least half of the values occur more than once: ``country=arvenia``;
* *text*: anything else; its words are counted: ``overview=harbour``, ``title=story``.

A feature is named ``field=value``. Missing and empty values give no entry, so an empty field gives
no feature. A value or word of a single row relates no two rows and is left out.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from recsys.errors import InputError
from recsys.types import Features, IdMap

KNOTS = 10
"""Largest number of knots of a number field; fields with at most this many distinct numbers are
categories.
"""

VECTOR = 8
"""Smallest length of a list of numbers that counts as a vector."""

_NUMBERED = re.compile(r"(.*?)[_.-]?(\d+)")
_TAG = re.compile(r"<(?:[a-zA-Z!/?][^<>]*)>")
_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿가-힯฀-๿"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]{{2,}}")
_ACCENTS = re.compile("[̀-ͯ]")


def encode_features(table: pd.DataFrame, key: str, ids: IdMap) -> Features:
    """Return the features of a table, with one row per id of ``ids``.

    The row of an id that the table does not have is empty.

    Args:
        table: one row per id, which is in the column ``key``, and any other columns.
        ids: the ids, in row order. Ids of the table that are not among them are left out.

    Raises:
        InputError: an id occurs twice, or the name of a field contains ``=``.
    """
    rows = ids.rows(table[key])
    table = table[rows >= 0]
    rows = rows[rows >= 0]
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"the table of features repeats a {key}: keep one row per {key}")
    parts = [csr_array((len(table), 0), dtype=np.float32)]
    names = []
    dense = []
    for name, columns in _group_columns(table, key).items():
        if "=" in str(name):
            raise InputError(f"column '{name}': rename it, features are named field=value")
        vectors = _vectors_of_columns(columns) if len(columns.columns) > 1 else _vectors_of_cells(columns.iloc[:, 0])
        if vectors is None:
            block, values = _encode_field(columns.iloc[:, 0])
        else:
            block = csr_array(vectors.astype(np.float32))
            values = [f"[{position}]" for position in range(vectors.shape[1])]
            dense.append(str(name))
        parts.append(block)
        names += [f"{name}={value}" for value in values]
    stacked = csr_array(hstack(parts, format="csr"))
    placement = csr_array((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(len(ids), len(rows)))
    matrix = csr_array(placement @ stacked).astype(np.float32)
    matrix.sort_indices()
    return Features(matrix, tuple(names), tuple(dense))


def _group_columns(table: pd.DataFrame, key: str) -> dict[str, pd.DataFrame]:
    """Return field -> its columns, without the id and without columns whose name starts with ``_``.

    A field has one column, or several numbered columns of numbers that together are a vector.
    """
    names = [name for name in table.columns if name != key and not str(name).startswith("_")]
    numbered: dict[str, dict[int, Any]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(str(name))
        if match and match[1]:
            numbered.setdefault(match[1], {})[int(match[2])] = name
    vector_of: dict[Any, tuple[str, list[Any]]] = {}
    for field, by_number in numbered.items():
        first = min(by_number)
        # Numbers without a gap: year_1990 and year_2000 are two fields.
        is_run = first in (0, 1) and max(by_number) == first + len(by_number) - 1
        if is_run and len(by_number) >= VECTOR and field not in names:
            columns = [by_number[number] for number in sorted(by_number)]
            if _vectors_of_columns(table[columns]) is not None:
                vector_of |= dict.fromkeys(columns, (field, columns))
    groups = {}
    for name in names:
        field, columns = vector_of.get(name, (name, [name]))
        groups[field] = table[columns]
    return groups


def _vectors_of_columns(columns: pd.DataFrame) -> np.ndarray | None:
    """Return float64[rows, columns] if the columns are a vector, else None.

    All values must be finite numbers and not all whole. A row may lack all of its numbers, and is
    then zeros.
    """
    numbers = np.column_stack([pd.to_numeric(columns[name], errors="coerce") for name in columns])
    numbers = numbers.astype(np.float64)
    is_missing = ~np.isfinite(numbers)
    is_blank = np.column_stack(
        [columns[name].isna() | (columns[name].astype(str).str.strip() == "") for name in columns]
    )
    empty_rows = is_blank.all(axis=1)
    if is_missing[~empty_rows].any() or empty_rows.all():
        return None
    numbers[empty_rows] = 0.0
    if (numbers == np.floor(numbers)).all():
        return None
    return numbers


def _vectors_of_cells(column: pd.Series) -> np.ndarray | None:
    """Return float64[rows, length] if the cells are lists of numbers of one length, else None.

    A missing cell becomes zeros.
    """
    vectors: list[np.ndarray | None] = []
    length = 0
    for cell in column:
        is_list = isinstance(cell, list | tuple | np.ndarray)
        if (is_list and not len(cell)) or (not is_list and not _cell_values(cell)):
            vectors.append(None)
            continue
        vector = _parse_vector(cell)
        # The first cell that is no such list decides, so that a column of words costs nothing.
        if vector is None or len(vector) < VECTOR or (length and len(vector) != length):
            return None
        length = len(vector)
        vectors.append(vector)
    if not length:
        return None
    numbers = np.stack([np.zeros(length) if vector is None else vector for vector in vectors])
    if not np.isfinite(numbers).all() or (numbers == np.floor(numbers)).all():
        return None
    return numbers


def _parse_vector(cell: Any) -> np.ndarray | None:
    """Return the numbers of a list, or of a text such as ``[0.1, -2]`` or ``0.1|-2``; None for any
    other cell."""
    if isinstance(cell, str):
        cell = [part for part in re.split(r"[\s,|;]+", cell.strip().strip("[](){}")) if part]
    if not isinstance(cell, list | tuple | np.ndarray):
        return None
    try:
        return np.asarray(cell, dtype=np.float64).reshape(-1)
    except (ValueError, TypeError):
        return None


def columns_by_field(features: Features) -> dict[str, np.ndarray]:
    """Return field -> int64 columns of its features, in order of first appearance.

    >>> columns_by_field(Features(csr_array((1, 3)), ("genres=drama", "year=1994", "genres=war")))
    {'genres': array([0, 2]), 'year': array([1])}
    """
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(features.names):
        columns.setdefault(name.partition("=")[0], []).append(column)
    return {field: np.array(columns) for field, columns in columns.items()}


def split_words(text: str) -> list[str]:
    """Return the words of a text, without HTML, case and accents.

    Scripts that do not separate words give pairs of characters.

    >>> split_words("<b>Amélie</b> &amp; the CAFÉ: 東京物語, part 2")
    ['amelie', 'the', 'cafe', '東京', '京物', '物語', 'part']
    """
    words: list[str] = []
    for word in _WORD.findall(_normalise(text)):
        if re.match(rf"[{_UNSPACED}]", word):
            words += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        else:
            words.append(word)
    return words


def _normalise(text: str) -> str:
    """Return text without tags, entities, case and accents, with single spaces.

    Only accents of Latin, Greek and Cyrillic letters are removed: a Japanese sound mark changes the
    sound.
    """
    # An escaped tag, ``&lt;b&gt;``, becomes a tag only when its entities are decoded, so tags are
    # removed before and after.
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", _ACCENTS.sub("", text)).split())


def numbers_of_field(column: pd.Series) -> np.ndarray | None:
    """Return a field as numbers, float64[rows], NaN where missing; None if it is not a number
    field."""
    return _numbers_of_cells([_cell_values(value) for value in column])


def _numbers_of_cells(cells: list[list[str]]) -> np.ndarray | None:
    single_cells = pd.Series([c[0] if len(c) == 1 else None for c in cells], dtype=object)
    numbers = pd.to_numeric(single_cells, errors="coerce")
    has_value = np.array([len(c) > 0 for c in cells], dtype=bool)
    if has_value.any() and np.isfinite(numbers[has_value]).all() and numbers.nunique() > KNOTS:
        return numbers.to_numpy(dtype=np.float64)
    return None


def _encode_field(column: pd.Series) -> tuple[csr_array, list[str]]:
    """Return a field as csr (rows, values of the field), and the names of the values."""
    cells = [_cell_values(value) for value in column]
    numbers = _numbers_of_cells(cells)
    if numbers is not None:
        return _interpolate_knots(numbers)
    if any(len(c) > 1 or "|" in c[0] for c in cells if c):
        return _count_values(cells, lambda cell: _split_list("|".join(cell)))
    single_values = pd.Series([_normalise(c[0]) for c in cells if c], dtype=object)
    if single_values.duplicated(keep=False).mean() >= 0.5:
        return _count_values(cells, lambda cell: [_normalise(value) for value in cell])
    return _count_values(cells, lambda cell: [word for value in cell for word in split_words(value)])


def _cell_values(value: Any) -> list[str]:
    """Return the values of a cell as text: none if it is missing or blank, several if it is a
    list.
    """
    if isinstance(value, list | tuple | set | np.ndarray):
        return [text for item in value for text in _cell_values(item)]
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return []
    text = str(value)
    if not text.strip():
        return []
    return [text]


def _split_list(cell: str) -> list[str]:
    return [value for part in cell.split("|") if (value := _normalise(part))]


def _count_values(cells: list[list[str]], split: Callable[[list[str]], list[str]]) -> tuple[csr_array, list[str]]:
    """Return how often each row has each value, and the values. Values of fewer than two rows are
    left out."""
    # scikit-learn takes a second to import, and few processes that import this module encode features.
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=split, min_df=2, dtype=np.float32)
    try:
        counts = csr_array(counter.fit_transform(cells))
    except ValueError:
        # scikit-learn raises it if no value is left.
        return csr_array((len(cells), 0), dtype=np.float32), []
    return counts, [str(name) for name in counter.get_feature_names_out()]


def _interpolate_knots(values: np.ndarray) -> tuple[csr_array, list[str]]:
    """Encode each number as shares of the two knots around it (linear interpolation). NaN gives an
    empty row.

    Knots are quantiles. Similar numbers share knots, so a dot product shows that 1994 is close to
    1995, and a linear model of the shares is a piecewise linear function of the number.
    """
    finite = np.flatnonzero(np.isfinite(values))
    knots = np.unique(np.quantile(values[finite], np.linspace(0, 1, KNOTS), method="nearest"))
    lower = np.clip(np.searchsorted(knots, values[finite], side="right") - 1, 0, len(knots) - 2)
    share = (values[finite] - knots[lower]) / (knots[lower + 1] - knots[lower])
    rows = np.concatenate([finite, finite])
    columns = np.concatenate([lower, lower + 1])
    hats = csr_array((np.concatenate([1 - share, share]), (rows, columns)), shape=(len(values), len(knots)))
    hats.eliminate_zeros()
    return hats.astype(np.float32), [f"{knot:.12g}" for knot in knots]


def shuffle_features(features: Features, seed: int) -> Features:
    """Return the features with their rows permuted, among the rows that have any, as a placebo.

    Rows without features stay empty, because whether an item has features is informative too:
    popular items are described better.
    """
    described = np.flatnonzero(np.diff(features.matrix.indptr) > 0)
    rows = np.arange(features.matrix.shape[0])
    rows[described] = np.random.default_rng(seed).permutation(described)
    return Features(csr_array(features.matrix[rows]), features.names, features.dense)
