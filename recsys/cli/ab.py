"""The verbs ab plan, ab assign and ab analyse: the A/B test that follows an offline comparison."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recsys import run_files
from recsys.cli.application import DECISIONS, app
from recsys.cli.console import log, out, print_or_save
from recsys.cli.options import Json, TableOut, require_finite
from recsys.errors import ConfigError, InputError, suggest_nearest

if TYPE_CHECKING:
    import pandas as pd

    from recsys.evaluation.testing.ab_test import ArmResult

EQUAL_ARMS = {"control": 0.5, "treatment": 0.5}
"""Arm -> share of the users, for an A/B test whose arms are not named."""

Arms = Annotated[
    list[str] | None,
    typer.Option("--arm", help="NAME=SHARE (repeatable). Default: control=0.5 and treatment=0.5."),
]

ab = typer.Typer(no_args_is_help=True, help="Plan and analyse the A/B test that follows: plan, assign, analyse.")
app.add_typer(ab, name="ab", rich_help_panel=DECISIONS)


@ab.command()
def plan(
    mean: Annotated[float, typer.Option(callback=require_finite, help="The outcome today: a rate, or a mean.")],
    lift: Annotated[
        float | None,
        typer.Option(callback=require_finite, help="The relative change to detect: 0.05 is +5 %."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Take the lift over the best baseline that this run measured offline instead.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model of the run. Default: the best that is not a baseline."),
    ] = None,
    sd: Annotated[
        float | None,
        typer.Option(
            callback=require_finite,
            help="The standard deviation of the outcome. Default: the outcome is a rate.",
        ),
    ] = None,
    correlation: Annotated[
        float,
        typer.Option(
            callback=require_finite,
            help="Correlation of the outcome with its value before the test, for CUPED.",
        ),
    ] = 0.0,
    daily: Annotated[
        int | None,
        typer.Option(min=1, help="New users per day in all arms together, to print the duration."),
    ] = None,
    power: Annotated[float, typer.Option(min=0.5, max=0.99, help="The chance of detecting a true change.")] = 0.8,
    as_json: Json = False,
) -> None:
    """Print how many users and days an experiment needs.

    Example: recsys ab plan --mean 0.04 --lift 0.05 --daily 20000
    """
    from recsys.evaluation.testing.ab_test import users_per_arm
    from recsys.runfolder import damage_explained

    if sd is None and not 0 < mean < 1:
        raise ConfigError(
            f"--mean {mean:g} is not a rate between 0 and 1: also give the standard deviation of the outcome, --sd."
        )
    if sd is None:
        sd = (mean * (1 - mean)) ** 0.5
    if lift is not None and run is None:
        lifts = {"the lift": lift}
    elif run is not None and lift is None:
        with damage_explained(run):
            lifts = offline_lifts(run, model)
    else:
        raise ConfigError("give either --lift, or --run with a run folder whose offline lift to plan for.")
    plans = []
    for name, size in lifts.items():
        users = users_per_arm(sd, mean * size, correlation=correlation, power=power)
        days = None
        if daily:
            # Negated floor division rounds up, because the last users take a whole day too.
            days = -(-2 * users // daily)
        plans.append({"for": name, "lift": size, "users_per_arm": users, "days": days})
    if as_json:
        print(json.dumps({"plans": plans}, allow_nan=False))
        return
    for row in plans:
        duration = ""
        if row["days"]:
            duration = f", {row['days']:,} days"
        out.print(f"{row['for']} of {row['lift']:+.1%}: {row['users_per_arm']:,} users in each of two arms{duration}")
    if run is not None:
        out.print(
            "Offline gains seldom carry over in full: plan for the smallest lift that would be"
            " worth having, and take this number of users as the minimum."
        )


def offline_lifts(run: Path, model: str | None) -> dict[str, float]:
    """Return the lifts that an A/B test can be planned for: description -> relative lift.

    A lift is the difference between a model and the best baseline of its run, divided by the mean
    of the baseline, in the first metric. The result has the measured lift. If the lower end of its
    95 % interval is above 0, it has this lower end too.

    Args:
        run: the run folder.
        model: the name of the model. None: the best that is not a baseline.

    Raises:
        ConfigError: the run has no baseline or no such model, or the lift is not above 0.
        RunFolderError: the run folder is incomplete or damaged.
    """
    from recsys.evaluation.testing.pick import baseline_differences, pick_model
    from recsys.runfolder import RunFolder

    metrics = RunFolder.open(run).read_json(run_files.METRICS)
    pick = pick_model(metrics)
    baseline = pick.baseline
    if baseline is None:
        raise ConfigError(f"{run}: there is no baseline with a mean to take a lift from. Give --lift.")
    differences = baseline_differences(metrics)[baseline]["all"]
    name = model or pick.model
    if name not in differences:
        raise ConfigError(
            f"{run}: no model '{name}' with a difference from the baseline.{suggest_nearest(str(name), differences)}"
        )
    primary = metrics["about"]["primary"]
    difference = differences[name]
    baseline_mean = metrics["models"][baseline][primary]["mean"]
    if not baseline_mean or difference["mean"] is None:
        raise ConfigError(
            f"{run}: the {primary} of the baseline is {baseline_mean}: there is no relative lift to plan for."
        )
    if difference["mean"] <= 0:
        raise ConfigError(
            f"{run}: the {primary} of {name} is not above that of {baseline}"
            f" ({difference['mean']:+.4f}): there is nothing to try on users. Choose another"
            " --model, or give --lift."
        )
    lifts = {f"the offline lift of {name} in {primary}": difference["mean"] / baseline_mean}
    # An interval that includes 0 has no positive lower end to plan for.
    if difference["ci95"][0] > 0:
        lifts["the lower end of its interval"] = difference["ci95"][0] / baseline_mean
    return lifts


@ab.command()
def assign(
    users: Annotated[Path, typer.Argument(help="A file of user ids, one per line.")],
    name: Annotated[str, typer.Option(help="The name of the experiment; another name gives another assignment.")],
    arms: Arms = None,
    save: TableOut = None,
) -> None:
    """Print the arm of each user as CSV: user_id, arm.

    The same user and name always give the same arm.

    Example: recsys ab assign users.txt --name ranker-2
    """
    import pandas as pd

    from recsys.data.list_file import read_id_lines
    from recsys.evaluation.testing.ab_test import assign_arms
    from recsys.replacing import has_first_line, require_replaceable_file
    from recsys.schema import USER

    if save:
        require_replaceable_file(save, has_first_line("user_id,arm"), "--out", [users])
    lines = read_id_lines(users)
    if lines[:1] == [USER]:
        lines = lines[1:]
    # A user who is listed twice gets one row; the order of the file is kept.
    ids = list(dict.fromkeys(lines))
    if not ids:
        raise InputError(f"{users}: there are no user ids in it. Write one per line.")
    user_ids = pd.Series(ids, dtype=object)
    table = pd.DataFrame({"user_id": ids, "arm": assign_arms(user_ids, name, parse_shares(arms))})
    print_or_save(table.to_csv(index=False), save)
    if save:
        log.print(f"wrote {save}: {table['arm'].value_counts().to_dict()}")


@ab.command()
def analyse(
    outcomes: Annotated[Path, typer.Argument(help="CSV or Parquet: user_id, arm, outcome[, before].")],
    control: Annotated[str, typer.Option(help="The arm that the others are compared with.")] = "control",
    arms: Arms = None,
    expected: Annotated[
        float | None,
        typer.Option(callback=require_finite, help="The difference that was planned for, in the unit of the outcome."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the result of an experiment, and whether its numbers can be trusted.

    The result is the difference of each arm from the control, with its interval.

    Example: recsys ab analyse outcomes.csv --expected 0.002
    """
    from recsys.evaluation.testing.ab_test import (
        SAMPLE_RATIO_ALPHA,
        analyse_experiment,
        sample_ratio_pvalue,
    )

    table = read_outcomes(outcomes)
    results = analyse_experiment(table, control=control, expected=expected)
    sizes = {str(arm): int(n) for arm, n in table["arm"].value_counts().items()}
    planned_shares = None
    if arms:
        planned_shares = parse_shares(arms)
    ratio_p = sample_ratio_pvalue(sizes, planned_shares)
    if as_json:
        record = {"sample_ratio_p": ratio_p, "arms": [asdict(result) for result in results]}
        print(json.dumps(record, ensure_ascii=False, allow_nan=False))
        return
    if ratio_p < SAMPLE_RATIO_ALPHA:
        out.print(
            f"STOP: the sizes of the arms, {sizes}, do not fit the planned shares (p ="
            f" {ratio_p:.2g}): users were lost or counted twice in one arm. Find the cause first:"
            " no number below can be trusted.",
        )
    for result in results:
        print_result(result, control, has_before="before" in table)


def print_result(result: ArmResult, control: str, has_before: bool) -> None:
    """Print the result of one arm in three lines.

    Args:
        result: the result.
        control: the name of the control.
        has_before: whether the outcomes have values from before the test.
    """
    shows = "does not show"
    if result.low > 0 or result.high < 0:
        shows = "shows"
    cuped = ""
    if has_before:
        cuped = f"; values from before removed {result.reduction:.0%} of the variance"
    out.print(
        f"{result.arm}: {result.mean:.6g} against {result.control_mean:.6g} of {control},"
        f" difference {result.difference:+.6g} [{result.low:+.6g}, {result.high:+.6g}], p = {result.p:.4g}:"
        f" {shows} a difference at the planned end\n"
        f"  if looked at daily: [{result.always_low:+.6g}, {result.always_high:+.6g}], p = {result.p_always:.4g}\n"
        f"  {result.users:,} and {result.control_users:,} users{cuped}",
    )


def parse_shares(arms: list[str] | None) -> dict[str, float]:
    """Return arm -> share of the users, from the values of ``--arm`` (``NAME=SHARE``).

    Without values, the result is :data:`EQUAL_ARMS`. Of several values for one arm, the last
    counts. It is not checked whether the shares sum to 1.

    Raises:
        ConfigError: a value has another form.
    """
    shares: dict[str, float] = {}
    for text in arms or []:
        # The share follows the last =, because the name of an arm may contain one.
        name, _, share = text.rpartition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--arm {text}: write it as NAME=SHARE, for example control=0.5.")
    return shares or EQUAL_ARMS


def read_outcomes(path: Path) -> pd.DataFrame:
    """Return the table of outcomes in a CSV or Parquet file, with all its columns.

    In a CSV file, user_id and arm are read as text, and outcome and before as numbers. Whether the
    columns exist is not checked here.

    Raises:
        InputError: the file cannot be read.
    """
    import pandas as pd
    from pyarrow.lib import ArrowException

    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype={"user_id": str, "arm": str, "outcome": float, "before": float})
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a table of outcomes: {error}") from error
