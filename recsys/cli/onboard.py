"""The verb onboard: a few questions to a new user, then a list."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer

from recsys import run_files
from recsys.cli.application import LISTS, app
from recsys.cli.console import log
from recsys.errors import ConfigError, suggest_nearest

if TYPE_CHECKING:
    from recsys.config import Config
    from recsys.runfolder import RunFolder
    from recsys.types import Interactions

REPLIES = {"y": 1, "yes": 1, "n": -1, "no": -1, "": 0, "?": 0}
"""Text that the user may type -> the answer: 1 for a like, -1 for a dislike, 0 for unknown."""

ROUNDING = 1e-4
"""The largest relative error of a restored value.

Stored values are float32, and their times are whole seconds.
"""


@app.command(rich_help_panel=LISTS)
def onboard(
    run: Annotated[Path, typer.Argument(help="A run folder of either engine, or a bundle.")],
    questions: Annotated[int, typer.Option(min=0, help="The number of items to ask about.")] = 5,
    strategy: Annotated[
        str,
        typer.Option(help="How to choose the items: best_guess, popular, entropy0, popular_entropy or coverage."),
    ] = "best_guess",
    k: Annotated[int, typer.Option("-k", min=1, max=1_000_000, help="The length of the list.")] = 10,
) -> None:
    """Ask a new user about a few items, then print a list as CSV.

    The answers are y (I like it), n (I don't) and Enter (I don't know it). q, or the end of the
    input, ends the questions early.

    Example: recsys onboard runs/demo --questions 5
    """
    from recsys.config import load_config
    from recsys.models.onboarding import STRATEGIES, Answers, Onboarding
    from recsys.ranking.rank import topk_table
    from recsys.runfolder import RunFolder, damage_explained
    from recsys.saved.open_model import read_history_and_items
    from recsys.types import IdMap

    if strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{suggest_nearest(strategy, STRATEGIES)}")
    folder = RunFolder.open(run)
    with damage_explained(run):
        history, items = read_history_and_items(folder)
        item_ids = history.items
        original, least_like = restore_values(folder, load_config(run / run_files.CONFIG), history)
    model = Onboarding(strategy=strategy, like=least_like).fit(original)
    titles = {}
    if "title" in items:
        titles = items.set_index("item_id")["title"].dropna()
    answers: Answers = {}
    while len(answers) < questions and (item := model.question(answers)) is not None:
        item_id = item_ids.ids_of([item])[0]
        title = titles.get(item_id, item_id)
        answer = ask(f"{len(answers) + 1}/{questions}  {title} (y / n / Enter: don't know / q): ")
        if answer is None:
            break
        answers[item] = answer
    table = topk_table(model.recommend(answers, k), IdMap.of(["you"]), item_ids).drop(columns="user_id")
    if "title" in items:
        table = table.merge(items[["item_id", "title"]], on="item_id", how="left")
    print(table.to_csv(index=False), end="")


def restore_values(folder: RunFolder, config: Config, history: Interactions) -> tuple[Interactions, float | None]:
    """Return the history with its values before the decay, and the smallest value of a like.

    The smallest value is None if every value above 0 is a like.

    ``[judge] relevant`` is a limit for values that have the weights of their events, but no decay.
    The value before the decay can be computed from the stored value only if it comes from a single
    event. That is so if every pair has one event, or with ``aggregate = "last"``. It is not
    possible for the sum of several events, nor in a bundle, which does not record the time from
    which ages are counted. In these cases the history is returned with its stored values, every
    value above 0 is a like, and a line on stderr says so. Pairs whose value has decayed to 0 in
    float32 are left out, and a line on stderr gives their number.
    """
    from recsys.data.weigh import undo_decay
    from recsys.models.combining.trial import subset

    half_life = config.weigh.half_life_days
    least_like = config.judge.relevant
    if half_life is None:
        return history, least_like
    not_vanished = np.abs(history.value) >= np.finfo(np.float32).tiny
    if not not_vanished.all():
        log.print(f"{(~not_vanished).sum():,} pairs are left out: their values have decayed to nothing")
        history = subset(history, not_vanished)
    if least_like is None:
        return history, None
    split = None
    if (folder.path / run_files.SPLIT_CARD).exists():
        split = folder.read_json(run_files.SPLIT_CARD)
    obstacle = ""
    if split is None:
        obstacle = "a bundle does not record when the decay starts"
    elif config.weigh.aggregate != "last" and split["history"]["rows"] != split["history"]["pairs"]:
        obstacle = "sums of several events cannot be restored"
    if obstacle or split is None:
        log.print(
            f"values have decayed, and {obstacle}: any value above 0 counts as a like,"
            f" not only values of at least {least_like:g}",
        )
        return history, None
    reference = pd.to_datetime(split["decay_reference"], utc=True).timestamp()
    # The limit is lowered a little, so that rounding does not turn a like into a dislike.
    return undo_decay(history, half_life, reference), least_like * (1 - ROUNDING)


def ask(question: str) -> int | None:
    """Ask the user a question, and return the answer as in :data:`REPLIES`.

    The result is None if the user types q, or if there is no more input. After an unknown reply the
    question is asked again.
    """
    while True:
        log.print(question, end="", highlight=False)
        line = sys.stdin.readline()
        reply = line.strip().lower()
        # At the end of the input readline returns "", but a lone Enter returns a newline.
        if not line or reply == "q":
            return None
        if reply in REPLIES:
            return REPLIES[reply]
        log.print("please answer y, n, Enter or q")
