"""Add new events to a bundle without training, and estimate how much a retrained model would
differ.

The factor of a user with new events is solved from the *full* history and the item factors. The
factor of a new item is solved from the users who like it. The item factors of training stay the
same. How much retraining would change is estimated by its first step: all item factors are solved
for the present user factors, and the drift is

    drift = ‖Y' − Y‖ / ‖Y‖      over the items of training (Frobenius norms)

It is not 0 for a new bundle, because training stops before it has converged. Its growth is due to
the new events.

A model other than ALS scores users by their histories. So for new events and new users only the
histories are extended, and the baselines are counted again. Such a model cannot list items that it
was not trained with. Events on such items are left out and counted, and many of them are a reason
to retrain.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys.config import override_config
from recsys.data.reading.read import read_events
from recsys.data.weigh import add_pairs, aggregate_events, weigh_events
from recsys.errors import InputError, RunFolderError
from recsys.features import segment_popularity
from recsys.features.segment_popularity import Segments
from recsys.models.collaborative.als import ALS, half_step
from recsys.models.collaborative.linear import liked_columns
from recsys.models.combining.cascade import Cascade
from recsys.models.content_collaborative import Attributes
from recsys.ranking import rank
from recsys.recommender import Recommender
from recsys.runfolder import RunFolder
from recsys.saved.bundle import write_bundle
from recsys.saved.open_model import SavedModel, is_bundle, open_model
from recsys.schema import ITEM, TIME, USER
from recsys.types import RETRAIN_AT, Histories, IdMap, Interactions, Update


def update(
    bundle: str | Path,
    events: str | Path,
    out: str | Path,
    *,
    retrain_at: float = RETRAIN_AT,
    against: str | Path | None = None,
    overrides: Collection[str] = (),
) -> Update:
    """Add new events to a bundle, write the updated bundle to ``out``, and return what changed.

    Args:
        bundle: the folder of a bundle. It is not changed, unless ``out`` is the same folder.
        events: a file with the columns and ids that the config of the bundle describes, after
            ``overrides``.
        out: the folder of the updated bundle. An older bundle there is replaced.
        retrain_at: limit of the growth of the drift, and of the share of events left out. Above it,
            the result says that the model should be retrained.
        against: a bundle or run of a retrained model, whose lists are compared with the updated
            ones. None: nothing is compared.
        overrides: keys of the config that have another value for these events, such as
            ``data.delimiter=";"``. The config in the updated bundle stays as it was.

    Raises:
        ConfigError: an override is not valid.
        RunFolderError: ``bundle`` or ``against`` cannot be opened, ``bundle`` is a run, or ``out``
            may not be replaced.
        InputError: the events cannot be read; or the model is not ALS, and no event is on an item
            that it was trained with.
    """
    # The bundle that is updated may be replaced: the new one has all of it.
    sources = [events] if against is None else [events, against]
    RunFolder.require_writable(out, "bundle", sources)
    old = open_model(bundle)
    if not is_bundle(Path(bundle)):
        raise RunFolderError(f"{bundle}: a run, and only bundles are updated: recsys bundle {bundle} OUT.")
    new_events, _ = read_events(events, override_config(old.config, overrides).data.reading)
    als = _als_of(old)
    if als is None:
        updated, result = _extend_histories(old, new_events, retrain_at)
    else:
        updated, result = _fold_into_als(old, als, new_events, retrain_at)
    # The lists are compared first, so that nothing is written if they cannot be.
    if against is not None:
        result = replace(result, overlap=_overlap(updated, open_model(against)))
    write_bundle(updated, Path(out), RunFolder.open(bundle), sources=sources)
    return replace(result, events_not_newer=_count_not_newer(old, new_events))


def _count_not_newer(old: SavedModel, events: pd.DataFrame) -> int:
    """Return the number of events that are not newer than the newest event of a bundle, 0 without
    times."""
    newest = old.history.time.max(initial=-1)
    if TIME not in events or newest < 0:
        return 0
    return int((np.floor(events[TIME].to_numpy(dtype=np.float64)) <= newest).sum())


def _als_of(saved: SavedModel) -> ALS | None:
    """Return the ALS of a saved model whose factors can be solved again, or None.

    It is the first member of a cascade, or the model itself.
    """
    model = saved.model
    if isinstance(model, Cascade):
        model = next(iter(model.members.values()))
    # Other subclasses of ALS are trained on more than the pairs of users and items.
    if isinstance(model, ALS) and type(model) in (ALS, Attributes):
        return model
    return None


def _extend_histories(old: SavedModel, events: pd.DataFrame, retrain_at: float) -> tuple[SavedModel, Update]:
    """Add new events to the histories of a model that is not ALS, and return the model and the
    Update.

    The baselines inside the model are counted again. Nothing else of the model changes. Events on
    items that the model was not trained with are left out and counted.

    Raises:
        InputError: no event is on an item that the model was trained with.
    """
    is_known = old.history.items.rows(_with_ids_like(old, events)[ITEM]) >= 0
    if not is_known.any():
        raise InputError(f"no event is on an item that {old.name} was trained with: train again.")
    history, changed_users = _merge_history(old, events[is_known])
    members = old.model.members.values() if isinstance(old.model, Cascade) else [old.model]
    for member in members:
        if member.SCORES_EVERYONE:
            member.fit(history)
    updated = replace(old, history=history, segments=_recount_segments(old, history))
    users_new = len(history.users) - len(old.history.users)
    result = Update(
        events=len(events),
        users_new=users_new,
        users_changed=len(changed_users) - users_new,
        items_new=0,
        drift_before=float("nan"),
        drift_after=float("nan"),
        retrain_at=retrain_at,
        events_left_out=int((~is_known).sum()),
    )
    return updated, result


def _fold_into_als(old: SavedModel, als: ALS, events: pd.DataFrame, retrain_at: float) -> tuple[SavedModel, Update]:
    """Add new events to an ALS model, and return the model and the Update with its drift.

    The factors of users with new events and of new items are solved again. The factors of the items
    of training stay the same.
    """
    history, changed_users = _merge_history(old, events)
    matrix = history.matrix()
    changed = history.histories()[changed_users]
    old_factors = old.user_factors
    if old_factors is None:
        old_factors = _fold_in(als, old.history.histories())
    user_factors = np.full((len(history.users), als.item_factors_.shape[1]), np.nan, dtype=np.float32)
    user_factors[history.users.rows(old.history.users.all_ids)] = old_factors
    extended = _extend_catalogue(als, old.history.items, history.items)
    user_factors[changed_users] = _fold_in(extended, changed)
    # Items that nobody had liked have, at most, the factors that their attributes predict: they do
    # not drift.
    trained = als.known_ & liked_columns(old.history.matrix())
    drift_before, _ = _drift(als, trained, np.nan_to_num(old_factors), old.history.matrix())
    trained = _align_rows(trained, old.history.items, history.items)
    drift_after, solved = _drift(extended, trained, np.nan_to_num(user_factors), matrix)
    is_new = liked_columns(matrix) & ~trained
    item_factors = np.where(is_new[:, None], solved, extended.item_factors_)
    updated_als = _with_factors(extended, item_factors, extended.known_ | is_new)
    user_factors[changed_users] = _fold_in(updated_als, changed)
    item_ids = pd.DataFrame({ITEM: history.items.all_ids})
    updated = replace(
        old,
        model=_replace_als(old.model, updated_als, history),
        history=history,
        items=item_ids.merge(old.items, on=ITEM, how="left"),
        user_factors=None if old.user_factors is None else user_factors,
        segments=_recount_segments(old, history),
    )
    users_new = len(history.users) - len(old.history.users)
    result = Update(
        events=len(events),
        users_new=users_new,
        users_changed=len(changed_users) - users_new,
        items_new=int(is_new.sum()),
        drift_before=drift_before,
        drift_after=drift_after,
        retrain_at=retrain_at,
    )
    return updated, result


def _replace_als(model: Recommender, als: ALS, history: Interactions) -> Recommender:
    """Return the model with its ALS replaced by another one, and its baselines counted again."""
    if not isinstance(model, Cascade):
        return als
    (name, _), *fallbacks = model.members.items()
    for _, fallback in fallbacks:
        fallback.fit(history)
    return model.with_members({name: als, **dict(fallbacks)})


def _merge_history(old: SavedModel, events: pd.DataFrame) -> tuple[Interactions, np.ndarray]:
    """Return the history with the new events added, and the rows of users with new events."""
    events = _with_ids_like(old, events)
    settings = old.config.weigh
    reference = float(old.history.time.max()) if settings.half_life_days else None
    weighed = weigh_events(events, settings, reference=reference)
    users = IdMap.from_ids(old.history.users.all_ids, weighed[USER])
    items = IdMap.from_ids(old.history.items.all_ids, weighed[ITEM])
    new_pairs = aggregate_events(weighed, settings.aggregate, users, items)
    return add_pairs(old.history, new_pairs, settings.aggregate), np.unique(users.rows(weighed[USER]))


def _with_ids_like(old: SavedModel, events: pd.DataFrame) -> pd.DataFrame:
    """Return the events with their ids converted to text if the ids of the bundle are text."""
    for column, ids in ((USER, old.history.users), (ITEM, old.history.items)):
        if ids.ids.dtype == object:
            events = events.assign(**{column: events[column].astype(str)})
    return events


def _recount_segments(old: SavedModel, history: Interactions) -> Segments | None:
    """Return the segments counted again from the history. The segment of each user stays the same."""
    if old.segments is None:
        return None
    settings = old.config.recommend
    return segment_popularity.fit_segments(
        history,
        old.segments.users,
        settings.segment,
        prior=settings.segment_prior,
        memory_mb=settings.memory_mb,
    )


def _extend_catalogue(als: ALS, old: IdMap, new: IdMap) -> ALS:
    """Return the ALS with the rows of a larger catalogue. New items have no factor."""
    return _with_factors(als, _align_rows(als.item_factors_, old, new), _align_rows(als.known_, old, new))


def _align_rows(values: np.ndarray, old: IdMap, new: IdMap) -> np.ndarray:
    """Return the values of old items in the rows of the new id map, 0 or False for new items."""
    aligned = np.zeros((len(new), *values.shape[1:]), dtype=values.dtype)
    aligned[new.rows(old.all_ids)] = values
    return aligned


def _with_factors(als: ALS, item_factors: np.ndarray, has_factor: np.ndarray) -> ALS:
    settings = {name: value for name, value in asdict(als).items() if name != "rank"}
    return type(als).from_factors(item_factors, has_factor, **settings)


def _fold_in(als: ALS, histories: Histories) -> np.ndarray:
    """Return the factors of users, float32[m, rank]. Rows of histories that the model cannot score
    are NaN."""
    return np.where(als.can_score(histories)[:, None], als.user_factors(histories), np.float32(np.nan))


def _drift(als: ALS, trained: np.ndarray, user_factors: np.ndarray, matrix: csr_array) -> tuple[float, np.ndarray]:
    """Return the drift of the items of training, and all item factors solved for the given user
    factors.

    Args:
        als: the updated ALS.
        trained: bool[items], the items that have a factor from training.
        user_factors: float32[users, rank].
        matrix: csr (users, items), the history.
    """
    solved = half_step(matrix.T.tocsr(), user_factors.astype(np.float64), als.objective)
    change = np.linalg.norm(solved[trained] - als.item_factors_[trained])
    return float(change / np.linalg.norm(als.item_factors_[trained])), solved.astype(np.float32)


def _overlap(updated: SavedModel, retrained: SavedModel, k: int = 10, max_users: int = 10_000) -> float:
    """Return the mean share of items that the lists of two bundles have in common, in [0, 1].

    The lists are the first ``k`` positions for the same user, averaged over at most ``max_users``
    users that both bundles have.
    """
    user_ids = updated.history.users.all_ids
    user_ids = user_ids[retrained.history.users.rows(user_ids) >= 0]
    if not len(user_ids):
        raise InputError("the two bundles have no user in common, so their lists cannot be compared.")
    user_ids = user_ids[:: max(1, len(user_ids) // max_users)]
    pairs = zip(_lists(updated, user_ids, k), _lists(retrained, user_ids, k), strict=True)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))


def _lists(saved: SavedModel, user_ids: np.ndarray, k: int) -> list[list[object]]:
    model = saved.recommender(user_ids)
    lists = rank.recommend(model, saved.histories(user_ids), k)
    return [list(saved.history.items.ids_of(row[row >= 0])) for row in lists.items]
