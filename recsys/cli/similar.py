"""The verb similar: what goes with an item."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from scipy.sparse import csr_array

from recsys.cli.application import LISTS, app
from recsys.cli.console import log
from recsys.cli.options import ModelName, OwnModels, RunOrBundle
from recsys.cli.saved_items import csv_with_titles, item_row, open_with_notice
from recsys.errors import InputError
from recsys.types import Histories, IdMap


@app.command(rich_help_panel=LISTS)
def similar(
    run: RunOrBundle,
    item: Annotated[str, typer.Argument(help="An item id, or a title.")],
    k: Annotated[int, typer.Option("-k", min=1, help="The length of the list.")] = 10,
    model: ModelName = None,
    own_models: OwnModels = False,
) -> None:
    """Print what the model recommends to a user whose history is this one item.

    Example: recsys similar runs/demo f0001
    """
    from recsys.models.combining.cascade import Cascade
    from recsys.ranking import rank

    saved = open_with_notice(run, model, uses_history=True)
    row = item_row(saved, item)
    one = csr_array((np.ones(1, np.float32), [row], [0, 1]), shape=(1, len(saved.history.items)))
    scorer = saved.model
    if isinstance(scorer, Cascade):
        # The fallback would answer with the same list whatever the item is.
        scorer = next(iter(scorer.members.values()))
    if not scorer.can_score(Histories(one))[0]:
        raise InputError(
            f"{saved.name} knows nothing that goes with {item!r}: nobody in train liked it"
            f"{'' if scorer.NEEDS_FEATURES else ', and this model does not read its attributes'}."
            " Try another --model of the run, for example one of kind content."
        )
    if scorer.SCORES_EVERYONE:
        log.print(f"{saved.name} gives the same list for every item: choose another with --model")
    lists = rank.recommend(scorer, one, k)
    # The history belongs to no user, so the column with the placeholder id is dropped.
    table = rank.topk_table(lists, IdMap.of(["?"]), saved.history.items).drop(columns="user_id")
    print(csv_with_titles(saved, table), end="")
