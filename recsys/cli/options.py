"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: --set recommend.k=20 (repeatable)."),
]

RunOrBundle = Annotated[Path, typer.Argument(help="A run folder of `recsys run`, or a bundle of one.")]

ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Which model of the run. Default: the pick of the run, the best by its first metric."),
]

TableOut = Annotated[
    Path | None,
    typer.Option("--out", help="Write the table to this CSV file instead of printing it."),
]
