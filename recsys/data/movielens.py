"""The published MovieLens layouts, from a folder or a zip: ``latest`` (ratings.csv) and ``100k`` (u.data)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.data.files import Source
from recsys.errors import InputError

GENRES_100K = (
    "unknown Action Adventure Animation Children Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical"
    " Mystery Romance Sci-Fi Thriller War Western"
).split()
_YEAR = re.compile(r"\((\d{4})\)\s*$")


@dataclass(frozen=True)
class Layout:
    """Where the ratings are, how to read them, and functions that give the other tables (None = none)."""

    events: Source
    reading: dict[str, Any]
    items: Callable[[], pd.DataFrame | None]
    users: Callable[[], pd.DataFrame | None]


def layout(path: Path) -> Layout | None:
    """Return the layout found in a folder or zip, or None when there is none.

    Raises:
        InputError: the zip is damaged.
    """
    if path.is_dir():
        members = {file.name: Source(file) for file in path.iterdir() if file.is_file()}
    elif path.suffix == ".zip" and path.is_file():
        try:
            names = zipfile.ZipFile(path).namelist()
        except zipfile.BadZipFile as error:
            raise InputError(f"{path}: not a whole zip archive ({error}). Fetch it again.") from error
        members = {Path(name).name: Source(path, name) for name in names if not name.endswith("/")}
    else:
        return None
    if "ratings.csv" in members:
        columns = {"user_id": "userId", "item_id": "movieId", "value": "rating", "timestamp": "timestamp"}
        reading: dict[str, Any] = {"format": "csv", "columns": columns, "time_unit": "s", "delimiter": ","}
        return Layout(members["ratings.csv"], reading, lambda: _latest_items(members), lambda: None)
    if "u.data" in members:
        columns = {"user_id": "0", "item_id": "1", "value": "2", "timestamp": "3"}
        reading = {"format": "tsv", "columns": columns, "time_unit": "s", "header": False}
        return Layout(members["u.data"], reading, lambda: _100k_items(members), lambda: _100k_users(members))
    return None


def _latest_items(members: dict[str, Source]) -> pd.DataFrame | None:
    """Return movies.csv, with the columns of content.csv (year, director, cast, overview …) where it is there."""
    if "movies.csv" not in members:
        return None
    movies = _text_csv(members["movies.csv"])
    movies["genres"] = movies["genres"].replace("(no genres listed)", "")
    movies["year"] = _years(movies["title"])
    if "content.csv" in members:
        content = _text_csv(members["content.csv"])
        movies = movies.merge(content.drop_duplicates("movieId"), on="movieId", how="left", suffixes=("", "_content"))
        if "year_content" in movies:
            movies["year"] = movies["year"].fillna(pd.to_numeric(movies.pop("year_content"), errors="coerce"))
    return movies.rename(columns={"movieId": "item_id"})


def _100k_items(members: dict[str, Source]) -> pd.DataFrame | None:
    if "u.item" not in members:
        return None
    rows = _bars(members["u.item"])
    flags = np.array([row[5:24] for row in rows]) == "1"
    titles = pd.Series([row[1] for row in rows], dtype=object)
    genres = ["|".join(genre for genre, on in zip(GENRES_100K, flag, strict=True) if on) for flag in flags]
    ids = pd.Series([row[0] for row in rows], dtype=object)
    return pd.DataFrame({"item_id": ids, "title": titles, "genres": genres, "year": _years(titles)})


def _100k_users(members: dict[str, Source]) -> pd.DataFrame | None:
    if "u.user" not in members:
        return None
    names = ["user_id", "age", "gender", "occupation", "zip_code"]
    return pd.DataFrame([row[:5] for row in _bars(members["u.user"])], columns=names, dtype=object)


def _bars(source: Source) -> list[list[str]]:
    with io.TextIOWrapper(source.open(), encoding="latin-1") as text:
        return [line.rstrip("\r\n").split("|") for line in text if line.strip()]


def _text_csv(source: Source) -> pd.DataFrame:
    with source.open() as stream:
        return pd.read_csv(stream, dtype=str, keep_default_na=False, encoding="utf-8")


def _years(titles: pd.Series) -> pd.Series:
    return pd.to_numeric(titles.str.extract(_YEAR, expand=False), errors="coerce")
