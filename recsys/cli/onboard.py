"""The verb that asks a newcomer a few questions and then recommends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.console import log
from recsys.errors import ConfigError, nearest

REPLIES = {"y": 1, "yes": 1, "n": -1, "no": -1, "": 0, "?": 0}
"""What may be typed -> the answer, as ``models.onboarding`` counts them."""


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
    from recsys.bundle import known
    from recsys.config import load
    from recsys.models.onboarding import STRATEGIES, Answers, Onboarding
    from recsys.rank import topk_table
    from recsys.runfolder import RunFolder
    from recsys.types import IdMap

    if strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{nearest(strategy, STRATEGIES)}")
    folder = RunFolder.open(run)
    history, items = known(folder)
    ids = history.items
    model = Onboarding(strategy=strategy, like=load(run / "config.toml").judge.relevant).fit(history)
    titles = items.set_index("item_id")["title"].dropna() if "title" in items else {}
    answers: Answers = {}
    while len(answers) < questions and (item := model.question(answers)) is not None:
        name = ids.names([item])[0]
        answer = _ask(f"{len(answers) + 1}/{questions}  {titles.get(name, name)} (y / n / Enter: don't know / q): ")
        if answer is None:
            break
        answers[item] = answer
    table = topk_table(model.recommend(answers, k), IdMap.of(["you"]), ids).drop(columns="user_id")
    if "title" in items:
        table = table.merge(items[["item_id", "title"]], on="item_id", how="left")
    print(table.to_csv(index=False), end="")


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
