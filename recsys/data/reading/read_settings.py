"""The settings of how files are read: the keys of section ``[data]`` that do not name a file."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recsys.data.reading.validate import TimeUnit
from recsys.errors import suggest_nearest
from recsys.schema import ITEM, MAPPABLE, USER

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Suffix of a file name -> its format. ``data.reading.files.READERS`` has a reader for each format."""

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Suffix of a compressed text file, as in ``.csv.gz`` -> its compression."""

FORMATS = ("auto", *dict.fromkeys(SUFFIXES.values()), "movielens")
"""The values of ``[data] format``."""


class ReadSettings(BaseModel):
    """The settings that say how files are read and which of their rows are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "auto",
        description=(
            f"file format, one of {', '.join(FORMATS)}; `auto`: by the name, {' '.join(SUFFIXES)}, text optionally"
            f" followed by {' '.join(COMPRESSED)}; all files of a folder have one format"
        ),
    )
    columns: dict[str, str] = Field(
        {},
        description="canonical column -> its name in the files, or its position from 0 in a file without a header",
    )
    item_columns: dict[str, str] = Field(
        {},
        description=(
            "the same for the items table, where `title` and every other column can be renamed too; unset: `item_id`"
            " as in `columns`"
        ),
    )
    user_columns: dict[str, str] = Field(
        {}, description="the same for the users table; unset: `user_id` as in `columns`"
    )
    user_fallback: str | None = Field(
        None,
        description=(
            "column that takes the place of a missing user id, such as the number of the invoice of a guest: the id"
            " becomes `guest:` and its text; unset: rows without a user id are refused"
        ),
    )
    duplicates: Literal["first", "last", "most frequent"] | None = Field(
        None,
        description=(
            "which row of an id counts in the items and users tables: `first`, `last`, or `most frequent`, the most"
            " frequent value of each column (the first of equally frequent ones); unset: all but the first row of an"
            " id are refused"
        ),
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        description="the text between the fields of text files, such as ; or ::; unset: tab for .tsv, else comma",
    )
    header: bool | None = Field(
        None,
        description="whether the first row names the columns; unset: yes, unless every mapped column is a position",
    )
    encoding: str = Field("utf-8", description="encoding of text files; a byte order mark is skipped")
    time_unit: TimeUnit | None = Field(
        None,
        description=(
            "unit of timestamps: s, ms, us, ns, yyyymmdd for dates written as digits (20180920, 20180920153000), or"
            " iso for ISO 8601; unset: seconds or ISO 8601, detected; others are refused"
        ),
    )
    max_refused_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="stop with an error if more than this share of the rows is refused",
    )

    def of_table(self, key: str) -> ReadSettings:
        """Return the settings for reading the items table or the users table.

        The columns are those of ``item_columns`` or ``user_columns``, and the format is detected
        from the file name.

        Args:
            key: ``item_id`` for the items table, ``user_id`` for the users table.
        """
        columns = {ITEM: self.item_columns, USER: self.user_columns}[key]
        if not columns and key in self.columns and not self.columns[key].isdigit():
            columns = {key: self.columns[key]}
        header = None
        if columns and all(name.isdigit() for name in columns.values()):
            header = self.header
        return self.model_copy(update={"format": "auto", "columns": columns, "header": header})

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(
                f"unknown format '{name}': use one of {', '.join(FORMATS)}.{suggest_nearest(name, FORMATS)}"
            )
        return name

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in MAPPABLE:
                raise ValueError(f"'{name}' is not a column of events.{suggest_nearest(name, MAPPABLE)}")
        return columns

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("unknown text encoding: use a name that Python knows, such as utf-8 or latin-1") from None
        return name

    @field_validator("delimiter")
    @classmethod
    def _usable_delimiter(cls, text: str | None) -> str | None:
        if text and set(text) & set('"\r\n'):
            raise ValueError("a delimiter is any text without quotes and line ends")
        return text
