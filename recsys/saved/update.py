"""New events into a bundle, without training: users and items folded in, and how far a retrain would go.

A user with new events is what his *full* history says under the item factors; an item that training did not know is
what its likers say. The item factors of training stay. What a retrain would change is measured by its first step: solve
every item against the users as they now are, and take

    drift = ‖Y' − Y‖ / ‖Y‖      over the items of training (Frobenius norms)

It is not 0 for a fresh bundle, because training stops somewhere; what grows is what the new events did.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.data.reading.read import read_events
from recsys.data.weigh import aggregate_events, interactions_to_table, weigh_events
from recsys.errors import RunFolderError
from recsys.features import segment_popularity
from recsys.features.segment_popularity import Segments
from recsys.models.collaborative.als import ALS, half_step
from recsys.models.collaborative.linear import liked_columns
from recsys.models.collaborative.popular import Popular
from recsys.models.combining.cascade import Cascade
from recsys.ranking import rank
from recsys.runfolder import RunFolder
from recsys.saved import bundle as bundles
from recsys.saved.bundle import Bundle, StoredFactors
from recsys.schema import ITEM, TIME, USER
from recsys.types import IdMap, Interactions, select_rows

RETRAIN_AT = 0.05
"""Retrain when the new events add more than this to the drift."""


@dataclass(frozen=True)
class Update:
    """What happened. ``before``, ``after``: drift without and with the new events. ``overlap``: mean share of the first
    ten places that a retrained bundle has too, over users of both; NaN without one."""

    events: int
    users_new: int
    users_changed: int
    items_new: int
    before: float
    after: float
    retrain_at: float
    overlap: float = float("nan")

    @property
    def retrain(self) -> bool:
        """Whether to retrain now."""
        return self.after - self.before > self.retrain_at


def update(
    place: str | Path,
    events: str | Path,
    out: str | Path,
    *,
    retrain_at: float = RETRAIN_AT,
    against: str | Path | None = None,
) -> Update:
    """Fold new events into the bundle at ``place``, write it to ``out``, and say how far it has drifted.

    Args:
        events: a file of the layout that the bundle's config describes; ids as there.
        against: a bundle of a retrained run, to compare with.

    Raises:
        RunFolderError: not a bundle of a Spark run, or ``out`` may not be replaced.
        InputError: the events cannot be read.
    """
    old = bundles.open_bundle(place)
    if old.factors is None or not isinstance(old.model, Cascade):
        raise RunFolderError(f"{place}: holds no user factors: only bundles of ALS runs on Spark can be updated.")
    als: ALS = old.model.models[old.name]  # type: ignore[assignment]
    read, _ = read_events(events, old.config.data.reading)
    history, changed = _together(old, read)
    at = history.users.rows(old.history.users.all_ids)
    x = np.full((len(history.users), als.rank), np.nan, dtype=np.float32)
    x[at] = old.factors
    carried = _wider(als, old.history.items, history.items)
    x[changed] = _fold(carried, history.matrix()[changed])
    learned = als.known_ & liked_columns(old.history.matrix())  # others have the factors of their attributes, if any
    before, _ = _drift(als, learned, np.nan_to_num(old.factors), old.history.matrix())
    learned = _at(learned, old.history.items, history.items)
    after, stepped = _drift(carried, learned, np.nan_to_num(x), history.matrix())
    fresh = liked_columns(history.matrix()) & ~learned
    grown = _with(carried, np.where(fresh[:, None], stepped, carried.item_factors_), carried.known_ | fresh)
    x[changed] = _fold(grown, history.matrix()[changed])
    model = Cascade({old.name: grown, "popular": Popular().fit(history)})
    ids = pd.DataFrame({ITEM: history.items.all_ids})
    items, segments = ids.merge(old.items, on=ITEM, how="left"), _segments(old, history)
    new = replace(old, model=model, history=history, items=items, factors=x, segments=segments)
    # The bundle that is updated may be replaced: the new one has all of it.
    sources = [events] if against is None else [events, against]
    bundles.write_bundle(new, Path(out), RunFolder.open(place), sources=sources)
    overlap = float("nan") if against is None else _overlap(new, bundles.open_bundle(against))
    strangers = len(history.users) - len(old.history.users)
    counts = (len(read), strangers, len(changed) - strangers, int(fresh.sum()))
    return Update(*counts, before, after, retrain_at, overlap)


def _together(old: Bundle, events: pd.DataFrame) -> tuple[Interactions, np.ndarray]:
    """Return the history with the new events in it, and the rows of users who have any."""
    for column, ids in ((USER, old.history.users), (ITEM, old.history.items)):
        if ids.ids.dtype == object:
            events = events.assign(**{column: events[column].astype(str)})
    weighing = old.config.weigh
    reference = float(old.history.time.max()) if weighing.half_life_days else None
    weighed = weigh_events(events, weighing, reference=reference)
    known = interactions_to_table(old.history)
    users, items = (IdMap.of(known_ids, weighed[column]) for known_ids, column in _ids(old.history))
    new = interactions_to_table(aggregate_events(weighed, weighing.aggregate, users, items))
    both = pd.concat([known, new], ignore_index=True)
    timed = (both[TIME] >= 0).all()
    how = "sum" if weighing.aggregate == "count" else weighing.aggregate
    history = aggregate_events(both if timed else both.drop(columns=TIME), how, users, items)
    return history, np.unique(users.rows(weighed[USER]))


def _segments(old: Bundle, history: Interactions) -> Segments | None:
    """Return the segments counted anew; who is in which is what the bundle knows."""
    if old.segments is None:
        return None
    wanted = old.config.recommend
    columns, prior, memory_mb = wanted.segment, wanted.segment_prior, wanted.memory_mb
    return segment_popularity.fit_segments(history, old.segments.users, columns, prior=prior, memory_mb=memory_mb)


def _ids(history: Interactions) -> list[tuple[np.ndarray, str]]:
    return [(ids.all_ids, column) for ids, column in ((history.users, USER), (history.items, ITEM))]


def _wider(als: ALS, old: IdMap, new: IdMap) -> ALS:
    """Return the model over a larger catalogue; it knows nothing of what came in."""
    return _with(als, _at(als.item_factors_, old, new), _at(als.known_, old, new))


def _at(rows: np.ndarray, old: IdMap, new: IdMap) -> np.ndarray:
    """Return what stands for old items in rows of new ones, 0 or False for the rest."""
    found = np.zeros((len(new), *rows.shape[1:]), dtype=rows.dtype)
    found[new.rows(old.all_ids)] = rows
    return found


def _with(als: ALS, factors: np.ndarray, known: np.ndarray) -> ALS:
    settings = {name: value for name, value in asdict(als).items() if name != "rank"}
    return type(als).from_factors(factors, known, **settings)


def _fold(als: ALS, histories: csr_array) -> np.ndarray:
    return np.where(als.knows(histories)[:, None], als.user_factors(histories), np.float32(np.nan))


def _drift(als: ALS, known: np.ndarray, x: np.ndarray, matrix: csr_array) -> tuple[float, np.ndarray]:
    """Return the drift of items ``known`` from training, and all factors after one step against the users ``x``."""
    y = half_step(matrix.T.tocsr(), x.astype(np.float64), als.objective)
    moved = np.linalg.norm(y[known] - als.item_factors_[known])
    return float(moved / np.linalg.norm(als.item_factors_[known])), y.astype(np.float32)


def _overlap(new: Bundle, other: Bundle, k: int = 10, most: int = 10_000) -> float:
    """Return the mean share of common items in the first k places, over at most ``most`` users of both."""
    ids = new.history.users.all_ids
    ids = ids[other.history.users.rows(ids) >= 0]
    ids = ids[:: max(1, len(ids) // most)]
    lists = [_lists(each, ids, k) for each in (new, other)]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*lists, strict=True)]))


def _lists(each: Bundle, ids: np.ndarray, k: int) -> list[list[object]]:
    rows = each.history.users.rows(ids)
    model = each.model if each.factors is None else StoredFactors(each.model, each.factors[rows])
    found = rank.recommend(model, select_rows(each.history.matrix(), rows), k).items  # type: ignore[arg-type]
    return [list(each.history.items.ids_of(row[row >= 0])) for row in found]
