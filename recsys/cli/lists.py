"""Verbs that ask a run's model: recommend, similar, explain."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import typer
from scipy.sparse import csr_array

from recsys.cli.application import LISTS, app
from recsys.cli.console import log, out, save_text
from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.types import IdMap

if TYPE_CHECKING:
    from recsys.saved.open_model import SavedModel

POOL = 100
"""A list that is made anew chooses among at least so many."""

Run = Annotated[Path, typer.Argument(help="A run folder of `recsys run`, or a bundle of one.")]
Model = Annotated[str | None, typer.Option(help="Which of its models; unset: the best by the run's first metric.")]


def item_row(saved: SavedModel, item: str) -> int:
    """Return an item's row; InputError, with the nearest id, for an unknown item."""
    row = int(saved.history.items.rows([item])[0])
    if row < 0:
        raise InputError(f"no item {item!r} in this run.{suggest_nearest(item, map(str, saved.history.items.ids))}")
    return row


def item_terms(saved: SavedModel) -> csr_array:
    """Return the items' weighted terms, float32 csr (items, terms), rows of length 1."""
    from recsys.features.encoding import encode_features
    from recsys.features.terms import weigh_terms

    encoded = encode_features(saved.items, "item_id", saved.history.items)
    if not encoded.matrix.nnz:
        raise InputError("this run's items have no attributes to be alike by: give [data] items a table.")
    return weigh_terms(encoded)


def item_shares(saved: SavedModel, column: str | None) -> csr_array:
    """Return each item's shares of the values of a column, float64 csr (items, values)."""
    from sklearn.preprocessing import normalize

    from recsys.evaluation.beyond import attributes

    values = attributes(column, saved.history.items, saved.items)
    if values is None:
        raise InputError("this run's items have no column that holds lists: name another with --by.")
    return normalize(values, norm="l1")


def with_titles(saved: SavedModel, table: pd.DataFrame) -> str:
    """Return a table as CSV, with titles where the run has them."""
    if "title" in saved.items:
        table = table.merge(saved.items[["item_id", "title"]], on="item_id", how="left")
    return table.to_csv(index=False)


@app.command(rich_help_panel=LISTS)
def recommend(
    run: Run,
    user: Annotated[
        list[str] | None, typer.Option(help="A user id (repeatable); a stranger gets the fallback.")
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="A file of user ids, one a line; or CSV: user_id, and columns that tell segments."),
    ] = None,
    told: Annotated[
        list[str] | None,
        typer.Option("--with", help="What is known of users without a history: country=DE (repeatable)."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Length of each list.")] = 10,
    rules: Annotated[Path | None, typer.Option(help="A TOML file of business rules.")] = None,
    diverse: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Let unlike items in (MMR): 1 changes nothing, 0 looks at likeness alone."),
    ] = None,
    calibrate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Draw the mix of --by towards the user's own: 1 changes nothing."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="The column for --calibrate; unset: the first that holds lists.")
    ] = None,
    explore: Annotated[
        float | None,
        typer.Option(help="Draw the list by chance, near 0: hardly; 0.1: the best are likely; 1: few are."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --explore: the same for the same list.")] = 0,
    model: Model = None,
    save: Annotated[
        Path | None, typer.Option("--out", help="Write the table there (CSV) instead of printing it.")
    ] = None,
) -> None:
    """Print the best items of some users as CSV: user_id, item_id, rank, score, source.

    Example: recsys recommend runs/demo --user u0001 -k 5
    Somebody new, where the run has segments: recsys recommend RUN --user me --with country=Arvenia
    More variety: recsys recommend runs/demo --user u0001 --diverse 0.7
    """
    from recsys.data.hashing import id_bits
    from recsys.ranking import rank, rerank
    from recsys.ranking.business_rules import compile_rules
    from recsys.ranking.business_rules import load as load_rules
    from recsys.saved.open_model import open_model
    from recsys.types import SHORTFALL

    variety = {"--diverse": diverse, "--calibrate": calibrate, "--explore": explore}
    ways = [way for way, value in variety.items() if value is not None]
    if len(ways) > 1:
        raise ConfigError(f"{' and '.join(ways)}: give one of them.")
    if by is not None and calibrate is None:
        raise ConfigError("--by names the column of --calibrate, which is not given.")
    wanted = pd.concat([pd.DataFrame({"user_id": user or []}, dtype=object), *([_people(users)] if users else [])])
    wanted = wanted.drop_duplicates("user_id").sort_values("user_id", ignore_index=True)
    if not len(wanted):
        raise InputError("nobody to recommend to: give --user ID or --users FILE.")
    opened = open_model(run, model)
    asked = IdMap.of(wanted["user_id"])
    if told:
        wanted = wanted.assign(**_told(told, opened))
    compiled = compile_rules(load_rules(rules), asked, opened.history.items, opened.items) if rules else None
    if compiled:
        log.print(f"rules removed: {compiled.removed}", markup=False)
        for name, ids in compiled.unknown.items():
            log.print(f"rule {name}: unknown ids {ids[:10]}{' …' if len(ids) > 10 else ''}", markup=False)
    histories = opened.histories(asked.ids)
    lists = rank.recommend(opened.recommender(wanted), histories, max(POOL, 5 * k) if ways else k, rules=compiled)
    if diverse is not None:
        lists = rerank.mmr(lists, item_terms(opened), k, diverse)
    elif calibrate is not None:
        lists = rerank.calibrated(lists, item_shares(opened, by), histories.values, k, calibrate)
    elif explore is not None:
        lists = rerank.explore(lists, k, explore, seed, id_bits(asked.ids))
    for row in np.flatnonzero(lists.shortfall):
        log.print(f"user {asked.ids[row]}: short list, {SHORTFALL[lists.shortfall[row]]}", markup=False)
    text = with_titles(opened, rank.topk_table(lists, asked, opened.history.items))
    if save:
        save_text(save, text)
    else:
        print(text, end="")


@app.command(rich_help_panel=LISTS)
def similar(
    run: Run,
    item: Annotated[str, typer.Argument(help="An item id.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    model: Model = None,
) -> None:
    """Print what the model recommends to somebody whose whole history is one item.

    Example: recsys similar runs/demo f0001
    """
    from recsys.ranking import rank
    from recsys.saved.open_model import open_model

    opened = open_model(run, model)
    row = item_row(opened, item)
    one = csr_array((np.ones(1, np.float32), [row], [0, 1]), shape=(1, len(opened.history.items)))
    lists = rank.recommend(opened.model, one, k)
    table = rank.topk_table(lists, IdMap.of(["?"]), opened.history.items).drop(columns="user_id")
    print(with_titles(opened, table), end="")


@app.command(rich_help_panel=LISTS)
def explain(
    run: Run,
    user: Annotated[str, typer.Option(help="A user id.")],
    item: Annotated[str, typer.Option(help="An item id.")],
    k: Annotated[int, typer.Option("-k", min=1, help="At most so many lines of each kind.")] = 10,
    model: Model = None,
) -> None:
    """Print why a user gets an item: what each history item, word or part adds.

    All lines of a kind sum to the score, history items together with what the item has for everyone, where the model
    has such a part. Where they sum to something else, what a hybrid orders new items by, a line says so.

    Example: recsys explain runs/demo --user u0001 --item f0007
    """
    from recsys.models.combining.cascade import Cascade
    from recsys.saved.open_model import open_model

    saved = open_model(run, model)
    history = saved.histories([user])
    row = item_row(saved, item)
    name = saved.name
    recommender = saved.recommender(pd.DataFrame({"user_id": [user]}))
    if isinstance(recommender, Cascade):
        name, recommender = recommender.scoring_member(history) or (name, recommender)
    explanation = recommender.explain(history, row)
    if np.isnan(explanation.score):
        missing = "the item" if recommender.can_score(history)[0] else "the user's history"
        out.print(
            f"{name}: no opinion, because {missing} has nothing that this model uses (likes in training, or features)",
            markup=False,
        )
        return
    out.print(f"{name}: score {explanation.score:.6g}", markup=False)
    if explanation.note:
        out.print(explanation.note, markup=False)
    print_parts("part", explanation.members, k)
    if explanation.history is not None:
        ids = saved.history.items.ids_of(history.values.indices).tolist()
        print_parts("history item", dict(zip(ids, explanation.history.tolist(), strict=True)), k)
        if explanation.constant:
            out.print(f"{explanation.constant:+.6f}  the item's own, the same for everyone", markup=False)
    print_parts("feature", explanation.features, k)


def print_parts(kind: str, parts: dict[Any, float], k: int) -> None:
    """Print the ``k`` largest parts of a score, one per line, and the sum of the rest."""
    largest = sorted(parts.items(), key=lambda part: -abs(part[1]))
    for key, value in largest[:k]:
        out.print(f"{value:+.6f}  {kind} {key}", markup=False)
    if len(largest) > k:
        rest = sum(value for _, value in largest[k:])
        out.print(f"{rest:+.6f}  {len(largest) - k} more of the kind {kind}", markup=False)


def _told(pairs: list[str], opened: SavedModel) -> dict[str, str]:
    """Return what ``--with`` says, and warn where nobody in train is like that."""
    from recsys.features.segment_popularity import parse_user_attributes

    if opened.segments is None:
        raise InputError(
            "--with: this run has no segments: run it with [recommend] fallback = 'segment' and segment = 'COLUMN'."
        )
    found = parse_user_attributes(pairs, opened.segments)
    if opened.segments.rows(pd.DataFrame([found]))[0] < 0:
        log.print(f"--with {' '.join(pairs)}: no such segment in train: popular items", markup=False)
    return found


def _people(path: Path) -> pd.DataFrame:
    """Return the users of a file as text: ``user_id``, and of a CSV with that header its other columns."""
    lines = _lines(path)
    head = [cell.strip() for cell in next(csv.reader(lines[:1]), [])]
    if "user_id" not in head:
        return pd.DataFrame({"user_id": lines}, dtype=object)
    rows = list(csv.reader(lines))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(head):
            raise InputError(f"{path}, row {number}: {len(row)} fields, but the header has {len(head)}.")
    return pd.DataFrame(rows[1:], columns=head, dtype=object)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
