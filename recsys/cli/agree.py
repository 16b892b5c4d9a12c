"""The verb agree: how much two ranked lists agree."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer
from rich.table import Table

from recsys.cli.application import DECISIONS, app
from recsys.cli.console import out, save_text
from recsys.cli.options import Json
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.evaluation.agreement.measures import Measure

PARQUET_SUFFIXES = (".parquet", ".pq")


@app.command(rich_help_panel=DECISIONS)
def agree(
    list_a: Annotated[
        Path,
        typer.Argument(
            help="One id per line, best first, tied ids separated by tabs; or a CSV: item_id,score; or a table of the"
            " lists of many users (CSV or Parquet): user_id, item_id, rank or score."
        ),
    ],
    list_b: Annotated[Path, typer.Argument(help="The other list, or table of lists.")],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--measure",
            help="tau_b, rbo[p=0.8], overlap@10, … (repeatable). Default: tau_b and rbo.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--out", help="For tables of lists: write one row per user to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much two ranked lists agree, or two tables of lists, user by user.

    A value that is undefined is printed as "undefined", and is null in JSON.

    Example: recsys agree mine.txt yours.txt -m tau_b -m rbo --json
    """
    from recsys.data.list_file import read_list
    from recsys.evaluation.agreement.measures import compute_measures, parse_measures
    from recsys.evaluation.agreement.rankings import make_pair

    parsed = parse_measures(measures or ["tau_b", "rbo"])
    if is_table_of_lists(list_a) or is_table_of_lists(list_b):
        agree_per_user(list_a, list_b, parsed, save, as_json)
        return
    if save:
        raise ConfigError("--out is for tables of lists, which have one row per user.")
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
        table.add_row(str(measure), _format_value(values[str(measure)]), measure.definition)
    out.print(table)


def is_table_of_lists(path: Path) -> bool:
    """Return whether a file has the lists of many users, and not one list.

    It does if it is Parquet, or text with the column ``user_id`` in its header. The result is False
    for a file that cannot be opened.
    """
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return True
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            header = stream.readline()
    except OSError:
        # The reader of lists says what is wrong with the file.
        return False
    return "user_id" in re.split(r"[,\t]", header.strip())


def agree_per_user(path_a: Path, path_b: Path, measures: list[Measure], save: Path | None, as_json: bool) -> None:
    """Print how much two tables of lists agree: per measure, the mean over users and its interval.

    Args:
        path_a, path_b: the files with the tables.
        measures: the measures of agreement.
        save: a CSV file for the values of each user, or None.
        as_json: whether to print JSON.

    Raises:
        InputError: a table cannot be read, or ``save`` cannot be written.
    """
    from recsys.cli.compare import with_ranks
    from recsys.data.hashing import id_bits
    from recsys.evaluation.agreement.measures import agree_tables, describe_agreement
    from recsys.evaluation.testing.significance import bootstrap_sums
    from recsys.evaluation.topk_tables import read_topk
    from recsys.replacing import require_replaceable_file, starts_with
    from recsys.runfolder import to_plain_json

    if save:
        require_replaceable_file(save, starts_with("user_id,n_a,n_b,n_common,"), "--out", [path_a, path_b])
    lists_a, lists_b = (with_ranks(read_topk(path)) for path in (path_a, path_b))
    agreement = agree_tables(lists_a, lists_b, map(str, measures))
    per_user = agreement.per_user
    values = per_user[[str(measure) for measure in measures]].to_numpy(dtype=np.float64)
    sums = bootstrap_sums(values, id_bits(pd.Index(per_user["user_id"])))
    counts = {"users": len(per_user)} | {name: agreement.about["counts"][name] for name in ("without_a", "without_b")}
    result = describe_agreement(measures, sums, counts)
    if save:
        save_text(save, per_user.to_csv(index=False))
    if as_json:
        print(json.dumps(to_plain_json(result), ensure_ascii=False, allow_nan=False))
        return
    out.print(
        f"{len(per_user):,} users; without a list in the first table {counts['without_a']:,}, in the second"
        f" {counts['without_b']:,}"
    )
    table = Table("measure", show_edge=False)
    for head in ("mean", "95 % interval", "users"):
        table.add_column(head, justify="right")
    table.add_column("definition")
    for measure in measures:
        cell = result["measures"][str(measure)]
        interval = "" if math.isnan(cell["mean"]) else "{:.4f}–{:.4f}".format(*cell["ci95"])
        table.add_row(str(measure), _format_value(cell["mean"]), interval, f"{cell['users']:,}", measure.definition)
    out.print(table)


def _format_value(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"
