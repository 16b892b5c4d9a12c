"""How files are read: the settings of the section ``[data]`` that do not name a file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recsys.data.reading.validate import TimeUnit
from recsys.errors import suggest_nearest
from recsys.schema import EVENTS

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Suffix of a file name -> its format; ``data.reading.files.READERS`` has a reader for each
format.
"""

FORMATS = ("auto", *dict.fromkeys(SUFFIXES.values()), "movielens")
"""The values of ``[data] format``."""


class ReadSettings(BaseModel):
    """How files are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "auto",
        description=(
            f"file format, one of {', '.join(FORMATS)}; `auto`: by the name, {' '.join(SUFFIXES)}, optionally"
            " followed by .gz"
        ),
    )
    columns: dict[str, str] = Field(
        {},
        description="canonical column -> its name in the files, or its position from 0 in a file without a header",
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="character between the fields of text files; unset: tab for .tsv, else comma",
    )
    header: bool | None = Field(
        None,
        description="whether the first row names the columns; unset: yes, unless every mapped column is a position",
    )
    encoding: str = Field("utf-8", description="encoding of text files; a byte order mark is skipped")
    time_unit: TimeUnit | None = Field(
        None,
        description=(
            "unit of timestamps: s, ms, us, or iso for ISO 8601; unset: seconds or ISO 8601,"
            " detected; others are refused"
        ),
    )
    max_refused_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="stop with an error if more than this share of the rows is refused",
    )

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
        known_names = EVENTS.required + EVENTS.optional
        for name in columns:
            if name not in known_names:
                raise ValueError(f"'{name}' is not a column of events.{suggest_nearest(name, known_names)}")
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
    def _usable_delimiter(cls, character: str | None) -> str | None:
        if character and (character in '"\r\n' or not character.isascii()):
            raise ValueError("a delimiter is one ASCII character, but not a quote or a line end")
        return character
