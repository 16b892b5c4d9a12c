"""The sections with the results: means, differences, groups of users and items, measures beyond
accuracy, and counts of judged users.
"""

from __future__ import annotations

from typing import Any

from recsys import run_files
from recsys.evaluation.beyond import DEFINITIONS
from recsys.evaluation.groups import LEAST_USERS
from recsys.evaluation.judging.metrics import cut_off_caution
from recsys.evaluation.testing.pick import LEVEL, count_tests, models_by_quality
from recsys.report import figures
from recsys.report.parts import (
    Details,
    Drawing,
    ReportTable,
    Section,
    best_places,
    format_interval,
    format_mean,
)
from recsys.report.run_reader import Run

LEAD = "lead over the next"
"""The head of the column with the difference from the next best model."""

COUNTS = {
    "evaluated": "users with something relevant",
    "undefined": "users without anything relevant",
    "without_list": "evaluated users for whom the model has no list",
    "short": "lists shorter than k",
    "listed_places": "items in all lists that were judged",
    "tied_places": "listed places whose score another place of the same list also has",
    "relevant_pairs": "what the tested users chose and lists are judged by",
    "seen_pairs_removed": "relevant pairs that are already in the history, which are not judged",
    "warm_pairs_removed": "relevant pairs on items of train, which are not judged: lists rank new items alone",
    "relevant_outside_candidates": (
        "relevant pairs whose item no model could recommend; they count in the denominators"
    ),
}
"""Name of a count -> the text that explains it."""


def models(run: Run) -> Section:
    """Return the section "Models": a table with the mean of every metric for every model.

    The best model by the first metric is first. Each mean has its 95 % interval, and the best mean of
    each metric is bold. The column after the first metric has the difference from the next best
    model.
    """
    about = run.about
    users = max(cell["users"] for model in run.metrics["models"].values() for cell in model.values())
    text = f"Means over {users:,} users with 95 % bootstrap intervals over users, on the {about['engine']} engine."
    text += " Bold: the best of each metric."
    caution = cut_off_caution(run.config.judge.metrics, run.config.recommend.k)
    if caution:
        text += f" {caution}"
    columns: dict[str, list[str]] = {"model": run.models}
    bold = set()
    for name in about["definitions"]:
        cells = [run.metrics["models"][model][name] for model in run.models]
        bold |= {(row, len(columns)) for row in best_places([cell["mean"] for cell in cells])}
        columns[name] = [format_mean(cell) for cell in cells]
        # A run of recsys 0.1.0 has no leads.
        if name == about["primary"] and about.get("leads"):
            columns[LEAD] = [_format_lead(about["leads"], model) for model in run.models]
            text += (
                f" {LEAD.capitalize()}: {name} minus that of the model below, paired by"
                " user; its interval is not corrected for the number of models, so read it as a hint."
            )
    # The name of the best model is bold where it is the best: in the column of the first metric.
    bold |= {(row, 0) for row, column in bold if column == 1}
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    table = ReportTable("Metric by model", list(columns), rows, bold=frozenset(bold), notes=run.notes, has_terms=True)
    return Section("Models", [text], tables=[table])


def _format_lead(leads: dict[str, Any], model: str) -> str:
    """Return the lead of a model over the next best one as text, or a dash (–) if it has none."""
    if model not in leads:
        return "–"
    return format_mean(leads[model], sign=True)


def differences(run: Run) -> Section:
    """Return the section "Differences": how each model differs from the baseline.

    One table has the mean difference and interval in every metric, another has the test of the
    primary metric. Without a baseline, the section is one sentence that says so.
    """
    about = run.about
    names = list(about["definitions"])
    baseline = about["baseline"]
    if not run.metrics["differences"]:
        return Section("Differences", [f"This run has no baseline ([judge] baseline = {baseline!r})."])
    cells_of_model = {name: run.metrics["differences"][name] for name in run.models if name != baseline}
    rows = [
        [model, *(format_mean(cells[name], sign=True) for name in names)] for model, cells in cells_of_model.items()
    ]
    text = (
        f"Each model minus {baseline}, paired by user. A difference is shown where the interval"
        f" excludes 0 and p is at most {LEVEL}; elsewhere none is shown, which is not the same as showing that there"
        f" is none. p: paired t-test, Holm-corrected for {count_tests(run.metrics):,} comparisons of models with"
        " baselines."
        " Effect size: mean difference over its standard deviation between users. Detectable: the"
        " true difference that this number of users detects with 80 % power; a smaller difference"
        " may exist and not be detected."
    )
    primary_cells = {name: cells[about["primary"]] for name, cells in cells_of_model.items()}
    tables = [
        ReportTable(f"Difference from {baseline}", ["model", *names], rows, notes=run.notes, has_terms=True),
        ReportTable(
            f"{about['primary']}: is the difference real?",
            ["model", "difference", "p (Holm)", "effect size", "detectable", "users"],
            [[model, *_test_cells(cell)] for model, cell in primary_cells.items()],
            notes=run.notes,
        ),
    ]
    label = f"{about['primary']} minus that of {baseline}, 95 % interval"
    return Section("Differences", [text], tables=tables, figures=_forest(primary_cells, label))


def _forest(cells: dict[str, Any], label: str) -> list[Drawing]:
    """Return a list with one figure of differences and their intervals; empty if there are none.

    Args:
        cells: model -> its difference from the baseline.
    """
    dots = {name: (cell["mean"], cell["ci95"]) for name, cell in cells.items() if cell["mean"] is not None}
    if not dots:
        return []
    return [Drawing(figures.dots(dots, label, 0.0), f"{label}; the table below has the numbers.")]


def _test_cells(cell: dict[str, Any]) -> list[str]:
    """Return the cells of a row on a test: difference, p, effect size, detectable difference, users."""
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
    """Return a number in a format such as ``.4f`` as text, or a dash (–) for None."""
    if value is None:
        return "–"
    return f"{value:{form}}"


def segments(run: Run) -> Section:
    """Return the section "By group": the primary metric in groups of users and of relevant items.

    There is one table per grouping, and the best model of each group is bold. Groups of fewer than
    :data:`LEAST_USERS` users are folded, and those without users are left out.
    """
    about = run.about
    tables = []
    small_tables = []
    for name in about["segments"]:
        large = _group_rows(run, name, small=False)
        small = _group_rows(run, name, small=True)
        if large:
            gaps = [_format_gap(about["gaps"][name][model][about["primary"]]) for model in run.models]
            tables.append(_group_table(run, name, [*large, (["largest gap", "", *gaps], [])]))
        if small:
            small_tables.append(_group_table(run, name, small))
    text = (
        "history: users by the number of items in their history when the lists were made."
        " popularity: only relevant items of that third of all likes count, so one user may be in"
        f" several rows. + or −: better or worse than {about['baseline']} in this group (the"
        " interval of the paired difference excludes 0; it is not corrected for the number of"
        " groups, so read it as a hint). Bold: the best mean of the group. Largest gap: between the"
        f" best and the worst group of at least {LEAST_USERS} users, with an interval that accounts"
        " for the choice of the two groups."
    )
    details = []
    if small_tables:
        text += " Smaller groups are folded below; they have means without intervals."
        count = sum(len(table.rows) for table in small_tables)
        details = [Details(f"Groups of fewer than {LEAST_USERS} users: {count}", small_tables)]
    return Section("By group", [text], tables=tables, details=details)


def _group_rows(run: Run, grouping: str, *, small: bool) -> list[tuple[list[str], list[int]]]:
    """Return the rows of a table of groups: (cells, positions of the columns in bold) for each group.

    Groups without users are left out.

    Args:
        grouping: the name of the grouping.
        small: whether to return the groups of fewer than :data:`LEAST_USERS` users. If False, the
            larger ones are returned.
    """
    primary = run.about["primary"]
    rows = []
    for level, cells in run.about["segments"][grouping].items():
        users = max(cells[model][primary]["users"] for model in run.models)
        if users and (users < LEAST_USERS) == small:
            differences = run.about["segment_differences"][grouping][level]
            texts = [_format_in_group(model, cells, differences, primary) for model in run.models]
            best_models = best_places([cells[model][primary]["mean"] for model in run.models])
            rows.append(([level, f"{users:,}", *texts], [2 + index for index in best_models]))
    return rows


def _group_table(run: Run, grouping: str, rows: list[tuple[list[str], list[int]]]) -> ReportTable:
    """Return the table of a grouping from its rows, as :func:`_group_rows` returns them."""
    return ReportTable(
        f"{run.about['primary']} by {grouping}",
        [grouping, "users", *run.models],
        [texts for texts, _ in rows],
        bold=frozenset((row, column) for row, (_, columns) in enumerate(rows) for column in columns),
        notes=run.notes,
    )


def _format_in_group(model: str, cells: dict[str, Any], differences: dict[str, Any], metric: str) -> str:
    """Return the mean of a model in a group and its interval as text, with a mark at the end.

    The mark is + if the interval of the difference from the baseline is above 0, − if it is below
    0, and otherwise missing. For a group of fewer than :data:`LEAST_USERS` users, the text is the mean
    without an interval. It is a dash (–) if the mean is undefined.

    Args:
        cells: model -> metric -> mean and interval in the group.
        differences: model -> metric -> difference from the baseline in the group.
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
    """Return the largest difference between groups as text, with the best and the worst group."""
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
    rows = [
        [model, *(_format_measure(cells_of_model[model][name]) for name in measures)]
        for model in run.models
        if model in cells_of_model
    ]
    meaning = [[_spaced(name), DEFINITIONS[name]] for name in measures]
    text = "How much of the catalogue the lists show, and how varied, new and personal they are for a user."
    return Section(
        "Beyond accuracy",
        [text],
        tables=[
            ReportTable("Measure by model", ["model", *map(_spaced, measures)], rows, notes=run.notes, has_terms=True),
            ReportTable("What each measure means", ["measure", "definition"], meaning, numbers=2, is_glossary=True),
        ],
    )


def _format_measure(cell: dict[str, Any]) -> str:
    """Return a measure as text; with its interval if it is a mean over users."""
    if "mean" not in cell:
        return _format_or_dash(cell["value"], ".3f")
    if cell["mean"] is None:
        return "–"
    low, high = cell["ci95"]
    return f"{cell['mean']:.3f} [{low:.3f}, {high:.3f}]"


def judged_users(run: Run) -> Section:
    """Return the section "Who was judged".

    Its first table has, for each model, the number of users with relevant items, the number of
    users without, and further counts of lists and pairs. The second table defines these counts.
    """
    counts = run.about["counts"]
    keys = list(dict.fromkeys(key for model in counts.values() for key in model))
    rows = [[model, *(f"{counts[model].get(key, 0):,}" for key in keys)] for model in run.models if model in counts]
    meaning = [[_spaced(key), COUNTS[key]] for key in keys if key in COUNTS]
    return Section(
        "Who was judged",
        tables=[
            ReportTable("Counts", ["model", *map(_spaced, keys)], rows, notes=run.notes, has_terms=True),
            ReportTable("What each count means", ["count", "definition"], meaning, numbers=2, is_glossary=True),
        ],
    )


def definitions(run: Run) -> Section:
    """Return the section "Metric card": a table with the definition of each metric."""
    rows = [[name, text] for name, text in run.about["definitions"].items()]
    table = ReportTable("What each metric means", ["metric", "definition"], rows, numbers=2, is_glossary=True)
    return Section("Metric card", tables=[table])


def _spaced(name: str) -> str:
    """Return the name of a measure or a count with spaces instead of underscores."""
    return name.replace("_", " ")


def sampled_candidates(run: Run) -> Section | None:
    """Return the section "Sampled candidates": each metric with sampled and with all candidates.

    A warning names both orders of the models if they differ. The result is None for a run that did
    not sample candidates.
    """
    if not run.folder.has(run_files.SAMPLED):
        return None
    record = run.folder.read_json(run_files.SAMPLED)
    n = record["sampled"]
    heads = ["model"]
    columns: list[list[str]] = [run.models]
    for name, sampled_name in record["metrics"].items():
        heads += [sampled_name, f"{name}, all candidates"]
        columns.append([format_mean(record["models"][model][sampled_name]) for model in run.models])
        columns.append([format_mean(run.metrics["models"][model][name]) for model in run.models])
    rows = [list(row) for row in zip(*columns, strict=True)]
    primary = record["metrics"][run.about["primary"]]
    order = models_by_quality({model: record["models"][model][primary]["mean"] for model in run.models})
    text = (
        f"Each user's relevant items are ranked among {n:,} other candidates, drawn by a hash of the seed"
        f" {record['seed']}, user and item, the same for every model. Such numbers are biased: they cannot be compared"
        f" with those of all candidates, nor with a sample of another size, and they can order models wrongly (Krichene"
        " and Rendle, KDD 2020). They are here to be compared with published ones."
    )
    warnings = []
    if order != run.models:
        warnings.append(
            f"{primary} orders the models {', '.join(order)}; among all candidates the order is"
            f" {', '.join(run.models)}."
        )
    table = ReportTable(f"Metrics among {n:,} sampled candidates (biased)", heads, rows, notes=run.notes)
    return Section("Sampled candidates", [text], warnings=warnings, tables=[table])
