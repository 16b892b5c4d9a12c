"""The verb plan: what a run on Spark will need, before it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from recsys.cli.application import RUNS, app
from recsys.cli.console import out
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    Overrides,
    TimeUnit,
    config_of,
    reading_overrides,
)
from recsys.errors import ConfigError


@app.command(rich_help_panel=RUNS)
def plan(
    config: Annotated[str, typer.Argument(help="A config (TOML; configs/ has examples), or a file of events.")],
    overrides: Overrides = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    as_json: Json = False,
) -> None:
    """Count the log and print what a run on Spark needs: memory, shuffle, blocks, time.

    The exit code is 2 if the run cannot fit.

    Example: recsys plan configs/als_large.toml --set models.als.rank=128
    """
    from recsys.config import require_task_of_lists
    from recsys.spark.data.read import accepted_pairs
    from recsys.spark.plan import count_log, measure_machine
    from recsys.spark.plan import plan as make_plan
    from recsys.spark.session import session
    from recsys.spark.training.parameters import model_parameters

    reading = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
    settings = config_of(config, [*reading, *(overrides or ())])
    require_task_of_lists(settings, "recsys plan")
    params = model_parameters(settings)
    spark = session(settings.spark)
    facts = count_log(accepted_pairs(spark, settings.data, settings.event_files))
    estimate = make_plan(settings, facts, measure_machine(spark, facts, params), params)
    if as_json:
        print(json.dumps(asdict(estimate)))
    else:
        for name, value in (asdict(facts) | estimate.sizes).items():
            if isinstance(value, int):
                text = f"{value:,}"
            else:
                text = str(value)
            out.print(f"{name.replace('_', ' '):32} {text}")
        for name, seconds in estimate.seconds.items():
            out.print(f"{name:32} {seconds:,.0f} s")
        out.print(f"{'all':32} {sum(estimate.seconds.values()):,.0f} s")
        for role, mb in estimate.memory.items():
            out.print(f"{'peak memory, ' + role:32} {mb:,.0f} MiB")
        for note in estimate.notes:
            out.print(f"note: {note}")
    # The estimate is printed before the refusal, because it shows what does not fit.
    if estimate.refusals:
        raise ConfigError("this run cannot fit: " + " ".join(estimate.refusals))
