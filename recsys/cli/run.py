"""The verb run: everything from a config, or from a log alone, to a report."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import run_files
from recsys.cli.application import RUNS, app
from recsys.cli.console import log, print_rules, progress
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Items,
    Overrides,
    OwnModels,
    TimeUnit,
    Users,
    config_of,
    reading_overrides,
    table_overrides,
)
from recsys.cli.report import print_results
from recsys.locations import is_remote, parse_location

if TYPE_CHECKING:
    from recsys.config import Config


@app.command(rich_help_panel=RUNS)
def run(
    config: Annotated[
        str,
        typer.Argument(help="A config (TOML), or a file of events: recsys then chooses engine and models."),
    ],
    overrides: Overrides = None,
    items: Items = None,
    users: Users = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="The run folder. Default: `out` of the config; of a file of events, runs/NAME."),
    ] = None,
    own_models: OwnModels = False,
) -> None:
    """Read events, split them, fit models, recommend, evaluate, and write a report.

    All results are in the run folder. An earlier run in this folder is replaced as a whole.

    Example: recsys run configs/demo.toml --set recommend.k=20

    Example: recsys run events.csv --items items.csv --set judge.relevant=4
    """
    reading = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
    all_overrides = [*reading, *table_overrides(items, users), *(overrides or ())]
    if out is not None:
        all_overrides.append(f"out={json.dumps(out, ensure_ascii=False)}")
    settings = config_of(config, all_overrides)
    for override in all_overrides:
        log.print(f"override: {override}")
    from recsys.evaluation.judging.metrics import cut_off_caution
    from recsys.flow import require_feasible
    from recsys.flow import run as run_flow
    from recsys.runfolder import RunFolder

    # Measuring a large log takes minutes, so what cannot be written is refused before that.
    require_feasible(settings)
    settings = choose_engine_and_models(settings)
    caution = ""
    if settings.judge.task == "lists":
        caution = cut_off_caution(settings.judge.metrics, settings.recommend.k)
    if caution:
        log.print(f"caution: {caution}")
    with progress() as report_progress:
        run_flow(settings, progress=report_progress)
    out_folder = parse_location(settings.out)
    folder = RunFolder.open(out_folder)
    if folder.has(run_files.RULES_CARD):
        print_rules(folder.read_object(run_files.RULES_CARD, removed=dict, unknown=dict))
    print_results([out_folder], own_models)


def choose_engine_and_models(settings: Config) -> Config:
    """Return the settings with an engine and models that suit the log, if the config names none.

    What the config names is not changed. If models are chosen and events have times, the fallback
    becomes ``recent``, unless the config names one. The reasons are printed on stderr.

    Raises:
        InputError: the log cannot be read, or has no events.
    """
    missing = {"engine", "models"} - settings.model_fields_set
    if not missing:
        return settings
    from recsys.route import choose_route, measure_log

    if any(map(is_remote, settings.event_files)):
        log.print("engine: spark. Only Spark reads the file system of the events, so they are not measured first.")
        return settings.model_copy(update={"engine": "spark"} if "engine" in missing else {})
    route = choose_route(measure_log(settings))
    choices: dict[str, Any] = {
        "engine": route.engine,
        "models": {name: {} for name in route.models},
    }
    log.print(f"engine: {route.engine}. {route.reasons[0]}")
    update = {name: choices[name] for name in missing}
    if "models" in missing:
        log.print(route.reasons[-1])
        if route.statistics.timed and "fallback" not in settings.recommend.model_fields_set:
            log.print("Users without a history get what is liked lately (fallback: recent), because events have times.")
            update["recommend"] = settings.recommend.model_copy(update={"fallback": "recent"})
    return settings.model_copy(update=update)
