"""The verb agree: how much two ranked lists agree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys.cli.application import DECISIONS, app
from recsys.cli.console import out
from recsys.cli.options import Json


@app.command(rich_help_panel=DECISIONS)
def agree(
    list_a: Annotated[
        Path,
        typer.Argument(help="One id per line, best first, tied ids separated by tabs; or a CSV: item_id,score."),
    ],
    list_b: Annotated[Path, typer.Argument(help="The other list, in either form.")],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--measure",
            help="tau_b, rbo[p=0.8], overlap@10, … (repeatable). Default: tau_b and rbo.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much two ranked lists agree. Undefined values are "undefined", null in JSON.

    Example: recsys agree mine.txt yours.txt -m tau_b -m rbo --json
    """
    from recsys.data.list_file import read_list
    from recsys.evaluation.agreement.measures import compute_measures, parse_measures
    from recsys.evaluation.agreement.rankings import make_pair

    parsed = parse_measures(measures or ["tau_b", "rbo"])
    pairs = make_pair(read_list(list_a), read_list(list_b))
    values = {name: float(value[0]) for name, value in compute_measures(pairs, parsed).items()}
    if as_json:
        print(json.dumps({name: None if math.isnan(value) else value for name, value in values.items()}))
        return
    (n_a, n_b), common = pairs.lengths, pairs.common
    out.print(f"{n_a[0]:,} and {n_b[0]:,} items, {common[0]:,} in common")
    table = Table("measure", show_edge=False)
    table.add_column("value", justify="right")
    table.add_column("definition")
    for measure in parsed:
        value = values[str(measure)]
        if math.isnan(value):
            text = "undefined"
        else:
            text = f"{value:.4f}"
        table.add_row(str(measure), text, measure.definition)
    out.print(table)
