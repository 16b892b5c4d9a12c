"""The verb explain: why a user gets an item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli.application import LISTS, app
from recsys.cli.console import log, out
from recsys.cli.options import ModelName, OwnModels, RunOrBundle
from recsys.cli.rating_runs import are_rating_runs
from recsys.cli.saved_items import item_row, open_with_notice, report_unknown_users
from recsys.locations import Location

if TYPE_CHECKING:
    from recsys.report.reasons import Reasons


@app.command(rich_help_panel=LISTS)
def explain(
    run: RunOrBundle,
    user: Annotated[str, typer.Option(help="A user id.")],
    item: Annotated[str, typer.Option(help="An item id, or a title.")],
    k: Annotated[int, typer.Option("-k", min=1, help="The number of lines of each kind, at most.")] = 10,
    model: ModelName = None,
    own_models: OwnModels = False,
) -> None:
    """Print why a user gets an item: a sentence, and the parts of the score.

    The parts are how much each history item, feature or part of the model adds. The lines of one
    kind sum to the score. If a part of the score is the same for all users, the lines and this part
    together sum to the score. If they do not, as for new items of a hybrid, a line says so.

    With a run that predicts ratings, the parts add up to the predicted rating.

    Example: recsys explain runs/demo --user u0001 --item f0007
    """
    if are_rating_runs([run]):
        explain_rating(run, user, item, k, model)
    else:
        explain_list_score(run, user, item, k, model)


def explain_list_score(run: Location, user: str, item: str, k: int, model: str | None) -> None:
    """Print why a user gets an item in a list. The arguments are those of the verb."""
    from recsys.report.reasons import Reasons, explain_score

    saved = open_with_notice(run, model, uses_history=True)
    history = saved.histories([user])
    row = item_row(saved.history.items, saved.items, item)
    report_unknown_users(saved, [user])
    reasons = Reasons(saved.items)
    recommender = saved.recommender([user])
    explained = explain_score(saved.name, recommender, reasons, history, row)
    explanation = explained.explanation
    if row in history.values.indices:
        out.print(f"user {user} has {_id_and_title(reasons, row)} already")
    if explained.missing:
        out.print(
            f"{explained.model}: no opinion, because {explained.missing} has nothing that this model uses"
            " (likes in training, or features)",
        )
        return
    if explained.sentence:
        out.print(f"{reasons.title(row)}: {explained.sentence}.")
    out.print(f"{explained.model}: score {explanation.score:.6g}")
    if explanation.note:
        out.print(explanation.note)
    print_parts("part", explanation.members, k)
    if explanation.history is not None:
        names = [_id_and_title(reasons, row) for row in history.values.indices]
        print_parts("history item", dict(zip(names, explanation.history.tolist(), strict=True)), k)
        if explanation.constant:
            out.print(f"{explanation.constant:+.6f}  the item's own, the same for everyone")
    print_parts("feature", reasons.item_features(explanation.features, row), k)


def explain_rating(run: Location, user: str, item: str, k: int, model: str | None) -> None:
    """Print the parts of the rating that a model predicts. The arguments are those of the verb."""
    from recsys.report.reasons import Reasons
    from recsys.runfolder import RunFolder, damage_explained
    from recsys.saved.rating_predictions import open_rating_model

    with damage_explained(run):
        saved = open_rating_model(RunFolder.open(run), model)
    if model is None:
        log.print(f"model: {saved.name} (another with --model)")
    row = item_row(saved.history.items, saved.items, item)
    report_unknown_users(saved, [user])
    reasons = Reasons(saved.items)
    name, predicted, explanation = saved.explain(user, row)
    if saved.has_rated(user, row):
        out.print(f"user {user} has rated {_id_and_title(reasons, row)} already")
    if name != saved.name:
        out.print(f"{saved.name}: no opinion on this pair, so {name} predicts")
    lowest, highest = saved.scale
    clipped = min(max(predicted, lowest), highest)
    note = "" if clipped == predicted else f", clipped from {predicted:.6g} to the scale"
    out.print(f"{name}: {clipped:.6g} for {reasons.title(row)}{note}")
    if not explanation.parts:
        out.print(f"{name} does not say what its predictions are made of")
    for part, added in explanation.parts.items():
        out.print(f"{added:+.6f}  {part}")
    # They add up to the part above, so they are below it and not beside it.
    ratings = {f"of {_id_and_title(reasons, j)}": added for j, added in explanation.ratings.items()}
    print_parts("rating", ratings, k, prefix="  of which ")


def _id_and_title(reasons: Reasons, row: int) -> str:
    """Return the id and the title of an item, such as "f0007, The Harbour", or the id if it has no
    title.
    """
    item_id = str(reasons.items["item_id"].iat[row])
    title = reasons.title(row)
    return item_id if title == item_id else f"{item_id}, {title}"


def print_parts(kind: str, parts: dict[Any, float], k: int, prefix: str = "") -> None:
    """Print the ``k`` parts of a score with the largest absolute values, one per line.

    If there are more parts, one more line has the sum of the rest.

    Args:
        kind: what the parts are in the singular, for example ``feature``.
        parts: name -> contribution to the score.
        k: the number of lines.
        prefix: a text before each line.
    """
    # Parts that lower the score count by their size, as those that raise it do.
    largest = sorted(parts.items(), key=lambda part: -abs(part[1]))
    for key, value in largest[:k]:
        out.print(f"{prefix}{value:+.6f}  {kind} {key}")
    if len(largest) > k:
        rest = sum(value for _, value in largest[k:])
        plural = "" if len(largest) == k + 1 else "s"
        out.print(f"{prefix}{rest:+.6f}  {len(largest) - k} more {kind}{plural}")
