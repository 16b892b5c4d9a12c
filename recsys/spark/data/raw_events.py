"""Hold a log on Spark before its rows are checked: its rows in pieces, and how to parse them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import types as T

from recsys.data.reading.columnar import RawChunk

FILE = "file"
"""Column with the number of the text file of a row (``text._file_number``)."""

SEVERAL_LINES = -1
"""Code of the reason for refusing a row that is only one line of a quoted field."""

Batches = Iterator[pa.RecordBatch]
"""The batches of a partition, as an executor gets them."""

ParsedRows = Iterator[tuple[RawChunk, dict[str, pa.Array]]]
"""Pairs of a chunk of rows and a dict: name of a column -> its values in the chunk.

The dict has the id columns that keep their type. The ids of other columns become text. For text
files it also has the column :data:`FILE`.
"""


@dataclass(frozen=True)
class RawEvents:
    """A log before its rows are checked.

    Attributes:
        pieces: pairs of a DataFrame (lines of text, file paths or typed columns) and the function
            that parses its batches on an executor.
        columns: the columns of the log, by the names of this package, such as "user_id".
        id_types: ``user_id`` and ``item_id`` -> type of the ids after the check.
    """

    pieces: list[tuple[DataFrame, Callable[[Batches], ParsedRows]]]
    columns: tuple[str, ...]
    id_types: dict[str, T.DataType]
