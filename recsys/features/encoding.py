"""Encode a table of items or users as a matrix of features (:class:`recsys.types.Features`).

The matrix has one row per item or user, and one column per feature. Every column of the table is a
*field*, except the id and columns whose names start with ``_``. A field gives one or more features,
named ``field=value``. The kind of a field is inferred from its values:

* *vector*, an embedding: every value is a list of numbers, or such a list as text
  (``[0.12, -0.5, …]``). All lists have the same length, at least eight, and not all numbers are whole.
  Numbered columns (``emb_0`` to ``emb_383``) are a vector too. Its features are the unchanged numbers:
  ``emb=[0]``, ``emb=[1]``.
* *number*: every value is a number, and there are more than ten distinct ones: ``year=1987``,
  ``year=1994`` (see :func:`_interpolate_knots`).
* *list*: some value is a list or contains a ``|``: ``genres=drama``, ``genres=war``. If the parts
  between the ``|`` rarely recur and few values contain one, the field is a text in which a ``|`` is a
  sign like any other (see :func:`is_list_field`).
* *category*: at least half of the values occur more than once: ``country=arvenia``.
* *text*: any other field. Its words are counted: ``overview=harbour``, ``title=story``.

Missing and empty values give no entry. A value or word that occurs in only one row is left out,
because it does not relate any two rows.
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
"""The largest number of knots of a number field.

A field with at most this many distinct numbers is not a number field, but a list, category or text.
"""

VECTOR = 8
"""The smallest length of a list of numbers that counts as a vector."""

LIST_SHARE = 0.05
"""The share of cells with a ``|`` from which on a field is a list, whatever its parts are."""

_NUMBERED = re.compile(r"(.*?)[_.-]?(\d+)")
_TAG = re.compile(r"<(?:[a-zA-Z!/?][^<>]*)>")
_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿가-힯฀-๿"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]{{2,}}")
_ACCENTS = re.compile("[̀-ͯ]")


def encode_features(table: pd.DataFrame, key: str, ids: IdMap) -> Features:
    """Return the features of a table of items or users, with one row per id of ``ids``.

    The matrix is csr (ids, features) of float32. The kinds of fields and the names of features are
    described in this module. The row of an id that the table does not have is empty.

    Args:
        table: the table, with at most one row per id.
        key: the column of the table with the ids.
        ids: the ids, in the order of the rows of the result. Rows of the table with other ids are
            left out.

    Raises:
        InputError: an id occurs twice, or the name of a column contains ``=``.
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
    """Return the columns of each field, as a dict: name of the field -> its columns as a table.

    A field has one column, or several numbered columns of numbers that together are a vector. The id
    and columns whose name starts with ``_`` are not fields.
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
    """Return numbered columns as vectors, float64[rows, columns], or None if they are not vectors.

    They are vectors if all values are finite numbers and not all of them are whole. A row may also be
    empty in all columns; its vector is zeros.
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
    """Return the cells of one column as vectors, float64[rows, length], or None if they are not.

    They are vectors if all cells are lists of numbers of the same length, at least :data:`VECTOR`, and
    not all numbers are whole. The vector of a missing cell is zeros.
    """
    vectors: list[np.ndarray | None] = []
    length = 0
    for cell in column:
        is_list = isinstance(cell, list | tuple | np.ndarray)
        if (is_list and not len(cell)) or (not is_list and not _cell_values(cell)):
            vectors.append(None)
            continue
        vector = _parse_vector(cell)
        # The first cell that is not such a list decides, so that a column of words costs nothing.
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
    """Return a dict: field -> int64, the columns of its features in the matrix.

    Fields are in the order in which they first appear. The field of a feature is its name up to
    ``=``.

    >>> columns_by_field(Features(csr_array((1, 3)), ("genres=drama", "year=1994", "genres=war")))
    {'genres': array([0, 2]), 'year': array([1])}
    """
    columns: dict[str, list[int]] = {}
    for column, name in enumerate(features.names):
        columns.setdefault(name.partition("=")[0], []).append(column)
    return {field: np.array(columns) for field, columns in columns.items()}


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without HTML tags and accents.

    Words of one letter or digit are left out. In scripts that do not separate words, such as
    Japanese, every two neighbouring characters are a word. A character that stands alone is a word
    too.

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
    """Return a text in lower case, without HTML tags, entities and accents, and with single spaces.

    Only accents of Latin, Greek and Cyrillic letters are removed. A Japanese sound mark is kept,
    because without it the character is a different one.
    """
    # An escaped tag, ``&lt;b&gt;``, becomes a tag only when its entities are decoded, so tags are
    # removed before and after.
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", _ACCENTS.sub("", text)).split())


def numbers_of_field(column: pd.Series) -> np.ndarray | None:
    """Return the numbers of a number field, float64[rows], or None for any other field.

    A missing cell is NaN. In a number field every other cell has one finite number, and there are
    more than :data:`KNOTS` distinct ones.
    """
    return _numbers_of_cells([_cell_values(value) for value in column])


def _numbers_of_cells(cells: list[list[str]]) -> np.ndarray | None:
    """Return the numbers of a field, as :func:`numbers_of_field` does.

    Args:
        cells: the values of each cell as text, see :func:`_cell_values`.
    """
    single_cells = pd.Series([c[0] if len(c) == 1 else None for c in cells], dtype=object)
    numbers = pd.to_numeric(single_cells, errors="coerce")
    has_value = np.array([len(c) > 0 for c in cells], dtype=bool)
    if has_value.any() and np.isfinite(numbers[has_value]).all() and numbers.nunique() > KNOTS:
        return numbers.to_numpy(dtype=np.float64)
    return None


def _encode_field(column: pd.Series) -> tuple[csr_array, list[str]]:
    """Return the features of a field that is not a vector, and their values as text.

    The features are csr (rows, values of the field) of float32.
    """
    cells = [_cell_values(value) for value in column]
    numbers = _numbers_of_cells(cells)
    if numbers is not None:
        return _interpolate_knots(numbers)
    if _are_lists(cells):
        return _count_values(cells, lambda cell: _split_list("|".join(cell)))
    single_values = pd.Series([_normalise(c[0]) for c in cells if c], dtype=object)
    if single_values.duplicated(keep=False).mean() >= 0.5:
        return _count_values(cells, lambda cell: [_normalise(value) for value in cell])
    return _count_values(cells, lambda cell: [word for value in cell for word in split_words(value)])


def is_list_field(column: pd.Series) -> bool:
    """Return whether the cells of a column are lists, such as lists of genres.

    They are if some cell is a list. Texts with ``|`` are lists if at least :data:`LIST_SHARE` of
    the cells that are not empty have one, or if at least half of all parts between them occur more
    than once. So the titles "Alien" and "Up | Director's cut" are not lists.
    """
    has_lists = any(isinstance(value, list | tuple | set | np.ndarray) for value in column)
    return has_lists or _are_lists([_cell_values(value) for value in column])


def _are_lists(cells: list[list[str]]) -> bool:
    """Return whether a field is encoded as one of lists, as :func:`is_list_field` says.

    A list of one value counts as that value.

    Args:
        cells: the values of each cell as text, see :func:`_cell_values`.
    """
    if any(len(c) > 1 for c in cells):
        return True
    texts = [c[0] for c in cells if c]
    with_bar = sum("|" in text for text in texts)
    if with_bar == 0 or with_bar >= LIST_SHARE * len(texts):
        return with_bar > 0
    parts = pd.Series([part for text in texts for part in _split_list(text)], dtype=object)
    return bool(parts.duplicated(keep=False).mean() >= 0.5)


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
    """Return the normalised values of a cell in which values are separated by ``|``."""
    return [value for part in cell.split("|") if (value := _normalise(part))]


def _count_values(cells: list[list[str]], split: Callable[[list[str]], list[str]]) -> tuple[csr_array, list[str]]:
    """Return how often each value occurs in each row, csr (rows, values), and the values.

    Values that occur in fewer than two rows are left out.

    Args:
        cells: the values of each row's cell as text.
        split: the function that returns the values or words of a cell to count.
    """
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
    """Encode each number by its two neighbouring knots, with weights of linear interpolation.

    The knots are quantiles of the numbers, at most :data:`KNOTS`. A number between two knots has two
    weights that sum to 1; the weight of the closer knot is larger. Similar numbers have the same
    knots, so a dot product shows that 1994 is close to 1995, and a linear model of the weights is a
    piecewise linear function of the number.

    The result is csr (rows, knots) of float32, and the knots as text. The row of a NaN is empty.
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
    """Return the features with their rows shuffled at random, to test whether the features matter.

    If a model is as good with shuffled features, the features do not help it. Rows without features
    stay empty, because it is informative whether an item has features: popular items more often
    have a description.

    Args:
        features: the features of items.
        seed: another seed gives another order.
    """
    described = np.flatnonzero(np.diff(features.matrix.indptr) > 0)
    rows = np.arange(features.matrix.shape[0])
    rows[described] = np.random.default_rng(seed).permutation(described)
    return Features(csr_array(features.matrix[rows]), features.names, features.dense)
