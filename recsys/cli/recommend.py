"""The verb recommend: lists for some users."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer
from scipy.sparse import csr_array

from recsys.cli.application import LISTS, app
from recsys.cli.console import log, print_or_save, print_rules
from recsys.cli.options import ModelName, OwnModels, RunOrBundle, TableOut
from recsys.cli.saved_items import csv_with_titles, open_with_notice, report_unknown_users
from recsys.errors import ConfigError, InputError
from recsys.types import IdMap

if TYPE_CHECKING:
    from recsys.saved.open_model import SavedModel

HEADERS = tuple(f"user_id,item_id,rank,score,source{further}" for further in ("", ",title", ",reason", ",reason,title"))
"""The possible first lines of the tables that ``recsys recommend`` writes."""


@app.command(rich_help_panel=LISTS)
def recommend(
    run: RunOrBundle,
    user: Annotated[
        list[str] | None,
        typer.Option(help="A user id (repeatable). An unknown user gets the fallback."),
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="A file of user ids, one per line; or a CSV: user_id, and columns that give segments."),
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option("--with", help="An attribute of users without a history: country=DE (repeatable)."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1_000_000, help="The length of each list.")] = 10,
    rules: Annotated[Path | None, typer.Option(help="A TOML file of business rules.")] = None,
    diverse: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Prefer unlike items (MMR): 1 changes nothing, 0 looks at likeness alone.",
        ),
    ] = None,
    calibrate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Bring the mix of --by closer to that of the user: 1 changes nothing.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="The column for --calibrate. Default: the first that holds lists."),
    ] = None,
    explore: Annotated[
        float | None,
        typer.Option(help="Draw the list at random. Near 0 it is almost the usual list; at 1 it is nearly any list."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of --explore; the same seed gives the same list.")] = 0,
    reasons: Annotated[bool, typer.Option("--reasons", help="Add a column: why each item is listed.")] = False,
    model: ModelName = None,
    save: TableOut = None,
    own_models: OwnModels = False,
) -> None:
    """Print the best items of some users as CSV: user_id, item_id, rank, score, source[, reason][, title].

    The source is the model that scored the user: the model of the run, or its fallback. The lists
    rank all items but those that the user has seen, also where the run ranked new items alone.

    Example: recsys recommend runs/demo --user u0001 -k 5

    A new user, if the run has segments: recsys recommend RUN --user me --with country=Arvenia

    More variety: recsys recommend runs/demo --user u0001 --diverse 0.7
    """
    from recsys.data.hashing import id_bits
    from recsys.ranking import rank, rerank
    from recsys.ranking.business_rules import compile_rules, load_rules
    from recsys.replacing import has_first_line, require_replaceable_file
    from recsys.saved.open_model import describe_other_ranking
    from recsys.types import SHORTFALL

    rerankers = {"--diverse": diverse, "--calibrate": calibrate, "--explore": explore}
    chosen_rerankers = [option for option, value in rerankers.items() if value is not None]
    if len(chosen_rerankers) > 1:
        raise ConfigError(f"{' and '.join(chosen_rerankers)}: give one of them.")
    if by is not None and calibrate is None:
        raise ConfigError("--by names the column of --calibrate, which is not given.")
    if save:
        require_replaceable_file(save, has_first_line(*HEADERS), "--out", [users, rules])
    user_table = read_user_table(user or [], users)
    saved = open_with_notice(run, model)
    if note := describe_other_ranking(saved.config):
        log.print(note)
    user_ids = IdMap.from_ids(user_table["user_id"])
    if not attributes:
        report_unknown_users(saved, user_table["user_id"])
    if attributes:
        user_table = user_table.assign(**parse_attributes(attributes, saved))
    compiled = None
    if rules:
        compiled = compile_rules(load_rules(rules), user_ids, saved.history.items, saved.items)
        print_rules(compiled.about)
    # A re-ranker needs more than k items to choose from.
    length = k
    if chosen_rerankers:
        length = rerank.pool_size(k)
    lists = saved.recommend(user_table, length, rules=compiled)
    if diverse is not None:
        lists = rerank.mmr(lists, weigh_item_terms(saved), k, diverse)
    elif calibrate is not None:
        lists = rerank.calibrated(lists, item_shares(saved, by), saved.histories(user_ids.ids).values, k, calibrate)
    elif explore is not None:
        lists = rerank.explore(lists, k, explore, seed, id_bits(user_ids.ids))
    for row in np.flatnonzero(lists.shortfall):
        log.print(f"user {user_ids.ids[row]}: short list, {SHORTFALL[lists.shortfall[row]]}")
    table = rank.topk_table(lists, user_ids, saved.history.items)
    if reasons:
        table["reason"] = explain_lists(saved, table, user_table)
    print_or_save(csv_with_titles(saved, table), save)


def explain_lists(saved: SavedModel, table: pd.DataFrame, user_table: pd.DataFrame) -> list[str]:
    """Return for each row of a table of lists the sentence that says why the item is listed.

    It is the sentence of `recsys explain` and of a server, "" where no item of the history raises the
    score. Each row is computed alone.

    Args:
        saved: the model.
        table: the lists: user_id and item_id. The rows of a user follow each other.
        user_table: the users, as :func:`read_user_table` returns them.
    """
    from recsys.report.reasons import Reasons, explain_score

    words = Reasons(saved.items)
    sentences = []
    for user, items in table.groupby("user_id", sort=False)["item_id"]:
        recommender = saved.recommender(user_table[user_table["user_id"] == user])
        history = saved.histories([user])
        for row in saved.history.items.rows(items):
            sentences.append(explain_score(saved.name, recommender, words, history, int(row)).sentence)
    return sentences


def read_user_table(ids: list[str], path: Path | None) -> pd.DataFrame:
    """Return the users to recommend to as a table with one row per user.

    Its columns are ``user_id`` and the other columns of the file, all of them text. The rows are in
    ascending order of the ids as text, so "10" is before "9". A user who is in ``ids`` alone has
    missing values in the other columns. If the file has an id several times, its first row counts.

    Args:
        ids: user ids that are given one by one.
        path: a file of users (:func:`read_user_file`), or None.

    Raises:
        InputError: there are no users, or the file cannot be read.
    """
    tables = [pd.DataFrame({"user_id": ids}, dtype=object)]
    if path:
        # Its rows come first, because they may have attributes.
        tables.insert(0, read_user_file(path))
    table = pd.concat(tables).drop_duplicates("user_id").sort_values("user_id", ignore_index=True)
    if table.empty:
        raise InputError("nobody to recommend to: give --user ID or --users FILE.")
    return table


def read_user_file(path: Path) -> pd.DataFrame:
    """Return the users of a file as text: ``user_id``, and the other columns of a CSV file.

    A file is CSV if its first line has the field ``user_id``. Any other file has one id per line.
    Blank lines are skipped.

    Raises:
        InputError: the file does not exist or is not UTF-8; a row of a CSV file has another number
            of fields than the header; or the fields of the header are not separated by commas.
    """
    from recsys.data.list_file import read_id_lines

    lines = read_id_lines(path)
    header = [cell.strip() for cell in next(csv.reader(lines[:1]), [])]
    # Without a header every line is one id, even if it contains a comma.
    if len(header) == 1 and "user_id" in re.split(r"[;\t|]", header[0]) and header != ["user_id"]:
        raise InputError(
            f"{path}: the header {header[0]!r} is not separated by commas. Write the file as CSV with commas."
        )
    if "user_id" not in header:
        return pd.DataFrame({"user_id": lines}, dtype=object)
    rows = list(csv.reader(lines))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise InputError(f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}.")
    return pd.DataFrame(rows[1:], columns=header, dtype=object)


def parse_attributes(pairs: list[str], saved: SavedModel) -> dict[str, str]:
    """Return the attributes that ``--with`` gives, as a dict: column -> value.

    A warning is printed if no user of train has these values, because there is then no segment for
    them.

    Args:
        pairs: texts such as ``country=Arvenia``.
        saved: the model.

    Raises:
        InputError: the run has no segments, or its segments do not use such a column.
    """
    from recsys.features.segment_popularity import parse_user_attributes

    if saved.segments is None:
        raise InputError(
            "--with: this run has no segments: run it with [recommend] fallback = 'segment' and segment = 'COLUMN'."
        )
    values = parse_user_attributes(pairs, saved.segments)
    if saved.segments.rows(pd.DataFrame([values]))[0] < 0:
        log.print(f"--with {' '.join(pairs)}: no such segment in train: popular items")
    return values


def weigh_item_terms(saved: SavedModel) -> csr_array:
    """Return the weighted terms of each item, float32 csr (items, terms).

    Row i is the item of row i of ``saved.history.items``. The terms are the attributes and words of
    the items table, with TF-IDF weights (:func:`recsys.features.terms.weigh_terms`). The row of an
    item without attributes is zero. All other rows have the Euclidean norm 1.

    Args:
        saved: the model, which has the items table.

    Raises:
        InputError: no item has an attribute.
    """
    from recsys.features.encoding import encode_features
    from recsys.features.terms import weigh_terms

    encoded = encode_features(saved.items, "item_id", saved.history.items)
    if not encoded.matrix.nnz:
        raise InputError("this run's items have no attributes to be alike by: give [data] items a table.")
    return weigh_terms(encoded)


def item_shares(saved: SavedModel, column: str | None) -> csr_array:
    """Return how each item divides over the values of a column, csr (items, values) of float64.

    Row i is the item of row i of ``saved.history.items``. An item with two values has 0.5 for each,
    so rows sum to 1. The row of an item without a value is zero.

    Args:
        saved: the model, which has the items table.
        column: the name of the column. None: the first column that has lists.

    Raises:
        ConfigError: there is no such column.
        InputError: the column has no values; or ``column`` is None and no column has lists.
    """
    from sklearn.preprocessing import normalize

    from recsys.evaluation.beyond import attributes

    values = attributes(column, saved.history.items, saved.items)
    if values is None:
        raise InputError("this run's items have no column that holds lists: name another with --by.")
    return normalize(values, norm="l1")
