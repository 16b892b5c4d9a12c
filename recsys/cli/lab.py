"""The verb lab: an experiment on the measures of agreement themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys.atomic_writing import write_texts
from recsys.cli.application import DECISIONS, app
from recsys.cli.console import log, out, progress, write_errors_explained
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    TimeUnit,
    config_of,
    reading_overrides,
)
from recsys.errors import ConfigError
from recsys.replacing import require_output_path, require_replaceable_file

LAB_JSON = "lab.json"
LAB_HTML = "lab.html"


@app.command(rich_help_panel=DECISIONS)
def lab(
    events: Annotated[
        Path | None,
        typer.Argument(help="Events with values, for the part with real users. Default: a made-up world of films."),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option("-m", "--measure", help="tau_b, rbo[p=0.8], … (repeatable). Default: a dozen measures."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=100, help="Simulated pairs of lists per condition.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")] = 0,
    folder: Annotated[Path, typer.Option("--out", help="The folder for lab.html and lab.json.")] = Path("runs/lab"),
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_unit: TimeUnit = None,
    as_json: Json = False,
) -> None:
    """Test measures of agreement on simulated preferences with a known truth.

    They are also tested on the ratings of users: those of EVENTS, or of a made-up world.

    Example: recsys lab -m tau_b -m rbo --out runs/lab
    """
    from recsys.data.reading.read import read_events
    from recsys.data.synthetic import film_world
    from recsys.evaluation.agreement.measures import parse_measures
    from recsys.evaluation.lab.labelled import discrimination_auc
    from recsys.evaluation.lab.studies import STUDIED_MEASURES, LabSettings, best_measures, run_lab
    from recsys.models import build
    from recsys.report.lab_page import lab_page

    overrides = reading_overrides(columns, file_format, delimiter, encoding, time_unit)
    if overrides and events is None:
        raise ConfigError("lab: options on how files are read need a file of events: recsys lab EVENTS.")
    require_lab_folder(folder)
    parsed = {str(measure): measure for measure in parse_measures(measures or STUDIED_MEASURES)}
    if events:
        table = read_events(events, config_of(str(events), overrides).data.reading)[0]
    else:
        table = film_world(users=1500, items=600, events=90_000, seed=seed).events
    with progress() as steps:
        result = run_lab(parsed, LabSettings(pairs=pairs, seed=seed), steps)
    # Rankings for real users need some model. A small one is enough, because the measures are
    # compared with each other, not the models.
    als = build("als", {"rank": 16, "iterations": 10})
    result["labelled"] = discrimination_auc(table, als, parsed, seed=seed)
    result["questions"] = best_measures(result)
    text = json.dumps(result, ensure_ascii=False, indent=1)
    with write_errors_explained(folder):
        write_texts(folder, {LAB_JSON: text, LAB_HTML: lab_page(result)})
    if as_json:
        print(text)
        return
    table_of_answers = Table(
        "question",
        "best",
        "next",
        "by",
        title="Which measure for which question",
        title_justify="left",
    )
    for row in result["questions"]:
        best_two = [f"{name} ({value:.3f})" for name, value in row["best"]]
        table_of_answers.add_row(row["question"], *[*best_two, "–", "–"][:2], row["figure"])
    out.print(table_of_answers)
    log.print(f"wrote {folder / LAB_HTML} and {folder / LAB_JSON}")


def require_lab_folder(folder: Path) -> None:
    """Make a folder, and check that ``recsys lab`` may write its page and its JSON file into it.

    A page is replaced only if the JSON file beside it is a result of ``recsys lab``.

    Raises:
        RunFolderError: the folder is a run or a bundle, or inside one.
        InputError: the folder is a URI or cannot be made, or it has files of these names from
            another program.
    """

    def is_result(start: bytes) -> bool:
        return start.startswith(b"{") and b'"mallows"' in start

    require_output_path(folder / LAB_JSON, "--out")
    with write_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        has_result = (folder / LAB_JSON).exists() and is_result((folder / LAB_JSON).read_bytes())
    require_replaceable_file(folder / LAB_JSON, is_result, "--out")
    require_replaceable_file(folder / LAB_HTML, lambda start: has_result, "--out")
