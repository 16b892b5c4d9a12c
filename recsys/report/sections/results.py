"""How good the models are: means, differences, groups of users and items, beyond accuracy, who was judged."""

from __future__ import annotations

from typing import Any

from recsys.evaluation.beyond import DEFINITIONS
from recsys.evaluation.groups import LEAST_USERS
from recsys.report import figures
from recsys.report.parts import Drawing, Section, Table, interval, mean
from recsys.report.run_reader import Run


def models(run: Run) -> Section:
    """Every metric of every model, with its interval."""
    metrics = run.metrics
    names = list(metrics["about"]["definitions"])
    users = max(cell["users"] for model in metrics["models"].values() for cell in model.values())
    rows = [[model, *(mean(cells[name]) for name in names)] for model, cells in metrics["models"].items()]
    engine = metrics["about"]["engine"]
    text = f"Means over {users:,} users with 95 % bootstrap intervals over users, on the {engine} engine."
    return Section("Models", [text], tables=[Table("Metric by model", ["model", *names], rows)])


def differences(run: Run) -> Section:
    """Each model against the baseline: size, interval, test."""
    metrics = run.metrics
    about = run.about
    names, baseline = list(about["definitions"]), about["baseline"]
    if not metrics["differences"]:
        return Section("Differences", [f"There is no baseline in this run ([judge] baseline = {baseline!r})."])
    rows = [
        [model, *(mean(cells[name], sign=True) for name in names)] for model, cells in metrics["differences"].items()
    ]
    tests = sum(cell["p"] is not None for cells in metrics["differences"].values() for cell in cells.values())
    text = (
        f"Each model minus {baseline}, paired by user. An interval that excludes 0 shows a difference;"
        " one that includes 0 shows none, which is not the same as showing that there is none."
        f" p: paired t-test, Holm-corrected over all {tests} tests of the table above. Effect size: mean difference"
        " over its standard deviation between users. Detectable: the true difference that so many users show in four"
        " runs of five; a smaller one may well be there and not be seen."
    )
    tables = [
        Table(f"Difference from {baseline}", ["model", *names], rows),
        Table(
            f"{about['primary']}: is the difference real?",
            ["model", "difference", "p (Holm)", "effect size", "detectable", "users"],
            [[model, *_tested(cells[about["primary"]])] for model, cells in metrics["differences"].items()],
        ),
    ]
    return Section("Differences", [text], tables=tables, figures=_forest(metrics))


def _forest(metrics: dict[str, Any]) -> list[Drawing]:
    about = metrics["about"]
    found = {name: cells[about["primary"]] for name, cells in metrics["differences"].items()}
    cells = {name: (cell["mean"], cell["ci95"]) for name, cell in found.items() if cell["mean"] is not None}
    svg = figures.dots(cells, f"{about['primary']} minus that of {about['baseline']}, 95 % interval", 0.0)
    label = f"Differences in {metrics['about']['primary']} with 95 % intervals; the table below has the numbers."
    return [Drawing(svg, label)] if svg else []


def _tested(cell: dict[str, Any]) -> list[str]:
    p, effect, least = cell["p_holm"], cell["effect_size"], cell["detectable"]
    return [
        mean(cell, sign=True),
        "–" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}",
        "–" if effect is None else f"{effect:+.2f}",
        "–" if least is None else f"{least:.4f}",
        f"{cell['users']:,}",
    ]


def segments(run: Run) -> Section:
    """The primary metric within groups of users and of relevant items."""
    metrics = run.metrics
    about = run.about
    primary, models = about["primary"], list(metrics["models"])
    tables = []
    for name, levels in about["segments"].items():
        rows = []
        for level, cells in levels.items():
            users = max((cells[model][primary]["users"] for model in models), default=0)
            versus = about["segment_differences"][name][level]
            if users:
                rows.append([level, f"{users:,}", *(_versus(model, cells, versus, primary) for model in models)])
        if rows:
            rows.append(["largest gap", "", *(_gap(about["gaps"][name][model][primary]) for model in models)])
            tables.append(Table(f"{primary} by {name}", [name, "users", *models], rows))
    text = (
        "history: users by the number of items in their history when the lists were made. popularity: only relevant"
        " items of that third of all likes count, so a user may stand in several rows."
        f" + or −: better or worse than {about['baseline']} there (the interval of the paired difference excludes 0;"
        " not corrected for the number of groups: read it as a hint). Largest gap: between the best and the worst group"
        f" of {LEAST_USERS} users and more, with an interval that allows for having picked them; smaller groups show"
        " their mean alone."
    )
    return Section("By group", [text], tables=tables)


def _versus(model: str, cells: dict[str, Any], versus: dict[str, Any], metric: str) -> str:
    """Return a mean with + or − when the model differs from the baseline in this group; of few users only the mean."""
    cell = cells[model][metric]
    if cell["mean"] is None or cell["users"] < LEAST_USERS:
        return "–" if cell["mean"] is None else f"{cell['mean']:.4f}"
    low, high = versus[model][metric]["ci95"] if model in versus else (None, None)
    mark = "" if low is None or high is None else " +" if low > 0 else " −" if high < 0 else ""
    return mean(cell) + mark


def _gap(found: dict[str, Any]) -> str:
    if found["gap"] is None:
        return "–"
    return f"{found['gap']:.4f} {interval(found['ci95'], sign=True)}\n{found['best']} over {found['worst']}"


def beyond(run: Run) -> Section:
    """What the lists do besides being right."""
    metrics = run.metrics
    beyond = metrics["about"]["beyond"]
    measures = list(dict.fromkeys(name for found in beyond.values() for name in found))
    if not measures:
        return Section("Beyond accuracy", ["Nothing was measured beyond accuracy."])
    rows = [[model, *(_value(found[name]) for name in measures)] for model, found in beyond.items()]
    meaning = [[name, DEFINITIONS[name]] for name in measures]
    text = "What the lists do to the catalogue, and what they are for a user besides right, next to the accuracy above."
    return Section(
        "Beyond accuracy",
        [text],
        tables=[
            Table("Measure by model", ["model", *(name.replace("_", " ") for name in measures)], rows),
            Table("What each measure means", ["measure", "definition"], meaning, numbers=2),
        ],
    )


def _value(cell: dict[str, Any]) -> str:
    if "mean" in cell:
        low, high = cell["ci95"]
        return "–" if cell["mean"] is None else f"{cell['mean']:.3f} [{low:.3f}, {high:.3f}]"
    return "–" if cell["value"] is None else f"{cell['value']:.3f}"


def users(run: Run) -> Section:
    """How many users stand behind the numbers."""
    metrics = run.metrics
    counts = metrics["about"]["counts"]
    keys = list(dict.fromkeys(key for model in counts.values() for key in model))
    rows = [[model, *(f"{found.get(key, 0):,}" for key in keys)] for model, found in counts.items()]
    text = (
        "evaluated: users with something relevant. undefined: users without. without_list: evaluated users to whom the"
        " model gave nothing. short: lists shorter than k. seen_pairs_removed: relevant pairs that the history"
        " already held. relevant_outside_candidates: relevant pairs that nobody could recommend; they stay in the"
        " denominators."
    )
    return Section(
        "Who was judged", [text], tables=[Table("Counts", ["model", *(k.replace("_", " ") for k in keys)], rows)]
    )


def definitions(run: Run) -> Section:
    """What each metric means."""
    metrics = run.metrics
    rows = [[name, text] for name, text in metrics["about"]["definitions"].items()]
    return Section("Metric card", tables=[Table("What each metric means", ["metric", "definition"], rows, numbers=2)])
