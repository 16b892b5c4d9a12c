"""The verb predict: ratings of pairs of users and items, from a run that predicts ratings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.application import LISTS, app
from recsys.cli.console import log, print_or_save
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    ModelName,
    OwnModels,
    config_of,
    reading_overrides,
    run_argument,
)

FIRST_COLUMNS = "user_id,item_id,score,source"


@app.command(rich_help_panel=LISTS)
def predict(
    run: Annotated[Path, run_argument("A run with [judge] task = 'ratings', or a bundle of one: a path or a URI.")],
    pairs: Annotated[str, typer.Argument(help="A table of pairs: user_id, item_id, or the names of the run's log.")],
    model: ModelName = None,
    save: Annotated[Path | None, typer.Option("--out", help="Write the predictions to this file (CSV).")] = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    own_models: OwnModels = False,
) -> None:
    """Predict the rating of each pair of a table, by a model of a run that predicts ratings.

    If the table has no columns user_id and item_id, the names in [data.columns] of the run are
    used. --column takes precedence.

    Example: recsys predict runs/ratings pairs.csv --model bpmf --out predicted.csv
    """
    from recsys.replacing import require_replaceable_file, starts_with
    from recsys.runfolder import RunFolder, damage_explained
    from recsys.saved.rating_predictions import open_rating_model, read_pairs

    if save:
        require_replaceable_file(save, starts_with(FIRST_COLUMNS), "--out", [Path(pairs)])
    folder = RunFolder.open(run)
    reading = config_of(pairs, reading_overrides(columns, file_format, delimiter, encoding)).data.reading
    table = read_pairs(pairs, reading, folder)
    with damage_explained(run):
        saved = open_rating_model(folder, model)
        predicted = saved.predict(table)
    users, items, pairs_of_strangers = saved.count_unknown(table)
    if pairs_of_strangers:
        log.print(
            f"{pairs_of_strangers:,} of {len(table):,} pairs have a user or an item that the run does not know"
            f" (unknown user: {users:,}, unknown item: {items:,})"
        )
    print_or_save(predicted.to_csv(index=False), save)
