"""Verbs that hand over to an experiment: ab plan, ab assign, ab analyse."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys.cli.console import Json, log, out, save_text
from recsys.errors import ConfigError, InputError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd

Arms = Annotated[list[str] | None, typer.Option("--arm", help="NAME=SHARE (repeatable); default: two equal ones.")]
EQUAL = {"control": 0.5, "treatment": 0.5}


def register(app: typer.Typer) -> None:
    """Add this file's verbs."""
    group = typer.Typer(no_args_is_help=True, help="Hand over to an experiment with users: plan, assign, analyse.")
    group.command("plan")(plan)
    group.command("assign")(assign)
    group.command("analyse")(analyse)
    app.add_typer(group, name="ab")


def plan(
    mean: Annotated[float, typer.Option(help="What the outcome is today: a rate, or a mean.")],
    lift: Annotated[float | None, typer.Option(help="Relative change to find: 0.05 is +5 %.")] = None,
    run: Annotated[Path | None, typer.Option(help="Take the lift that a run saw offline instead.")] = None,
    model: Annotated[str | None, typer.Option(help="The run's model; default: its best.")] = None,
    sd: Annotated[float | None, typer.Option(help="Standard deviation of the outcome; unset: it is a rate.")] = None,
    correlation: Annotated[float, typer.Option(help="Of the outcome with the user's value before: CUPED.")] = 0.0,
    daily: Annotated[int | None, typer.Option(min=1, help="New users a day in all arms, for the duration.")] = None,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="Chance of finding a change that is there.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Say how many users and days an experiment needs.

    Example: recsys ab plan --mean 0.04 --lift 0.05 --daily 20000
    """
    from recsys.evaluation.testing.ab_test import users_per_arm

    if (lift is None) == (run is None):
        raise ConfigError("give either --lift, or --run with a run folder whose offline lift to plan for.")
    if sd is None and not 0 < mean < 1:
        raise ConfigError(
            f"--mean {mean:g} is not a rate between 0 and 1: give the outcome's standard deviation, --sd."
        )
    spread = sd if sd is not None else (mean * (1 - mean)) ** 0.5
    lifts = {"the lift": lift} if lift is not None else _offline(run, model)  # type: ignore[arg-type]
    found = []
    for name, size in lifts.items():
        users = users_per_arm(spread, mean * float(size or 0), correlation=correlation, power=power)
        days = -(-2 * users // daily) if daily else None
        found.append({"for": name, "lift": size, "users_per_arm": users, "days": days})
    if as_json:
        print(json.dumps({"plans": found}, allow_nan=False))
        return
    for row in found:
        took = f", {row['days']:,} days" if row["days"] else ""
        out.print(f"{row['for']} of {row['lift']:+.1%}: {row['users_per_arm']:,} users in each of two arms{took}")
    if run is not None:
        out.print(
            "Offline gains seldom carry over in full: plan for the smallest lift that would be worth having, and take"
            " the figure above as the least number of users."
        )


def _offline(run: Path, model: str | None) -> dict[str, float]:
    """Return the relative lift of a run's model over its baseline, and the interval's lower end where it is a gain."""
    from recsys.report.run_reader import Run
    from recsys.runfolder import RunFolder

    opened = Run(RunFolder.open(run))
    differences, about = opened.metrics["differences"], opened.about
    name = model or opened.best
    if name not in differences:
        raise ConfigError(
            f"{run}: no model '{name}' with a difference from the baseline.{suggest_nearest(str(name), differences)}"
        )
    cell, base = (
        differences[name][about["primary"]],
        opened.metrics["models"][about["baseline"]][about["primary"]]["mean"],
    )
    if not base or cell["mean"] is None:
        raise ConfigError(f"{run}: the baseline's {about['primary']} is {base}: there is no relative lift to plan for.")
    if cell["mean"] <= 0:
        raise ConfigError(
            f"{run}: {name}'s {about['primary']} is not above that of {about['baseline']} ({cell['mean']:+.4f}):"
            " nothing to try on users. Choose another --model, or give --lift."
        )
    found = {f"{name}'s offline lift in {about['primary']}": cell["mean"] / base}
    if cell["ci95"][0] > 0:
        found["the lower end of its interval"] = cell["ci95"][0] / base
    return found


def assign(
    users: Annotated[Path, typer.Argument(help="A file of user ids, one a line.")],
    name: Annotated[str, typer.Option(help="The experiment's name: another name cuts the users anew.")],
    arms: Arms = None,
    save: Annotated[
        Path | None, typer.Option("--out", help="Write the table there (CSV) instead of printing it.")
    ] = None,
) -> None:
    """Print which arm each user is in, as CSV: user_id, arm. The same user and name always give the same arm.

    Example: recsys ab assign users.txt --name ranker-2
    """
    import pandas as pd

    from recsys.evaluation.testing.ab_test import assign as assigned

    try:
        lines = users.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{users}: cannot be read: {error}") from error
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        raise InputError(f"{users}: no user ids in it: write one a line.")
    table = pd.DataFrame({"user_id": ids, "arm": assigned(pd.Series(ids, dtype=object), name, _shares(arms))})
    text = table.to_csv(index=False)
    if save:
        save_text(save, text)
        log.print(f"wrote {save}: {table['arm'].value_counts().to_dict()}", markup=False)
    else:
        print(text, end="")


def analyse(
    outcomes: Annotated[Path, typer.Argument(help="CSV or Parquet: user_id, arm, outcome[, before].")],
    control: Annotated[str, typer.Option(help="The arm that the others are compared with.")] = "control",
    arms: Arms = None,
    expected: Annotated[
        float | None, typer.Option(help="The difference that was planned for, in the outcome's unit.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what came of an experiment: difference, interval, and whether its numbers can be trusted.

    Example: recsys ab analyse outcomes.csv --expected 0.002
    """
    from recsys.evaluation.testing.ab_test import MISMATCH, mismatch
    from recsys.evaluation.testing.ab_test import analyse as analysed

    table = _read(outcomes)
    found = analysed(table, control=control, expected=expected)
    sizes = {str(arm): int(n) for arm, n in table["arm"].value_counts().items()}
    ratio = mismatch(sizes, _shares(arms) if arms else None)
    if as_json:
        print(
            json.dumps(
                {"sample_ratio_p": ratio, "arms": [asdict(row) for row in found]}, ensure_ascii=False, allow_nan=False
            )
        )
        return
    if ratio < MISMATCH:
        out.print(
            f"STOP: the arms' sizes {sizes} do not fit the plan (p = {ratio:.2g}): users were lost or counted twice on"
            " one side. Find out why first: no number below can be trusted.",
            markup=False,
        )
    for row in found:
        difference = f"{row.difference:+.6g} [{row.low:+.6g}, {row.high:+.6g}]"
        cuped = f"; values from before took out {row.reduction:.0%} of the variance" if "before" in table else ""
        sure = "shows" if row.low > 0 or row.high < 0 else "does not show"
        out.print(
            f"{row.arm}: {row.mean:.6g} against {row.control_mean:.6g} of {control}, difference {difference}"
            f", p = {row.p:.4g}: {sure} a difference at the planned end\n"
            f"  looked at daily: [{row.always_low:+.6g}, {row.always_high:+.6g}], p = {row.p_always:.4g}\n"
            f"  {row.users:,} and {row.control_users:,} users{cuped}",
            markup=False,
        )


def _shares(arms: list[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in arms or []:
        name, _, share = text.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--arm {text}: write it as NAME=SHARE, for example control=0.5")
    return found or EQUAL


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype={"user_id": str, "arm": str, "outcome": float, "before": float})
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a table of outcomes: {error}") from error
