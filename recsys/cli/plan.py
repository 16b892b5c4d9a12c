"""The verb plan: what a run on Spark will need, before it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.console import Json, Overrides, out
from recsys.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add this file's verb."""
    app.command("plan")(plan)


def plan(
    config: Annotated[Path, typer.Argument(help="A TOML file; configs/ has commented examples.")],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Count the log, and say what a run on Spark needs: memory, shuffle, blocks, time; exit 2 when it cannot fit.

    Example: recsys plan configs/als_large.toml --set models.als.rank=128
    """
    from recsys.config import load_config
    from recsys.spark.data.read import raw_events
    from recsys.spark.plan import count, machine
    from recsys.spark.plan import plan as make
    from recsys.spark.run import als_params
    from recsys.spark.session import session

    settings = load_config(config, overrides or ())
    params = als_params(settings)
    spark = session(settings.spark)
    facts = count(raw_events(spark, settings.data))
    found = make(settings, facts, machine(spark, facts, params), params)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for name, value in (asdict(facts) | found.sizes).items():
            out.print(f"{name.replace('_', ' '):32} {value:,}" if isinstance(value, int) else f"{name:32} {value}")
        for name, seconds in found.seconds.items():
            out.print(f"{name:32} {seconds:,.0f} s", markup=False)
        out.print(f"{'all':32} {sum(found.seconds.values()):,.0f} s")
        for role, mb in found.memory.items():
            out.print(f"{'peak memory, ' + role:32} {mb:,.0f} MiB")
        for note in found.notes:
            out.print(f"note: {note}", markup=False)
    if found.refusals:
        raise ConfigError("this cannot fit: " + " ".join(found.refusals))
