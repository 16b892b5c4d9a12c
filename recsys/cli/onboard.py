"""The verb onboard: a few questions to a new user, then a list."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys import run_files
from recsys.cli.application import LISTS, app
from recsys.cli.console import log
from recsys.cli.options import run_argument
from recsys.errors import ConfigError, suggest_nearest

REPLIES = {"y": 1, "yes": 1, "n": -1, "no": -1, "": 0, "?": 0}
"""What the user may type -> the answer: 1 for a like, -1 for a dislike, 0 for "I don't know"."""


@app.command(rich_help_panel=LISTS)
def onboard(
    run: Annotated[Path, run_argument("A run folder of either engine, or a bundle: a path or a URI.")],
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
    from recsys.saved.open_model import read_history_and_items, require_run_of_lists
    from recsys.saved.restore_values import restore_values
    from recsys.types import IdMap

    if strategy not in STRATEGIES:
        raise ConfigError(f"no strategy {strategy!r}.{suggest_nearest(strategy, STRATEGIES)}")
    folder = RunFolder.open(run)
    with damage_explained(run):
        config = load_config(folder.local(run_files.CONFIG))
        require_run_of_lists(run, config.judge.task)
        history, items = read_history_and_items(folder)
        item_ids = history.items
        split = None
        if folder.has(run_files.SPLIT_CARD):
            split = folder.read_json(run_files.SPLIT_CARD)
        original, least_like = restore_values(history, config, split, log.print)
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
    table = topk_table(model.recommend(answers, k), IdMap.from_ids(["you"]), item_ids).drop(columns="user_id")
    if "title" in items:
        table = table.merge(items[["item_id", "title"]], on="item_id", how="left")
    print(table.to_csv(index=False), end="")


def ask(question: str) -> int | None:
    """Ask the user a question, and return the answer: 1 a like, -1 a dislike, 0 unknown.

    The result is None if the user types q, or if the input ends. After any other reply the question
    is asked again. Questions are printed to stderr, and answers are read from stdin.
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
