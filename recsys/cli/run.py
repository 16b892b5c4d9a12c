"""Verbs that make a run: demo, run, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import run_files
from recsys.cli.console import Overrides, log, models_table, out, progress

if TYPE_CHECKING:
    from recsys.config import Config

DEMO_DATA = Path("runs/demo-data")


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    app.command("demo")(demo)
    app.command("run")(run)
    app.command("report")(report)


def demo() -> None:
    """Run the whole flow on a made-up film world: no download, no Java.

    Example: recsys demo
    """
    from recsys.data.synthetic import film_world, write_world

    log.print(f"making a film world in {DEMO_DATA} …")
    write_world(film_world(), DEMO_DATA)
    run(Path(__file__).with_name("demo.toml"))


def run(
    config: Annotated[Path, typer.Argument(help="A TOML file, or a log: then everything else is chosen for it.")],
    overrides: Overrides = None,
) -> None:
    """Read, split, fit, recommend, judge and report, as CONFIG says.

    Example: recsys run configs/demo.toml --set recommend.k=20
    Example: recsys run events.csv --set data.items=items.csv --set judge.relevant=4
    """
    from recsys.config import config_for_log, load_config

    settings = (
        load_config(config, overrides or ()) if config.suffix == ".toml" else config_for_log(config, overrides or ())
    )
    for override in overrides or ():
        log.print(f"override: {override}", markup=False)
    settings = _routed(settings)
    if settings.engine == "spark":
        from recsys.spark.run import run as run_spark

        run_spark(settings)
    else:
        from recsys.experiment import run as run_local

        with progress() as steps:
            run_local(settings, progress=steps)
    report([Path(settings.out)])


def _routed(settings: Config) -> Config:
    """Return the settings with the path, and the models, that suit the log, where they name none."""
    unset = {"engine", "models"} - settings.model_fields_set
    if not unset:
        return settings
    from recsys.route import choose_route, measure_log

    chosen = choose_route(measure_log(settings))
    found: dict[str, Any] = {"engine": chosen.engine, "models": {name: {} for name in chosen.models}}
    log.print(f"path: {found['engine']}. {chosen.why[0]}", markup=False)
    if "models" in unset:
        log.print(chosen.why[-1], markup=False)
    return settings.model_copy(update={name: found[name] for name in unset})


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; their reports are written anew.")],
) -> None:
    """Write report.html and report.md of each run, and print one table of all their models and what they show.

    Example: recsys report runs/demo runs/als_demo
    """
    from recsys.report import write
    from recsys.report.sections.verdict import verdict
    from recsys.runfolder import RunFolder

    tables = {}
    for place in runs:
        folder = RunFolder.open(place)
        write(folder.path)
        tables[place.name] = folder.read_json(run_files.METRICS)
    out.print(models_table(tables))
    for place in runs:
        out.print(f"{place.name}: {verdict(tables[place.name])}", markup=False)
    for place in runs:
        out.print(f"report: {place / run_files.REPORT_HTML}", markup=False)
