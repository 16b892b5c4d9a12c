"""An items (or users) table -> :class:`recsys.types.Features`: raw counts and values, one row an id.

Every column but the id and names that start with ``_`` is a *field*; what kind of field is read off its values:

    number     every value is a number, with more than ten distinct ones    year=1987  year=1994 (see :func:`_hats`)
    list       some value holds a ``|``, or is a list                       genres=drama  genres=war
    category   at least half of the values occur more than once             country=arvenia
    text       anything else: its words are counted                         overview=harbour  title=story

A feature is named ``field=value``. Missing and empty values give no entry, so a field that is all empty gives
no feature. A value or word that only one row has links nothing to anything and is left out.
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
from sklearn.feature_extraction.text import CountVectorizer

from recsys.errors import InputError
from recsys.types import Features, IdMap

KNOTS = 10
"""Most knots of a number field, and the most distinct numbers that are still categories."""

_TAG = re.compile(r"<(?:[a-zA-Z!/?][^<>]*)>")
_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿가-힯฀-๿"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]{{2,}}")
_ACCENTS = re.compile("[̀-ͯ]")


def encode_features(table: pd.DataFrame, key: str, ids: IdMap) -> Features:
    """Return the features of ``table``: row i is that of ``ids`` row i, empty where the table has no such id.

    Args:
        table: one row an id, in the column ``key``; any other columns.
        ids: rows of the table outside it are left out.

    Raises:
        InputError: an id occurs twice, or a field's name holds ``=``.
    """
    rows = ids.rows(table[key])
    table, rows = table[rows >= 0], rows[rows >= 0]
    if len(np.unique(rows)) < len(rows):
        raise InputError(f"the table of features repeats a {key}: keep one row of each")
    parts, names = [csr_array((len(table), 0), dtype=np.float32)], []
    for name in table.columns:
        if name == key or str(name).startswith("_"):
            continue
        if "=" in str(name):
            raise InputError(f"column '{name}': rename it, features are named field=value")
        block, values = _field(table[name])
        parts.append(block)
        names += [f"{name}={value}" for value in values]
    stacked = csr_array(hstack(parts, format="csr"))
    place = csr_array((np.ones(len(rows), np.float32), (rows, np.arange(len(rows)))), shape=(len(ids), len(rows)))
    matrix = csr_array(place @ stacked).astype(np.float32)
    matrix.sort_indices()
    return Features(matrix, tuple(names))


def columns_by_field(known: Features) -> dict[str, np.ndarray]:
    """Return field -> int64 columns, in order of first appearance.

    >>> fields(Features(csr_array((1, 3)), ("genres=drama", "year=1994", "genres=war")))
    {'genres': array([0, 2]), 'year': array([1])}
    """
    found: dict[str, list[int]] = {}
    for column, name in enumerate(known.names):
        found.setdefault(name.partition("=")[0], []).append(column)
    return {field: np.array(columns) for field, columns in found.items()}


def split_words(text: str) -> list[str]:
    """Return the words of a text, without HTML, case and accents; scripts without spaces give pairs of characters.

    >>> words("<b>Amélie</b> &amp; the CAFÉ: 東京物語, part 2")
    ['amelie', 'the', 'cafe', '東京', '京物', '物語', 'part']
    """
    found: list[str] = []
    for word in _WORD.findall(_plain(text)):
        if re.match(rf"[{_UNSPACED}]", word):
            found += [word[i : i + 2] for i in range(max(1, len(word) - 1))]
        else:
            found.append(word)
    return found


def _plain(text: str) -> str:
    """Return text without tags and entities, in one case, Latin letters without accents, single spaces.

    Only the accents that Latin, Greek and Cyrillic letters carry go: a Japanese sound mark changes the sound.
    """
    text = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text)))
    text = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", _ACCENTS.sub("", text)).split())


def _field(column: pd.Series) -> tuple[csr_array, list[str]]:
    """Return (rows, values of the field) and the values' names."""
    cells = [_cell(value) for value in column]
    numbers = pd.to_numeric(pd.Series([c[0] if len(c) == 1 else None for c in cells], dtype=object), errors="coerce")
    given = np.array([len(c) > 0 for c in cells], dtype=bool)
    if given.any() and np.isfinite(numbers[given]).all() and numbers.nunique() > KNOTS:
        return _hats(numbers.to_numpy(dtype=np.float64))
    if any(len(c) > 1 or "|" in c[0] for c in cells if c):
        return _count(cells, lambda cell: _listed("|".join(cell)))
    whole = pd.Series([_plain(c[0]) for c in cells if c], dtype=object)
    if whole.duplicated(keep=False).mean() >= 0.5:
        return _count(cells, lambda cell: [_plain(value) for value in cell])
    return _count(cells, lambda cell: [word for value in cell for word in split_words(value)])


def _cell(value: Any) -> list[str]:
    """Return a cell's values as text: none when it is missing or blank, several when it is a list."""
    if isinstance(value, list | tuple | set | np.ndarray):
        return [text for item in value for text in _cell(item)]
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return []
    return [str(value)] if str(value).strip() else []


def _listed(cell: str) -> list[str]:
    return [value for part in cell.split("|") if (value := _plain(part))]


def _count(cells: list[list[str]], split: Callable[[list[str]], list[str]]) -> tuple[csr_array, list[str]]:
    """Return how often each row has each value, of the values that at least two rows have."""
    counter = CountVectorizer(analyzer=split, min_df=2, dtype=np.float32)
    try:
        counts = csr_array(counter.fit_transform(cells))
    except ValueError:  # scikit-learn's word for "nothing is left"
        return csr_array((len(cells), 0), dtype=np.float32), []
    return counts, [str(name) for name in counter.get_feature_names_out()]


def _hats(values: np.ndarray) -> tuple[csr_array, list[str]]:
    """Return a number as shares of the two knots around it (linear interpolation), NaN as an empty row.

    Knots are quantiles. Near numbers share knots, so that a dot product sees that 1994 is close to 1995, and a
    linear model of the shares is a piecewise linear function of the number.
    """
    known = np.flatnonzero(np.isfinite(values))
    knots = np.unique(np.quantile(values[known], np.linspace(0, 1, KNOTS), method="nearest"))
    left = np.clip(np.searchsorted(knots, values[known], side="right") - 1, 0, len(knots) - 2)
    share = (values[known] - knots[left]) / (knots[left + 1] - knots[left])
    rows, columns = np.concatenate([known, known]), np.concatenate([left, left + 1])
    hats = csr_array((np.concatenate([1 - share, share]), (rows, columns)), shape=(len(values), len(knots)))
    hats.eliminate_zeros()
    return hats.astype(np.float32), [f"{knot:.12g}" for knot in knots]


def shuffle_features(known: Features, seed: int) -> Features:
    """Return the features handed out anew among the rows that have any: what is told stays, of whom does not.

    The placebo of an ablation. Which rows have features says something too (popular items are described better), and a
    shuffle over all rows would destroy that as well.
    """
    told = np.flatnonzero(np.diff(known.matrix.indptr) > 0)
    rows = np.arange(known.matrix.shape[0])
    rows[told] = np.random.default_rng(seed).permutation(told)
    return Features(csr_array(known.matrix[rows]), known.names)
