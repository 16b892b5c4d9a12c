"""Verbs that ask a run's model: recommend, similar, explain."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import typer
from scipy.sparse import csr_array

from recsys import run_files
from recsys.cli.application import LISTS, app
from recsys.cli.console import log, out, save_text
from recsys.errors import ConfigError, InputError, RunFolderError, suggest_nearest
from recsys.types import IdMap, Interactions, Recommender, select_rows

if TYPE_CHECKING:
    from recsys.features.segment_popularity import Segments

POOL = 100
"""A list that is made anew chooses among at least so many."""

Run = Annotated[Path, typer.Argument(help="A run folder of `recsys run`, or a bundle of one.")]
Model = Annotated[str | None, typer.Option(help="Which of its models; unset: the last one in its report.")]


@dataclass(frozen=True)
class SavedModel:
    """A run's model with what it needs to answer: histories, items and their table."""

    name: str
    model: Recommender
    history: Interactions
    items: pd.DataFrame
    factors: np.ndarray | None = None
    segments: Segments | None = None

    def answering(self, users: pd.DataFrame) -> Recommender:
        """Return the model that answers these users, in this order: by stored factors where there are any, and by
        segment where the run has them, which columns of ``users`` tell before the users table of the run does."""
        model: Any = self.model
        if self.factors is not None:
            from recsys.saved.bundle import StoredFactors

            rows = self.history.users.rows(users["user_id"])
            model = StoredFactors(model, np.where((rows >= 0)[:, None], self.factors[rows], np.float32(np.nan)))
        if self.segments is None or not hasattr(self.model, "leads"):
            return model
        from recsys.features.segment_popularity import BySegment

        told = self.segments.rows(users)
        return BySegment(model, self.segments, np.where(told >= 0, told, self.segments.of_users(users["user_id"])))

    def by_segment(self, user: str, history: csr_array, item: int) -> bool:
        """Print why a segment gives a user an item, and return whether one speaks for him."""
        from recsys.features.segment_popularity import BySegment

        model = self.answering(pd.DataFrame({"user_id": [user]}))
        own = int(model.speaking(history, np.zeros(1, int))[0]) if isinstance(model, BySegment) else -1
        if own < 0 or self.segments is None:
            return False
        known = self.segments
        values = ", ".join(map("=".join, zip(known.columns, known.keys[own], strict=False)))
        out.print(f"{known.row_sources[own]}: score {known.scores[own, item]:.6g}", markup=False)
        out.print(f"the share of users of {values} who like it: nothing of the user's own is in it", markup=False)
        return True

    def rows(self, users: list[str]) -> csr_array:
        """Return the histories of users; a stranger's is empty."""
        return select_rows(self.history.matrix(), self.history.users.rows(users))

    def item(self, item: str) -> int:
        """Return an item's row; InputError for a stranger."""
        row = int(self.history.items.rows([item])[0])
        if row < 0:
            raise InputError(f"no item {item!r} in this run.{suggest_nearest(item, map(str, self.history.items.ids))}")
        return row

    def terms(self) -> csr_array:
        """Return the items' weighted terms, float32 csr (items, terms), rows of length 1."""
        from recsys.features.encoding import encode_features
        from recsys.features.terms import weigh_terms

        found = encode_features(self.items, "item_id", self.history.items)
        if not found.matrix.nnz:
            raise InputError("this run's items have no attributes to be alike by: give [data] items a table.")
        return weigh_terms(found)

    def shares_of(self, column: str | None) -> csr_array:
        """Return each item's shares of the values of a column, float64 csr (items, values)."""
        from sklearn.preprocessing import normalize

        from recsys.evaluation.beyond import attributes

        found = attributes(column, self.history.items, self.items)
        if found is None:
            raise InputError("this run's items have no column that holds lists: name another with --by.")
        return normalize(found, norm="l1")

    def titled(self, table: pd.DataFrame) -> str:
        """Return a table as CSV, with titles where the run has them."""
        if "title" in self.items:
            table = table.merge(self.items[["item_id", "title"]], on="item_id", how="left")
        return table.to_csv(index=False)


def open_run(run: Path, model: str | None) -> SavedModel:
    """Open a run folder for asking.

    Raises:
        RunFolderError: not a whole run, or no such model in it.
    """
    from recsys import models
    from recsys.features.segment_popularity import Segments
    from recsys.runfolder import RunFolder
    from recsys.saved import bundle

    if bundle.is_bundle(run):
        found = bundle.open_bundle(run)
        if model and model != found.name:
            raise RunFolderError(f"{run}: a bundle of model {found.name}, not of {model}.")
        return SavedModel(found.name, found.model, found.history, found.items, found.factors, found.segments)
    folder = RunFolder.open(run)
    names = [
        name for name in folder.read_json(run_files.METRICS)["models"] if (run / run_files.model_card(name)).exists()
    ]
    if not names or (model and model not in names):
        raise RunFolderError(
            f"{run}: no model {model!r} to ask; it has {', '.join(names) or 'none'}."
            " A run of Spark answers here once it is bundled:  recsys bundle RUN OUT"
        )
    name = model or names[-1]
    history, items = bundle.known(folder)
    return SavedModel(
        name, models.load(run / run_files.model_folder(name)), history, items, segments=Segments.load(run)
    )


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
    opened = open_run(run, model)
    asked = IdMap.of(wanted["user_id"])
    if told:
        wanted = wanted.assign(**_told(told, opened))
    compiled = compile_rules(load_rules(rules), asked, opened.history.items, opened.items) if rules else None
    if compiled:
        log.print(f"rules removed: {compiled.removed}", markup=False)
        for name, ids in compiled.unknown.items():
            log.print(f"rule {name}: unknown ids {ids[:10]}{' …' if len(ids) > 10 else ''}", markup=False)
    histories = opened.rows(list(asked.ids))
    lists = rank.recommend(opened.answering(wanted), histories, max(POOL, 5 * k) if ways else k, rules=compiled)
    if diverse is not None:
        lists = rerank.mmr(lists, opened.terms(), k, diverse)
    elif calibrate is not None:
        lists = rerank.calibrated(lists, opened.shares_of(by), histories, k, calibrate)
    elif explore is not None:
        lists = rerank.explore(lists, k, explore, seed, id_bits(asked.ids))
    for row in np.flatnonzero(lists.shortfall):
        log.print(f"user {asked.ids[row]}: short list, {SHORTFALL[lists.shortfall[row]]}", markup=False)
    text = opened.titled(rank.topk_table(lists, asked, opened.history.items))
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

    opened = open_run(run, model)
    row = opened.item(item)
    one = csr_array((np.ones(1, np.float32), [row], [0, 1]), shape=(1, len(opened.history.items)))
    lists = rank.recommend(opened.model, one, k)
    table = rank.topk_table(lists, IdMap.of(["?"]), opened.history.items).drop(columns="user_id")
    print(opened.titled(table), end="")


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
    from recsys.models.collaborative.popular import Popular, Random
    from recsys.models.combining.cascade import knows

    opened = open_run(run, model)
    history, row = opened.rows([user]), opened.item(item)
    if opened.by_segment(user, history, row):
        return
    name, speaker = _speaker(opened.name, opened.model, history)
    score = float(speaker.score(history)[0, row])
    if np.isnan(score):
        told = knows(speaker, history)[0]
        whose = "the item has nothing of what" if told else "the user's history has nothing of what"
        out.print(f"{name}: no opinion: {whose} this model goes by, likes in training or features", markup=False)
        return
    if isinstance(speaker, Random):
        out.print(f"{name}: drawn at random: nothing of the user's is in it", markup=False)
        return
    out.print(f"{name}: score {score:.6g}", markup=False)
    ids = opened.history.items.ids_of(history.indices)
    kinds: dict[str, dict[Any, float]] = {}
    if hasattr(speaker, "shares"):
        kinds["part"] = speaker.shares(history, row)
    if hasattr(speaker, "contributions"):
        kinds["history item"] = dict(zip(ids.tolist(), speaker.contributions(history, row), strict=True))
    if hasattr(speaker, "terms"):
        kinds["feature"] = speaker.terms(history, row)
    if isinstance(speaker, Popular):
        out.print("this model's score is the same for everyone: nothing of the user's is in it")
    elif not kinds:
        out.print("this model does not say what its score is made of")
    for kind, parts in kinds.items():
        best = sorted(parts.items(), key=lambda pair: -abs(pair[1]))
        for key, value in best[:k]:
            out.print(f"{value:+.6f}  {kind} {key}", markup=False)
        if len(best) > k:
            out.print(f"{sum(v for _, v in best[k:]):+.6f}  {len(best) - k} more of a {kind}", markup=False)
    if hasattr(speaker, "base"):
        out.print(f"{speaker.base(row):+.6f}  the item's own, the same for everyone", markup=False)
    total = sum(kinds.get("part", {}).values())
    if "part" in kinds and abs(total - score) > 1e-3 * max(1, abs(score)):
        out.print(
            f"{total:+.6f}  all parts: orders the new items, who share out their scores in that order", markup=False
        )


def _speaker(name: str, model: Any, history: csr_array) -> tuple[str, Any]:
    """Return the member of a cascade that answers this history, or the model itself."""
    from recsys.models.combining.cascade import Cascade

    if isinstance(model, Cascade):
        place = int(model.speaker(history)[0])
        names = list(model.models)
        return names[place], model.models[names[place]]
    return name, model


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
