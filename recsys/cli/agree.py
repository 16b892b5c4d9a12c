"""Verbs about agreement of ranked lists: agree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys.cli.console import Json, out


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("agree")(agree)


def agree(
    list_a: Annotated[Path, typer.Argument(help="One id a line, best first (tab-separated: tied); or item_id,score.")],
    list_b: Annotated[Path, typer.Argument(help="The other list, in either form.")],
    measures: Annotated[
        list[str] | None,
        typer.Option("-m", "--measure", help="tau_b, rbo[p=0.8], overlap@10, … (repeatable). Default: tau_b and rbo."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two ranked lists. Undefined values are "undefined", null in JSON.

    Example: recsys agree mine.txt yours.txt -m tau_b -m rbo --json
    """
    from recsys.data.list_file import read_list
    from recsys.evaluation.agreement.measures import compute_measures, parse_measures
    from recsys.evaluation.agreement.rankings import make_pair

    chosen = parse_measures(measures or ["tau_b", "rbo"])
    pairs = make_pair(read_list(list_a), read_list(list_b))
    values = {name: float(value[0]) for name, value in compute_measures(pairs, chosen).items()}
    if as_json:
        print(json.dumps({name: None if math.isnan(value) else value for name, value in values.items()}))
        return
    (n_a, n_b), common = pairs.lengths, pairs.common
    out.print(f"{n_a[0]:,} and {n_b[0]:,} items, {common[0]:,} in common")
    table = Table("measure", show_edge=False)
    table.add_column("value", justify="right")
    table.add_column("what it is")
    for measure in chosen:
        value = values[str(measure)]
        table.add_row(
            str(measure).replace("[", r"\["), "undefined" if math.isnan(value) else f"{value:.4f}", measure.definition
        )
    out.print(table)
