"""Verbs that put the measures themselves to the test: lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys.cli.console import Json, log, made, out, progress, save_text


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("lab")(lab)


def lab(
    events: Annotated[
        Path | None, typer.Argument(help="Events with values, for the labelled part. Default: a made-up film world.")
    ] = None,
    measures: Annotated[
        list[str] | None, typer.Option("-m", "--measure", help="tau_b, rbo[p=0.8], … (repeatable). Default: a dozen.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=100, help="Simulated pairs of lists a condition.")] = 4000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    folder: Annotated[Path, typer.Option("--out", help="Where lab.html and lab.json go.")] = Path("runs/lab"),
    as_json: Json = False,
) -> None:
    """Put measures of agreement to the test: simulated preferences with known truth, and own against stranger.

    Example: recsys lab -m tau_b -m rbo --out runs/lab
    """
    from recsys.data.reading.read import read_events
    from recsys.data.synthetic import film_world
    from recsys.evaluation.agreement.measures import parse_measures
    from recsys.evaluation.lab.labelled import tell_apart
    from recsys.evaluation.lab.studies import MEASURES, Setting, answers, run
    from recsys.models import build
    from recsys.report.lab_page import lab_page

    chosen = {str(measure): measure for measure in parse_measures(measures or MEASURES)}
    made(folder)  # before the work, not after it
    table = read_events(events)[0] if events else film_world(users=1500, items=600, events=90_000, seed=seed).events
    with progress() as steps:
        found = run(chosen, Setting(pairs=pairs, seed=seed), steps)
    found["labelled"] = tell_apart(table, build("als", {"rank": 16, "iterations": 10}), chosen, seed=seed)
    found["questions"] = answers(found)
    text = json.dumps(found, ensure_ascii=False, indent=1)
    save_text(folder / "lab.json", text)
    save_text(folder / "lab.html", lab_page(found))
    if as_json:
        print(text)
        return
    shown = Table("question", "best", "next", "by", title="Which measure for which question", title_justify="left")
    for row in found["questions"]:
        best = [f"{name} ({value:.3f})".replace("[", r"\[") for name, value in row["best"]]
        shown.add_row(row["question"], *[*best, "–", "–"][:2], row["figure"])
    out.print(shown)
    log.print(f"wrote {folder / 'lab.html'} and lab.json", markup=False)
