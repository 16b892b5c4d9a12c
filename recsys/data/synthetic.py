"""Synthetic data: a film world for demos and scale tests, and small logs with known answers.

In the film world every user mixes some twenty tastes, in proportions that drift from the start to
the end of the log, and every film serves one or two tastes. For each event, one of the user's
tastes is drawn, then a released film that serves it. Every number is a hash of (seed, purpose, user
or film, draw). So the events of a user do not depend on other users, and the world is the same for
any number of users that are generated at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from recsys.data import words
from recsys.data.hashing import hash_words, id_bits, to_unit_interval
from recsys.data.writing import open_appenders
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import IdMap, Interactions

TASTES = len(words.THEMES)
"""The number of tastes."""
START = 1_451_606_400
"""2016-01-01 in seconds since 1970."""

YEAR = 31_557_600.0
"""A year in seconds."""


@dataclass(frozen=True)
class World:
    """The tables of a film world, and the recipe that generated them.

    Attributes:
        events: user_id, item_id, value (a rating from 0.5 to 5 in steps of 0.5), timestamp (whole
            seconds since 1970, as float64). The rows are sorted by user and time.
        items: item_id, title, genres and cast (several values separated by ``|``), director, year,
            overview.
        users: user_id, age_group, country.
        truth: the recipe, which has the true tastes of the users. Row i of its users or items is
            the i-th id in ascending order.
    """

    events: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame
    truth: Recipe


def film_world(
    users: int = 6000,
    items: int = 2000,
    events: int = 400_000,
    seed: int = 0,
    *,
    years: float = 4.0,
) -> World:
    """Return a generated film world.

    It has a long tail of rarely chosen films, tastes that change, new films, films without events,
    and users who join late. A (user, item) pair occurs at most once. Ids are text, and their
    alphabetical order is the order of the rows.

    Args:
        users, items: the numbers of users and films.
        events: the approximate number of events. The error is about 1 % if it is less than a tenth
            of users × items.
        seed: another seed gives another world.
        years: the length of the log, which starts in 2016.
    """
    recipe = Recipe(users, items, events, seed, years)
    user_rows = np.arange(users)
    starts = range(0, users, recipe.block)
    pieces = [recipe.events(user_rows[start : start + recipe.block]) for start in starts]
    return World(
        events=pd.concat(pieces, ignore_index=True),
        items=recipe.item_table(),
        users=recipe.user_table(user_rows),
        truth=recipe,
    )


class Recipe:
    """The generator of a film world.

    All films are generated at once. Users and their events can be generated in parts of any size.

    Args:
        users, items, events, seed, years: as for :func:`film_world`.

    Attributes:
        main, second: int64[items], the main and the second taste of each film.
        serves: float64[items, tastes], how well each film fits each taste.
        quality: float64[items], the quality of each film, which raises its ratings.
        appeal: float64[tastes, items], the probability of each film when a film is chosen for a
            taste. Rows sum to 1. The probability is 0 for films without events.
        release: float64[items], the release of each film in years since the start of the log,
            negative for older films.
        block: the number of users to generate at a time, so that memory stays small.
    """

    def __init__(self, users: int, items: int, events: int, seed: int, years: float) -> None:
        self.n_users = users
        self.n_items = items
        self.seed = seed
        self.years = years
        film = np.arange(items)
        popularity = (np.argsort(np.argsort(self._uniform("popularity", film))) + 0.01 * items + 1.0) ** -1.2
        self.main = self._below(TASTES, "main", film)
        self.second = self._below(TASTES, "second", film)
        self.serves = np.full((items, TASTES), 0.004)
        np.add.at(self.serves, (film, self.main), 0.75)
        np.add.at(self.serves, (film, self.second), 0.25)
        self.quality = self._normal("quality", film) + 0.25 * np.log(popularity / popularity.mean())
        age = self._uniform("age", film)
        in_log = self._uniform("in log", film) < 0.4
        self.release = np.where(in_log, years * age, -40.0 * age**2)  # in years since the start of the log
        appeal = self.serves.T * np.where(self._uniform("cold", film) < 0.03, 0.0, popularity)
        self.appeal = appeal / appeal.sum(axis=1, keepdims=True)
        steps = np.cumsum(self.appeal, axis=1)
        self._steps = (steps / steps[:, -1:] + np.arange(TASTES)[:, None]).ravel()
        self._stride = next(a for a in range(int(0.618 * users) + 1, 2 * users + 2) if np.gcd(a, users) == 1)
        self._typical = self._typical_activity(events / users)
        self.block = max(1, min(2**26 // items, 2**20 * users // events))  # users a piece: 64 MB of "has seen"

    def item_table(self) -> pd.DataFrame:
        """Return the items table, one row per film, with the columns of :class:`World`.

        The attributes of a film depend on its tastes, and partly on chance.
        """
        film = np.arange(self.n_items)
        genre = np.array([genre for genre, _ in words.THEMES], dtype=object)
        shown_genre = self._main_or_any_taste("genre", film)
        cast = np.stack([self._person(f"cast {i}", film, 12) for i in range(3)], axis=1) + 6 * TASTES
        people = words.person_names(18 * TASTES)
        return pd.DataFrame(
            {
                ITEM: _ids("f", film, self.n_items),
                "title": words.film_titles(hash_words(self.seed, id_bits(["title"]), film)),
                "genres": [
                    "|".join(sorted({genre[a], genre[b]})) for a, b in zip(shown_genre, self.second, strict=True)
                ],
                "cast": ["|".join(dict.fromkeys(people[row])) for row in cast],
                "director": people[self._person("director", film, 6)],
                "year": np.floor(2016 + self.release).astype(np.int32),
                "overview": self._overviews(film),
            }
        )

    def user_table(self, user: np.ndarray) -> pd.DataFrame:
        """Return the users table of some users, one row per user, with the columns of
        :class:`World`.

        Args:
            user: int[n], the rows of the users, from 0.
        """
        age, country = self._segments(user)
        return pd.DataFrame(
            {
                USER: _ids("u", user, self.n_users),
                "age_group": np.array(words.AGE_GROUPS, dtype=object)[age],
                "country": np.array(words.COUNTRIES, dtype=object)[country],
            }
        )

    def tastes(self, user: np.ndarray) -> np.ndarray:
        """Return the share of each taste in the preferences of users, float64[2, n, tastes].

        Index 0 of the first axis is the start of the log, index 1 is its end. The shares of a user
        sum to 1 at each of the two times.

        Args:
            user: int[n], the rows of the users, from 0.
        """
        taste = np.arange(TASTES)
        (age, country) = self._segments(user)
        row = user[:, None]
        start = self._normal("taste", row, taste)
        start += 0.6 * self._normal("age taste", age[:, None], taste)
        start += 0.4 * self._normal("country taste", country[:, None], taste)
        end = 0.8 * start + 0.6 * self._normal("late taste", row, taste) + 0.3 * self._normal("trend", taste)
        odds = np.exp(1.6 * np.stack([start, end]))
        return odds / odds.sum(axis=-1, keepdims=True)

    def events(self, user: np.ndarray) -> pd.DataFrame:
        """Return the events of some users, with the columns of :class:`World`.

        The users are in the order of ``user``, and the events of each user in the order of time.
        Events of a user with equal times are in the order of the items.

        Args:
            user: int[n], the rows of the users, from 0.
        """
        tastes = self.tastes(user)
        row = np.repeat(np.arange(len(user)), self._activity(user))
        slot = np.arange(len(row)) - np.searchsorted(row, row)
        time = self._times(user[row], slot)
        film = self._films(user, row, slot, time, np.cumsum(tastes, axis=-1))
        has_film = film >= 0
        row = row[has_film]
        slot = slot[has_film]
        time = time[has_film]
        film = film[has_film]
        rating = self._ratings(user[row], film, time, tastes[:, row])
        seconds = np.floor(START + time * YEAR)
        order = np.lexsort((film, seconds, row))
        return pd.DataFrame(
            {
                USER: _ids("u", user, self.n_users)[row[order]],
                ITEM: _ids("f", np.arange(self.n_items), self.n_items)[film[order]],
                VALUE: rating[order],
                TIME: seconds[order],
            }
        )

    def preference(self, user: np.ndarray, when: float) -> np.ndarray:
        """Return the probability of each film when each user chooses one film, float64[n, items].

        Each row sums to 1. A film has the probability 0 if it is released after ``when``, or if it
        is one of the films without events. The tastes of a user at ``when`` are the linear mix of
        the tastes at the start and at the end of the log.

        Args:
            user: int[n], the rows of the users, from 0.
            when: the time of the choice, from 0 (the start of the log) to 1 (its end).
        """
        start, end = self.tastes(user)
        age = when * self.years - self.release
        chance = ((1 - when) * start + when * end) @ self.appeal * _freshness(age)
        return chance / chance.sum(axis=1, keepdims=True)

    def _films(
        self,
        user: np.ndarray,
        row: np.ndarray,
        slot: np.ndarray,
        time: np.ndarray,
        tastes: np.ndarray,
    ) -> np.ndarray:
        """Return int64[slots], the film of each event to generate, or -1 if no film can be found.

        An event to generate is called a slot. A film is drawn for each slot, and accepted with the
        probability :func:`_freshness`, which is 0 before the release of the film. If it is not
        accepted, or the user has already had the film, another film is drawn, up to 100 times.

        Args:
            user: int[n], rows of users.
            row: int[slots], the position in ``user`` of the user of each slot.
            slot: int[slots], the number of each slot among the slots of its user, from 0.
            time: float64[slots], in years since the start of the log.
            tastes: float64[2, n, tastes], the cumulative shares of the tastes at the start and at
                the end of the log.
        """
        film = np.full(len(row), -1)
        seen = np.zeros(len(user) * self.n_items, dtype=bool)
        open_ = np.arange(len(row))
        for attempt in range(100):
            if not len(open_):
                break
            drawn_row = row[open_]
            draw = (user[drawn_row], slot[open_], attempt)
            is_late = self._uniform("late", *draw) * self.years < time[open_]
            taste = (self._uniform("pick taste", *draw)[:, None] >= tastes[is_late.astype(int), drawn_row]).sum(axis=1)
            taste = np.minimum(taste, TASTES - 1)
            step = np.searchsorted(self._steps, taste + self._uniform("pick film", *draw) * (1 - 1e-12), "right")
            pick = step - taste * self.n_items
            key = drawn_row * self.n_items + pick
            accepted = self._uniform("accept", *draw) < _freshness(time[open_] - self.release[pick])
            chosen = np.flatnonzero(accepted & ~seen[key])
            chosen = chosen[np.unique(key[chosen], return_index=True)[1]]  # the earlier slot of a user gets the film
            film[open_[chosen]] = pick[chosen]
            seen[key[chosen]] = True
            open_ = np.delete(open_, chosen)
        return film

    def _ratings(self, user: np.ndarray, film: np.ndarray, time: np.ndarray, tastes: np.ndarray) -> np.ndarray:
        """Return float64[events], a rating from 0.5 to 5 in steps of 0.5 for each event.

        A rating depends on the habit of the user, the quality of the film, how well the film fits
        the tastes of the user at that time, and chance.

        Args:
            user, film: int[events], the rows of the user and of the film of each event.
            time: float64[events], in years since the start of the log.
            tastes: float64[2, events, tastes], the shares of the tastes of the user of each event
                at the start and at the end of the log.
        """
        elapsed = (time / self.years)[:, None]
        match = np.log((((1 - elapsed) * tastes[0] + elapsed * tastes[1]) * self.serves[film]).sum(axis=1))
        liking = 4.5 + 0.35 * self._normal("habit", user) + 0.3 * self.quality[film] + 0.4 * match
        return np.clip(np.round(2 * (liking + 0.5 * self._normal("mood", user, film))) / 2, 0.5, 5.0)

    def _times(self, user: np.ndarray, slot: np.ndarray) -> np.ndarray:
        """Return float64[events], the time of each event in years since the start of the log.

        Two in five users join in the first tenth of the log, the others at any time.

        Args:
            user: int[events], the row of the user of each event.
            slot: int[events], the number of the event among the events of its user, from 0.
        """
        joins = self._uniform("join", user) * np.where(self._uniform("early", user) < 0.4, 0.1, 0.98)
        stays = np.minimum(1.0 - joins, 0.15 - 0.7 * np.log1p(-self._uniform("stay", user)))
        return self.years * (joins + stays * self._uniform("time", user, slot))

    def _activity(self, user: np.ndarray) -> np.ndarray:
        """Return int64[n], the number of events to generate for each user.

        The numbers are quantiles of a log-normal distribution, and no two users have the same
        quantile. So the sum over all users is close to the number of events of the recipe.

        Args:
            user: int[n], rows of users.
        """
        quantile = (user * self._stride % self.n_users + 0.5) / self.n_users
        return np.floor(self._clipped_quantile(self._typical, quantile) + self._uniform("round", user)).astype(np.int64)

    def _clipped_quantile(self, typical: float, quantile: np.ndarray) -> np.ndarray:
        """Return quantiles of a log-normal distribution, clipped to possible numbers of events per
        user.

        Args:
            typical: the median of the distribution.
            quantile: float64[n], in (0, 1).
        """
        return np.clip(typical * np.exp(ndtri(quantile)), 1.0, max(1.0, 0.3 * self.n_items))

    def _typical_activity(self, mean: float) -> float:
        """Return the median of the clipped log-normal distribution that has the mean ``mean``."""
        quantile = (np.arange(4096) + 0.5) / 4096
        typical = mean
        for _ in range(50):
            typical *= mean / self._clipped_quantile(typical, quantile).mean()
        return typical

    def _segments(self, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return two arrays int64[n]: the age group and the country of each user, as numbers."""
        return self._below(len(words.AGE_GROUPS), "age group", user), self._below(len(words.COUNTRIES), "country", user)

    def _main_or_any_taste(self, purpose: str, film: np.ndarray) -> np.ndarray:
        """Return int64[n], a taste for each film: in three of four cases its main taste, else a
        random one.

        Args:
            purpose: a name of the draw. Draws with different names are independent.
            film: int[n], rows of films.
        """
        any_taste = self._below(TASTES, purpose + " any", film)
        return np.where(self._uniform(purpose, film) < 0.75, self.main[film], any_taste)

    def _person(self, purpose: str, film: np.ndarray, people_per_taste: int) -> np.ndarray:
        """Return int64[n], the number of a person for each film, drawn from the people of one
        taste.
        """
        return self._main_or_any_taste(purpose, film) * people_per_taste + self._below(
            people_per_taste, purpose + " who", film
        )

    def _overviews(self, film: np.ndarray) -> list[str]:
        """Return one sentence for each film.

        It has four words of the main taste of the film, two words of its second taste, and two
        words that all tastes share.
        """
        main_words = np.argsort(self._uniform("own words", film[:, None], np.arange(10)), axis=1)[:, :4]
        second_words = np.argsort(self._uniform("other words", film[:, None], np.arange(10)), axis=1)[:, :2]
        common_words = np.argsort(self._uniform("plain words", film[:, None], np.arange(len(words.COMMON))), axis=1)[
            :, :2
        ]
        texts = [text.split() for _, text in words.THEMES]
        return [
            words.OVERVIEW.format(
                *(texts[main][i] for i in a),
                *(texts[second][i] for i in b),
                *(words.COMMON[i] for i in c),
            )
            for main, second, a, b, c in zip(
                self.main, self.second, main_words, second_words, common_words, strict=True
            )
        ]

    def _uniform(self, purpose: str, *numbers: np.ndarray | int) -> np.ndarray:
        """Return random numbers in [0, 1), one per element of the broadcast ``numbers``.

        A number depends only on the seed, the ``purpose`` and the ``numbers``.
        """
        return to_unit_interval(hash_words(self.seed, id_bits([purpose]), *(np.asarray(number) for number in numbers)))

    def _normal(self, purpose: str, *numbers: np.ndarray | int) -> np.ndarray:
        """Return random numbers of the standard normal distribution, as :meth:`_uniform` does."""
        return ndtri(self._uniform(purpose, *numbers) + 2.0**-54)

    def _below(self, limit: int, purpose: str, *numbers: np.ndarray | int) -> np.ndarray:
        """Return random integers from 0 to ``limit`` - 1, as :meth:`_uniform` does."""
        return (self._uniform(purpose, *numbers) * limit).astype(np.int64)


def _freshness(age: np.ndarray) -> np.ndarray:
    """Return the probability that a chosen film of this age in years is accepted.

    It is 1 at the release, falls to 0.4 with age, and is 0 before the release.
    """
    return np.where(age >= 0, 0.4 + 0.6 * np.exp(-np.maximum(age, 0.0)), 0.0)


def _ids(letter: str, rows: np.ndarray, count: int) -> np.ndarray:
    """Return text ids such as "u0017", one for each of ``rows``.

    All ids have the same length, so their alphabetical order is the order of the rows.

    Args:
        letter: the first letter of each id.
        count: the number of ids in all, which determines their length.
    """
    width = len(str(count - 1))
    return np.array([f"{letter}{row:0{width}d}" for row in rows], dtype=object)


def write_world(world: World, folder: Path | str, format: str = "csv") -> dict[str, Path]:
    """Write the tables of a world into ``folder``, and return a dict: name of the table -> path.

    The names are ``events``, ``items`` and ``users``. Existing files are replaced. Timestamps are
    written as integers.

    Args:
        world: the world.
        folder: the folder. It is made if it does not exist.
        format: ``csv`` or ``parquet``.

    Raises:
        ConfigError: the format is another one.
        InputError: the folder cannot be written.
    """
    return _write_tables(world.items, [(world.events, world.users)], folder, format)


def generate_world(
    recipe: Recipe,
    folder: Path | str,
    format: str = "csv",
    *,
    users_at_a_time: int | None = None,
    progress: Any = None,
) -> dict[str, Path]:
    """Write the world of a recipe as :func:`write_world` does, but generate it in parts.

    The memory that is needed does not grow with the number of users. The result is that of
    :func:`write_world`: name of a table -> path of its file.

    Args:
        recipe: the generator.
        folder, format: as for :func:`write_world`.
        users_at_a_time: the number of users per part. It does not change the rows of the files. None:
            ``recipe.block``.
        progress: a function of two arguments, the number of users that are done and the number of all
            users. None: no progress is reported.

    Raises:
        ConfigError, InputError: as for :func:`write_world`.
    """
    n = recipe.n_users
    step = users_at_a_time or recipe.block
    draw = progress or (lambda done, total: None)

    def chunks() -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        for start in range(0, n, step):
            stop = min(n, start + step)
            rows = np.arange(start, stop)
            yield recipe.events(rows), recipe.user_table(rows)
            draw(stop, n)

    return _write_tables(recipe.item_table(), chunks(), folder, format)


def _write_tables(
    items: pd.DataFrame,
    pieces: Iterable[tuple[pd.DataFrame, pd.DataFrame]],
    folder: Path | str,
    format: str,
) -> dict[str, Path]:
    paths = {name: Path(folder) / f"{name}.{format}" for name in ("events", "items", "users")}
    with open_appenders(paths, format) as append:
        append["items"](items)
        for events, users in pieces:
            append["events"](events.astype({TIME: np.int64}))
            append["users"](users)
    return paths


def checkerboard(n: int) -> Interactions:
    """Return likes of n users and n items: user u likes item i if u + i is even and u ≠ i.

    A perfect model ranks item u first for user u, because it is the only unseen item that similar
    users like. Values are 1, times are unknown, and ids are 0 … n-1.

    Args:
        n: at least 4, because a model can learn nothing from a smaller log. This is not checked.
    """
    user, item = np.divmod(np.arange(n * n), n)
    likes = ((user + item) % 2 == 0) & (user != item)
    return _interactions(user[likes], item[likes], np.ones(int(likes.sum())), (n, n))


def low_rank(
    users: int, items: int, rank: int, *, density: float = 1.0, seed: int = 0
) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """Return interactions with values from X Yᵀ, and the factors X and Y.

    X is float64[users, rank] and Y is float64[items, rank], uniform in [0.1, 1). So every value is
    positive, and the full matrix has rank ``rank`` if that is at most users and items. Values are
    rounded to float32. Times are unknown, and ids are 0 … n-1.

    Args:
        users, items: the shape of the matrix.
        rank: the number of factors.
        density: the probability that a cell of the matrix is stored, in [0, 1].
        seed: the seed of the factors and of the stored cells.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 1.0, (users, rank))
    y = rng.uniform(0.1, 1.0, (items, rank))
    user, item = np.nonzero(rng.random((users, items)) < density)
    return _interactions(user, item, (x[user] * y[item]).sum(axis=1), (users, items)), x, y


def _interactions(user: np.ndarray, item: np.ndarray, value: np.ndarray, shape: tuple[int, int]) -> Interactions:
    """Return interactions with the ids 0 … n-1 and without times. Entries must be sorted."""
    users, items = (IdMap.from_ids(np.arange(n)) for n in shape)
    return Interactions(
        users,
        items,
        user.astype(np.int32),
        item.astype(np.int32),
        value.astype(np.float32),
        np.full(len(user), -1),
    )
