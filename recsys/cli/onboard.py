"""The verb that asks a newcomer a few questions and then recommends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer

from recsys import run_files
from recsys.cli.console import log
from recsys.errors import ConfigError, suggest_nearest

if TYPE_CHECKING:
    from recsys.config import Config
    from recsys.runfolder import RunFolder
    from recsys.types import Interactions

REPLIES = {"y": 1, "yes": 1, "n": -1, "no": -1, "": 0, "?": 0}
"""What may be typed -> the answer, as ``models.onboarding`` counts them."""

ROUNDING = 1e-4
"""By what share of itself a like's value may be short: stored values are float32, and their times whole seconds."""


def register(app: typer.Typer) -> None:
    """Add this file's verb."""
    app.command("onboard")(onboard)


def onboard(
    run: Annotated[Path, typer.Argument(help="A run folder of either engine, or a bundle.")],
    questions: Annotated[int, typer.Option(min=0, help="How many items to ask about.")] = 5,
    strategy: Annotated[
        str, typer.Option(help="best_guess, popular, entropy0, popular_entropy or coverage.")
    ] = "best_guess",
    k: Annotated[int, typer.Option("-k", min=1, help="Length of the list.")] = 10,
) -> None:
    """Ask a newcomer about a few items (y: I like it, n: I don't, Enter: I don't know it), then print a list as CSV.

    q, or the end of the input, ends the questions early.

    Example: recsys onboard runs/demo --questions 5
    """
    from recsys.models.onboarding import STRATEGIES, Answers, Onboarding
    from recsys.ranking.rank import topk_table
    from recsys.runfolder import RunFolder
    from recsys.saved.bundle import known
    from recsys.types import IdMap

    if strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{suggest_nearest(strategy, STRATEGIES)}")
    folder = RunFolder.open(run)
    history, items = known(folder)
    ids = history.items
    said, least = _said(folder, load(run / run_files.CONFIG), history)
    model = Onboarding(strategy=strategy, like=least).fit(said)
    titles = items.set_index("item_id")["title"].dropna() if "title" in items else {}
    answers: Answers = {}
    while len(answers) < questions and (item := model.question(answers)) is not None:
        name = ids.ids_of([item])[0]
        answer = _ask(f"{len(answers) + 1}/{questions}  {titles.get(name, name)} (y / n / Enter: don't know / q): ")
        if answer is None:
            break
        answers[item] = answer
    table = topk_table(model.recommend(answers, k), IdMap.of(["you"]), ids).drop(columns="user_id")
    if "title" in items:
        table = table.merge(items[["item_id", "title"]], on="item_id", how="left")
    print(table.to_csv(index=False), end="")


def _said(folder: RunFolder, config: Config, history: Interactions) -> tuple[Interactions, float | None]:
    """Return the history as it was before it decayed, and the least value of a like, None: any above 0.

    ``[judge] relevant`` is of values with their event weights and without decay. Those come back from the stored ones
    where each is of one event: every pair has one event, or ``aggregate = "last"``. Sums of several events do not come
    back, nor do values in a bundle, which does not say from when on they decayed: there any value above 0 is a like,
    and a line says so. Pairs whose value has decayed to nothing, for float32, are left out, and counted in a line.
    """
    from recsys.data.weigh import undo_decay
    from recsys.models.combining.trial import subset

    half_life, least = config.weigh.half_life_days, config.judge.relevant
    if half_life is None:
        return history, least
    left = np.abs(history.value) >= np.finfo(np.float32).tiny
    if not left.all():
        log.print(f"{(~left).sum():,} pairs have decayed to nothing: nobody knows what was said, they do not count")
        history = subset(history, left)
    if least is None:
        return history, None
    about = folder.read_json(run_files.SPLIT_CARD) if (folder.path / run_files.SPLIT_CARD).exists() else None
    if about is None or (config.weigh.aggregate != "last" and about["history"]["rows"] != about["history"]["pairs"]):
        why = "a bundle does not say from when on" if about is None else "sums of several events do not come back"
        log.print(f"values have decayed, and {why}: any above 0 is a like, not only those of {least:g} and more")
        return history, None
    reference = pd.to_datetime(about["decay_reference"], utc=True).timestamp()
    return undo_decay(history, half_life, reference), least * (1 - ROUNDING)


def _ask(question: str) -> int | None:
    """Return the answer, None when there is no more; asks again when it is none of the replies."""
    while True:
        log.print(question, end="", markup=False, highlight=False)
        line = sys.stdin.readline()
        reply = line.strip().lower()
        if not line or reply == "q":
            return None
        if reply in REPLIES:
            return REPLIES[reply]
        log.print("please answer y, n, Enter or q", markup=False)
