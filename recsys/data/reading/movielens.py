"""Read the published MovieLens layouts from a folder or a zip archive.

``latest``, ``20m``, ``25m`` and ``32m`` have a ratings.csv. ``1m`` and ``10m`` have a ratings.dat
with the delimiter ``::``. ``100k`` has u.data and ready-made splits (u1.base with u1.test … u5, ua,
ub). Each part of such a split is named by its file.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.reading.sources import Source
from recsys.errors import InputError

GENRES_100K = (
    "unknown Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical"
    " Mystery Romance Sci-Fi Thriller War Western"
).split()
"""The genres of MovieLens 100k, in the order of the columns of its ``u.item``."""
_Tables = Callable[[dict[str, Source]], pd.DataFrame | None]
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_PART_100K = re.compile(r"u[1-5ab]\.(base|test)")


@dataclass(frozen=True)
class MovieLensLayout:
    """The files of a MovieLens data set, and how to read them.

    Attributes:
        events: the location of the ratings.
        reading: setting -> value, for reading the ratings (:class:`ReadSettings`).
        items, users: functions that read and return the items table and the users table, or None if
            the data set has no such table. They raise InputError for a damaged file.
    """

    events: Source
    reading: dict[str, Any]
    items: Callable[[], pd.DataFrame | None]
    users: Callable[[], pd.DataFrame | None]


def find_layout(path: Path) -> MovieLensLayout | None:
    """Return the MovieLens layout of a path, or None if it is not a MovieLens data set.

    Args:
        path: a folder, a zip archive, or one part of a ready-made split of 100k, such as
            ``u1.base``.

    Raises:
        InputError: the zip archive is damaged, or its ratings cannot be read.
    """
    ready_made = bool(_PART_100K.fullmatch(path.name)) and path.is_file()
    if path.is_dir() or ready_made:
        folder = path
        if ready_made:
            folder = path.parent
        members = {file.name: Source(file) for file in folder.iterdir() if file.is_file()}
    elif path.suffix == ".zip" and path.is_file():
        try:
            names = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile as error:
            raise InputError(f"{path}: not a complete zip archive ({error}). Fetch it again.") from error
        members = {Path(name).name: Source(path, name) for name in names if not name.endswith("/")}
    else:
        return None
    ratings = next((name for name in _READING if name in members), None)
    if ready_made:
        ratings = path.name
    if ratings is None:
        return None
    layout = ratings
    # The ready-made parts of 100K, such as u1.base, have the columns of u.data.
    if ready_made:
        layout = "u.data"
    reading, items, users = _READING[layout]
    if layout == "ratings.csv" and not _has_columns(members[ratings], path, reading["columns"]):
        return None
    if layout == "ratings.dat":
        reading = reading | {"columns": _present_columns(members[ratings], path, reading)}
    return MovieLensLayout(
        members[ratings],
        {"time_unit": "s"} | reading,
        lambda: _read_or_explain(items, members, path),
        lambda: _read_or_explain(users, members, path),
    )


def _has_columns(ratings: Source, path: Path, columns: dict[str, str]) -> bool:
    """Return whether the header of ratings.csv has the user and item columns of MovieLens."""
    names = _first_line(ratings, path).replace('"', "").split(",")
    return {columns["user_id"], columns["item_id"]} <= set(names)


def _present_columns(ratings: Source, path: Path, reading: dict[str, Any]) -> dict[str, str]:
    """Return the columns of ratings.dat that its first line has: canonical column -> position.

    The timestamp may be missing, as in some other data sets of this form.
    """
    width = len(_first_line(ratings, path).split(reading["delimiter"]))
    required = ("user_id", "item_id")
    return {
        column: position
        for column, position in reading["columns"].items()
        if column in required or int(position) < width
    }


def _first_line(ratings: Source, path: Path) -> str:
    try:
        with ratings.open() as stream:
            return stream.readline(1 << 16).decode("utf-8-sig", "replace").strip("\r\n")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: its ratings cannot be read ({error}). Fetch them again.") from error


def _read_or_explain(table: _Tables, members: dict[str, Source], path: Path) -> pd.DataFrame | None:
    """Return an items or users table, or None if the data set has no such table.

    Args:
        table: the function that reads the table.
        members: file name -> its source.
        path: the data set, for the message.

    Raises:
        InputError: the file is damaged or has another layout. The message is one line.
    """
    try:
        return table(members)
    except (
        ValueError,
        KeyError,
        IndexError,
        EOFError,
        OSError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        kind = table.__name__.strip("_").replace("_", " ")
        raise InputError(
            f"{path}: its {kind} are damaged, or not those of MovieLens ({error}). Fetch them again, or pass your own"
            " tables as [data] events, items and users."
        ) from error


def _latest_items(members: dict[str, Source]) -> pd.DataFrame | None:
    """Return the items table of movies.csv.

    If there is a content.csv (year, director, cast, overview …), its columns are added.
    """
    if "movies.csv" not in members:
        return None
    movies = _read_text_csv(members["movies.csv"])
    movies["genres"] = movies["genres"].replace("(no genres listed)", "")
    movies["year"] = _years_in_titles(movies["title"])
    if "content.csv" in members:
        content = _read_text_csv(members["content.csv"])
        movies = movies.merge(content.drop_duplicates("movieId"), on="movieId", how="left", suffixes=("", "_content"))
        if "year_content" in movies:
            movies["year"] = movies["year"].fillna(pd.to_numeric(movies.pop("year_content"), errors="coerce"))
    return movies.rename(columns={"movieId": "item_id"})


def _100k_items(members: dict[str, Source]) -> pd.DataFrame | None:
    if "u.item" not in members:
        return None
    rows = _split_lines(members["u.item"], "|")
    flags = np.array([row[5:24] for row in rows]) == "1"
    titles = pd.Series([row[1] for row in rows], dtype=object)
    genres = ["|".join(genre for genre, on in zip(GENRES_100K, flag, strict=True) if on) for flag in flags]
    ids = pd.Series([row[0] for row in rows], dtype=object)
    return pd.DataFrame({"item_id": ids, "title": titles, "genres": genres, "year": _years_in_titles(titles)})


def _100k_users(members: dict[str, Source]) -> pd.DataFrame | None:
    if "u.user" not in members:
        return None
    names = ["user_id", "age", "gender", "occupation", "zip_code"]
    return pd.DataFrame([row[:5] for row in _split_lines(members["u.user"], "|")], columns=names, dtype=object)


def _dat_items(members: dict[str, Source]) -> pd.DataFrame | None:
    if "movies.dat" not in members:
        return None
    movies = _dat_table(members["movies.dat"], ["item_id", "title", "genres"])
    if "genres" in movies:
        movies["genres"] = movies["genres"].replace("(no genres listed)", "")
    if "title" in movies:
        movies["year"] = _years_in_titles(movies["title"])
    return movies


def _dat_users(members: dict[str, Source]) -> pd.DataFrame | None:
    if "users.dat" not in members:
        return None
    table = _dat_table(members["users.dat"], ["user_id", "gender", "age", "occupation", "zip_code"])
    # The columns of another data set are not those of MovieLens, and no line says what they are.
    if table.shape[1] != 5:
        names = ["user_id", *(f"column_{number}" for number in range(1, table.shape[1]))]
        table = table.set_axis(names, axis=1)
    return table


def _dat_table(source: Source, names: list[str]) -> pd.DataFrame:
    """Return the fields of each line of a .dat file as text columns with these names.

    Further columns are called ``column_3`` and so on by their position.
    """
    rows = _split_lines(source, "::")
    width = max(map(len, rows), default=1)
    names = [*names, *(f"column_{number}" for number in range(len(names), width))][:width]
    filled = [row + [""] * (width - len(row)) for row in rows]
    return pd.DataFrame(filled, columns=names, dtype=object)


def _split_lines(source: Source, separator: str) -> list[list[str]]:
    """Return the fields of each line of a file without quotes, in UTF-8 (10m) or Latin-1 (100k,
    1m)."""
    with source.open() as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line.rstrip("\r").split(separator) for line in text.split("\n") if line.strip()]


def _read_text_csv(source: Source) -> pd.DataFrame:
    with source.open() as stream:
        return pd.read_csv(stream, dtype=str, keep_default_na=False, encoding="utf-8")


def _years_in_titles(titles: pd.Series) -> pd.Series:
    return pd.to_numeric(titles.str.extract(_YEAR, expand=False), errors="coerce")


_READING: dict[str, tuple[dict[str, Any], _Tables, _Tables]] = {
    "ratings.csv": (
        {
            "format": "csv",
            "delimiter": ",",
            "columns": {
                "user_id": "userId",
                "item_id": "movieId",
                "value": "rating",
                "timestamp": "timestamp",
            },
        },
        _latest_items,
        lambda members: None,
    ),
    "ratings.dat": (
        {
            "format": "csv",
            "delimiter": "::",
            "header": False,
            "columns": {"user_id": "0", "item_id": "1", "value": "2", "timestamp": "3"},
        },
        _dat_items,
        _dat_users,
    ),
    "u.data": (
        {
            "format": "tsv",
            "header": False,
            "columns": {"user_id": "0", "item_id": "1", "value": "2", "timestamp": "3"},
        },
        _100k_items,
        _100k_users,
    ),
}
"""Name of the ratings file -> its read settings, and the functions that read items and users."""
