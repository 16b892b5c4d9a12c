"""How good the models are: means, differences, groups of users and items, beyond accuracy,
judged users.
"""

from __future__ import annotations

from typing import Any

from recsys.evaluation.beyond import DEFINITIONS
from recsys.evaluation.groups import LEAST_USERS
from recsys.report import figures
from recsys.report.parts import Drawing, ReportTable, Section, format_interval, format_mean
from recsys.report.run_reader import Run


def models(run: Run) -> Section:
    """Return the section "Models": a table of the mean of every metric for every model.

    Each mean has its 95 % interval.
    """
    metrics = run.metrics
    names = list(metrics["about"]["definitions"])
    users = max(cell["users"] for model in metrics["models"].values() for cell in model.values())
    rows = [[model, *(format_mean(cells[name]) for name in names)] for model, cells in metrics["models"].items()]
    engine = metrics["about"]["engine"]
    text = f"Means over {users:,} users with 95 % bootstrap intervals over users, on the {engine} engine."
    return Section("Models", [text], tables=[ReportTable("Metric by model", ["model", *names], rows)])


def differences(run: Run) -> Section:
    """Return the section "Differences": how each model differs from the baseline.

    One table has the mean difference and interval in every metric, another has the test of the
    primary metric. Without a baseline, the section is one sentence that says so.
    """
    metrics = run.metrics
    about = run.about
    names = list(about["definitions"])
    baseline = about["baseline"]
    if not metrics["differences"]:
        return Section("Differences", [f"This run has no baseline ([judge] baseline = {baseline!r})."])
    rows = [
        [model, *(format_mean(cells[name], sign=True) for name in names)]
        for model, cells in metrics["differences"].items()
    ]
    tests = sum(cell["p"] is not None for cells in metrics["differences"].values() for cell in cells.values())
    text = (
        f"Each model minus {baseline}, paired by user. An interval that excludes 0 shows a"
        " difference; one that includes 0 shows none, which is not the same as showing that there"
        f" is none. p: paired t-test, Holm-corrected over all {tests} tests of the table above."
        " Effect size: mean difference over its standard deviation between users. Detectable: the"
        " true difference that this number of users detects with 80 % power; a smaller difference"
        " may exist and not be detected."
    )
    tables = [
        ReportTable(f"Difference from {baseline}", ["model", *names], rows),
        ReportTable(
            f"{about['primary']}: is the difference real?",
            ["model", "difference", "p (Holm)", "effect size", "detectable", "users"],
            [[model, *_test_cells(cells[about["primary"]])] for model, cells in metrics["differences"].items()],
        ),
    ]
    return Section("Differences", [text], tables=tables, figures=_forest(metrics))


def _forest(metrics: dict[str, Any]) -> list[Drawing]:
    about = metrics["about"]
    differences = {name: cells[about["primary"]] for name, cells in metrics["differences"].items()}
    dots = {name: (cell["mean"], cell["ci95"]) for name, cell in differences.items() if cell["mean"] is not None}
    svg = figures.dots(dots, f"{about['primary']} minus that of {about['baseline']}, 95 % interval", 0.0)
    label = f"Differences in {metrics['about']['primary']} with 95 % intervals; the table below has the numbers."
    if svg:
        return [Drawing(svg, label)]
    return []


def _test_cells(cell: dict[str, Any]) -> list[str]:
    p = cell["p_holm"]
    p_text = "–"
    if p is not None:
        if p < 0.0001:
            p_text = "< 0.0001"
        else:
            p_text = f"{p:.4f}"
    return [
        format_mean(cell, sign=True),
        p_text,
        _format_or_dash(cell["effect_size"], "+.2f"),
        _format_or_dash(cell["detectable"], ".4f"),
        f"{cell['users']:,}",
    ]


def _format_or_dash(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}"


def segments(run: Run) -> Section:
    """Return the section "By group": the primary metric in groups of users and of relevant items.

    There is one table per grouping. Groups without users are left out.
    """
    metrics = run.metrics
    about = run.about
    primary = about["primary"]
    models = list(metrics["models"])
    tables = []
    for name, levels in about["segments"].items():
        rows = []
        for level, cells in levels.items():
            users = max((cells[model][primary]["users"] for model in models), default=0)
            differences = about["segment_differences"][name][level]
            if users:
                rows.append(
                    [
                        level,
                        f"{users:,}",
                        *(_format_in_group(model, cells, differences, primary) for model in models),
                    ]
                )
        if rows:
            rows.append(
                [
                    "largest gap",
                    "",
                    *(_format_gap(about["gaps"][name][model][primary]) for model in models),
                ]
            )
            tables.append(ReportTable(f"{primary} by {name}", [name, "users", *models], rows))
    text = (
        "history: users by the number of items in their history when the lists were made."
        " popularity: only relevant items of that third of all likes count, so one user may be in"
        f" several rows. + or −: better or worse than {about['baseline']} in this group (the"
        " interval of the paired difference excludes 0; it is not corrected for the number of"
        " groups, so read it as a hint). Largest gap: between the best and the worst group of at"
        f" least {LEAST_USERS} users, with an interval that accounts for the choice of the two"
        " groups. Smaller groups have a mean without an interval."
    )
    return Section("By group", [text], tables=tables)


def _format_in_group(model: str, cells: dict[str, Any], differences: dict[str, Any], metric: str) -> str:
    """Return the mean of a group and its interval as text, with a mark at the end.

    The mark is + if the interval of the difference from the baseline is above 0, − if it is below
    0, and otherwise missing. A group of fewer than :data:`LEAST_USERS` users has the mean alone.
    The text is a dash (–) if the mean is undefined.
    """
    cell = cells[model][metric]
    if cell["mean"] is None or cell["users"] < LEAST_USERS:
        return _format_or_dash(cell["mean"], ".4f")
    low = None
    high = None
    if model in differences:
        low, high = differences[model][metric]["ci95"]
    mark = ""
    if low is not None and low > 0:
        mark = " +"
    elif high is not None and high < 0:
        mark = " −"
    return format_mean(cell) + mark


def _format_gap(gap: dict[str, Any]) -> str:
    if gap["gap"] is None:
        return "–"
    return f"{gap['gap']:.4f} {format_interval(gap['ci95'], sign=True)}\n{gap['best']} over {gap['worst']}"


def beyond_accuracy(run: Run) -> Section:
    """Return the section "Beyond accuracy": measures of the lists other than accuracy, by model.

    A second table defines the measures. The section is one sentence if nothing was measured.
    """
    cells_of_model = run.about["beyond"]
    measures = list(dict.fromkeys(name for cells in cells_of_model.values() for name in cells))
    if not measures:
        return Section("Beyond accuracy", ["Nothing was measured beyond accuracy."])
    rows = [[model, *(_format_measure(cells[name]) for name in measures)] for model, cells in cells_of_model.items()]
    meaning = [[name, DEFINITIONS[name]] for name in measures]
    text = "How much of the catalogue the lists show, and how varied, new and personal they are for a user."
    return Section(
        "Beyond accuracy",
        [text],
        tables=[
            ReportTable("Measure by model", ["model", *(name.replace("_", " ") for name in measures)], rows),
            ReportTable("What each measure means", ["measure", "definition"], meaning, numbers=2),
        ],
    )


def _format_measure(cell: dict[str, Any]) -> str:
    if "mean" not in cell:
        return _format_or_dash(cell["value"], ".3f")
    if cell["mean"] is None:
        return "–"
    low, high = cell["ci95"]
    return f"{cell['mean']:.3f} [{low:.3f}, {high:.3f}]"


def judged_users(run: Run) -> Section:
    """Return the section "Who was judged".

    Its table has, for each model, the number of users whose results are averaged, the number of
    users who are left out, and further counts of lists and pairs. The text defines each count.
    """
    counts = run.about["counts"]
    keys = list(dict.fromkeys(key for model in counts.values() for key in model))
    rows = [[model, *(f"{entry.get(key, 0):,}" for key in keys)] for model, entry in counts.items()]
    text = (
        "evaluated: users with something relevant. undefined: users without. without list:"
        " evaluated users for whom the model has no list. short: lists shorter than k. relevant pairs:"
        " what the tested users chose and lists are judged by. seen pairs removed: relevant pairs that"
        " are already in the history, which are not judged. relevant outside candidates:"
        " relevant pairs whose item no model could recommend; they count in the denominators."
    )
    return Section(
        "Who was judged",
        [text],
        tables=[ReportTable("Counts", ["model", *(k.replace("_", " ") for k in keys)], rows)],
    )


def definitions(run: Run) -> Section:
    """Return the section "Metric card": a table with the definition of each metric."""
    rows = [[name, text] for name, text in run.about["definitions"].items()]
    return Section(
        "Metric card",
        tables=[ReportTable("What each metric means", ["metric", "definition"], rows, numbers=2)],
    )
