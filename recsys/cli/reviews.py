"""The verb reviews: scores predicted from what people write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from recsys.cli.application import DATA, app
from recsys.cli.console import log, out, save_text
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    config_of,
    reading_overrides,
)

WORDS = 10
"""Number of words that raise a score, and of words that lower it, that are printed."""

FEW_TEXTS = 0.1
"""The share of different texts among the reviews below which a warning is printed."""

FIRST_COLUMNS = "item_id,value,source"
ITEM_COLUMNS = "item_id,score,error,reviews"


@app.command(rich_help_panel=DATA)
def reviews(
    table: Annotated[str, typer.Argument(help="A table of reviews: item_id, text, score (may be empty)[, user_id].")],
    save: Annotated[
        Path | None,
        typer.Option("--out", help="Write the reviews with a value each, given or predicted: a log for recsys run."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Write one row per item: the mean score of its reviews, drawn towards that of all items."),
    ] = None,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Learn weights of words from reviews with a score, and predict the score of the other reviews.

    The error on held-out reviews is printed. The strength of the regression was chosen by this
    error, so the error is slightly too small. The words that raise and lower a score most are
    printed too.

    Example: recsys reviews reviews.csv --out ratings.csv --items films.csv
    """
    from recsys.data.reading.reviews import read_reviews
    from recsys.features.review_scores import ReviewScores, scores_of_items
    from recsys.replacing import require_replaceable_file, starts_with
    from recsys.schema import SCORED_REVIEWS

    if save:
        require_replaceable_file(save, starts_with(FIRST_COLUMNS), "--out", [Path(table)])
    if items:
        require_replaceable_file(items, starts_with(ITEM_COLUMNS), "--items", [Path(table)])
    reading = config_of(table, reading_overrides(columns, file_format, delimiter, encoding)).data.reading
    written = read_reviews(table, reading, SCORED_REVIEWS)
    has_score = written["score"].notna().to_numpy()
    model = ReviewScores().fit(written["text"][has_score], written["score"][has_score].to_numpy())
    value = written["score"].to_numpy(dtype=np.float64, copy=True)
    predicted = model.predict(written["text"][~has_score])
    value[~has_score] = model.whole_scores(predicted)
    filled = written.drop(columns=["text", "score"])
    filled.insert(1, "value", value)
    filled.insert(2, "source", np.where(has_score, "given", "text"))
    has_value = np.isfinite(value)
    filled = filled[has_value]
    if save:
        save_text(save, filled.to_csv(index=False))
    if items:
        # Items are compared by predictions that are not rounded.
        unrounded = value.copy()
        unrounded[~has_score] = predicted
        of_items = scores_of_items(written["item_id"][has_value].to_numpy(), unrounded[has_value])
        save_text(items, of_items.to_csv(index=False), "--items")
        if of_items["error"].isna().any() and not as_json:
            out.print(f"no item has two different scores: those of {items} are plain means, without an error")
    raising, lowering = model.strongest_words(WORDS)
    counts = {
        "different_texts": int(written["text"].nunique()),
        "predicted": int(np.isfinite(predicted).sum()),
        "without_known_words": int(np.isnan(predicted).sum()),
    }
    if as_json:
        print(json.dumps(model.record | counts | {"raise": raising, "lower": lowering}, ensure_ascii=False))
        return
    record = model.record
    out.print(f"{len(written):,} reviews, {counts['different_texts']:,} different texts")
    if counts["different_texts"] < FEW_TEXTS * len(written):
        log.print(
            "warning: most texts are repeated. A review is judged by reviews with other texts, so few texts tell little"
            " of the words, and the error and the correlation below are those of few texts. Is `text` the right column?"
        )
    out.print(
        f"{record['reviews']:,} reviews with a score. On held-out reviews: rmse {record['rmse']:.4f} (the mean for all:"
        f" {record['rmse_of_mean']:.4f}), correlation {record['pearson']:.3f}."
    )
    if len(predicted):
        out.print(
            f"{counts['predicted']:,} reviews without a score got one; {counts['without_known_words']:,} have no known"
            " word and are left out."
        )
    out.print(f"words that raise a score: {', '.join(raising)}")
    out.print(f"words that lower a score: {', '.join(lowering)}")
