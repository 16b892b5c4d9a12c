"""The verb similar: what goes with an item, or who is like a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer

from recsys.cli.application import LISTS, app
from recsys.cli.console import log
from recsys.cli.options import ModelName, OwnModels, RunOrBundle
from recsys.cli.saved_items import csv_with_titles, item_row, open_with_notice, user_row
from recsys.errors import ConfigError, InputError
from recsys.types import IdMap

if TYPE_CHECKING:
    from recsys.saved.open_model import SavedModel


@app.command(rich_help_panel=LISTS)
def similar(
    run: RunOrBundle,
    item: Annotated[str | None, typer.Argument(help="An item id, or a title.")] = None,
    user: Annotated[str | None, typer.Option(help="A user id, instead of an item: who is like this user.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1_000_000, help="The length of the list.")] = 10,
    model: ModelName = None,
    own_models: OwnModels = False,
) -> None:
    """Print the items that go with an item, or with --user the most similar users.

    The items are the list of the model for a history of this one item. Users are similar if their
    vectors have a similar direction (cosine). The number of liked items in common is printed too.

    Example: recsys similar runs/demo f0001

    Example: recsys similar runs/demo --user u0001 --model als
    """
    from recsys.ranking.rank import topk_table
    from recsys.saved.similar_items import first_member, items_that_go_with

    if (item is None) == (user is None):
        raise ConfigError("similar: name one item, or one user with --user ID.")
    saved = open_with_notice(run, model, uses_history=True)
    if item is not None:
        lists = items_that_go_with(saved, item_row(saved.history.items, saved.items, item), k)
        if first_member(saved.model).SCORES_EVERYONE:
            log.print(f"{saved.name} gives the same list for every item: choose another with --model")
        # The history belongs to no user, so the column with the placeholder id is dropped.
        table = topk_table(lists, IdMap.from_ids(["?"]), saved.history.items).drop(columns="user_id")
        print(csv_with_titles(saved, table), end="")
    elif user is not None:
        print(nearest_users(saved, user, k, model).to_csv(index=False), end="")


def nearest_users(saved: SavedModel, user: str, k: int, model: str | None) -> pd.DataFrame:
    """Return the ``k`` users that are most similar to one user, the most similar first.

    The columns are user_id, rank (from 1), score (the cosine of the vectors of the two users, above
    0) and common (the number of items that both like). If scores are equal, the lower id comes
    first. There are fewer rows if fewer users have a score above 0.

    Args:
        saved: the model. If it has no vectors of users, the likes in the histories are the vectors,
            but only if ``model`` is None.
        user: the id of the user.
        k: the number of users.
        model: the name of the model that the user of the command gave, or None.

    Raises:
        InputError: there is no such user, the model has no vectors of users, or the vector of this
            user is zero.
    """
    from sklearn.preprocessing import normalize

    from recsys.models.content import similar as nearest_rows
    from recsys.saved.similar_items import first_member

    users = saved.history.users
    row = user_row(saved, user)
    histories = saved.history.histories()
    # Stored factors belong to users by row, so the model is asked about all of them at once.
    recommender = first_member(saved.recommender(users.all_ids))
    vectors = recommender.user_vectors(histories)
    if vectors is None and model is None:
        log.print(f"{saved.name} has no vectors of users: the likes in their histories are compared")
        vectors = histories.values.maximum(0)
    if vectors is None:
        raise InputError(
            f"{saved.name} has no vectors of users to compare: choose an als, bpr, content or userknn with --model."
        )
    unit_vectors = normalize(vectors)
    if not abs(unit_vectors[[row]]).sum() > 0:
        raise InputError(f"{saved.name} has no vector for user {user}: nothing in their history that this model uses.")
    neighbours, cosines = (array[0] for array in nearest_rows(unit_vectors, np.array([row]), k))
    neighbours = neighbours[neighbours >= 0]
    likes = (histories.values > 0).astype(np.int64)
    return pd.DataFrame(
        {
            "user_id": users.ids_of(neighbours),
            "rank": np.arange(1, len(neighbours) + 1),
            "score": cosines[: len(neighbours)],
            "common": (likes[neighbours] @ likes[[row]].T).toarray().ravel(),
        }
    )
