"""The verdict and the sections of a run with ``[judge] task = "ratings"``: errors, calibration, support, folds."""

from __future__ import annotations

from typing import Any

from recsys import run_files
from recsys.evaluation.groups import HISTORY, LEAST_USERS
from recsys.evaluation.rating_summary import COVERED, ITEM_SUPPORT
from recsys.evaluation.testing.pick import LEVEL, Pick, count_tests, difference_outcome, pick_model
from recsys.report.parts import Details, ReportTable, Section, format_interval, format_mean
from recsys.report.run_reader import Run

MUCH_SLOPE = 0.1
"""The verdict names the slope of the calibration if it differs from 1 by more than this."""


def is_of_ratings(metrics: dict[str, Any]) -> bool:
    """Return whether a run predicted ratings, from the contents of its metrics.json."""
    return bool(metrics["about"].get("task") == "ratings")


def rating_verdict(metrics: dict[str, Any]) -> str:
    """Return the verdict of a run that predicts ratings, as one text.

    It compares the best model with the best baseline, over all users and by their number of train
    ratings. It says whether the model is calibrated, and for how many pairs it has no prediction.

    Args:
        metrics: the contents of metrics.json.
    """
    pick = pick_model(metrics)
    if pick.name is None:
        return "No rating could be judged."
    sentences = [_compare_with_baseline(metrics, pick), _by_history(pick)]
    slope = metrics["about"]["calibration"][pick.name]["slope"]
    if slope is not None and abs(slope - 1) > MUCH_SLOPE:
        sentences.append(
            f"{pick.name} is not calibrated: where it predicts one more, users gave {slope:.2f} more on average."
        )
    counts = metrics["about"]["counts"][pick.name]
    if counts["no_opinion"]:
        share = counts["no_opinion"] / counts["pairs"]
        sentences.append(f"For {share:.1%} of the pairs {pick.name} has no opinion, and the biases predict.")
    return " ".join(sentence for sentence in sentences if sentence)


def _compare_with_baseline(metrics: dict[str, Any], pick: Pick) -> str:
    """Return a sentence that compares the best model with the best baseline."""
    primary = metrics["about"]["primary"]
    cell = metrics["models"][pick.name][primary]
    size = f"over {cell['pairs']:,} ratings of {cell['users']:,} users"
    if pick.difference is None:
        return f"{pick.name} has {primary} {cell['mean']:.4f} {format_interval(cell['ci95'])} {size}."
    model = metrics["models"][pick.model][primary]["mean"]
    baseline = metrics["models"][pick.baseline][primary]["mean"]
    means = f"{primary} {model:.4f} and {baseline:.4f}"
    change = f"{pick.difference['mean']:+.4f} {format_interval(pick.difference['ci95'], sign=True)}"
    if pick.outcome == "better":
        return f"{pick.model} has smaller errors than the best baseline, {pick.baseline}: {means}, {change} {size}."
    if pick.outcome == "worse":
        return f"{pick.model}, the best model, has larger errors than {pick.baseline}: {means}, {change} {size}."
    return (
        f"No difference shown between {pick.model}, the best model, and {pick.baseline}, the best"
        f" baseline{pick.correction}: {means}, {change} {size}."
    )


def _by_history(pick: Pick) -> str:
    """Return a sentence with the outcome in each group of users by the number of their train ratings."""
    levels_by_outcome: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cell in pick.by_history.items():
        if cell["users"] >= LEAST_USERS:
            levels_by_outcome[difference_outcome(cell, pick.lower_is_better)].append(level)
    if sum(map(len, levels_by_outcome.values())) < 2:
        return ""
    clauses = (f"{outcome} for {' and '.join(levels)}" for outcome, levels in levels_by_outcome.items() if levels)
    return f"By ratings of the user in train: {'; '.join(clauses)}."


def errors(run: Run) -> Section:
    """Return the section "Errors": every metric of every model with its two intervals.

    The intervals are over users and over ratings. A second table has the differences from the
    baseline.
    """
    about = run.about
    metrics = list(about["definitions"])
    first = run.metrics["models"][run.models[0]][about["primary"]]
    low, high = about["scale"]
    text = (
        f"Over {first['pairs']:,} predicted ratings of {first['users']:,} users; the lower, the better."
        " In brackets: 95 % intervals; first with users drawn at random, then with each rating drawn"
        f" by itself. Predictions are clipped to the scale {low:g} to {high:g}."
    )
    heads = ["model"]
    for metric in metrics:
        heads += [metric, "by rating"]
    rows = []
    for name in run.models:
        row = [name]
        for metric in metrics:
            cell = run.metrics["models"][name][metric]
            row += [format_mean(cell), format_interval(cell["ci95_pairs"])]
        counts = about["counts"][name]
        rows.append(
            [
                *row,
                f"{counts['no_opinion'] / counts['pairs']:.1%}",
                f"{counts['clipped'] / counts['pairs']:.1%}",
            ]
        )
    heads += ["no opinion", "clipped"]
    tables = [
        ReportTable("Errors by model", heads, rows, bold=frozenset({(0, 0), (0, 1)}), notes=run.notes),
    ]
    baseline = about["baseline"]
    if run.metrics["differences"]:
        difference_rows = []
        for name in run.models:
            if name == baseline:
                continue
            cells = run.metrics["differences"][name]
            row = [name]
            for metric in metrics:
                cell = cells[metric]
                row += [
                    format_mean(cell, sign=True),
                    format_interval(cell["ci95_pairs"], sign=True),
                ]
            difference_rows.append([*row, _number(cells[about["primary"]]["p_holm"])])
        text += (
            f" Differences are those of the same pairs: below 0 a model has smaller errors than {baseline}; a"
            f" difference is shown where the interval over users excludes 0 and p is at most {LEVEL}. p: paired t-test"
            f" over users, Holm-corrected for {count_tests(run.metrics):,} comparisons of models with baselines."
        )
        difference_heads = [
            "model",
            *heads[1 : 1 + 2 * len(metrics)],
            f"p, {about['primary']} (Holm)",
        ]
        tables.append(ReportTable(f"Difference from {baseline}", difference_heads, difference_rows, notes=run.notes))
    return Section("Errors", [text], tables=tables)


def support(run: Run) -> Section:
    """Return the section "By support": the errors by the number of train ratings.

    One table is by the ratings of the user, another by the ratings of the item.
    """
    primary = run.about["primary"]
    titles = {
        HISTORY.name: "ratings of the user in train",
        ITEM_SUPPORT: "ratings of the item in train",
    }
    tables = []
    for grouping, title in titles.items():
        levels = run.about["segments"][grouping]
        sizes = {level: cells[run.models[0]][primary]["pairs"] for level, cells in levels.items()}
        filled_levels = [level for level, pairs in sizes.items() if pairs]
        rows = [[name, *(format_mean(levels[level][name][primary]) for level in filled_levels)] for name in run.models]
        heads = ["model", *(f"{level} ({sizes[level]:,} pairs)" for level in filled_levels)]
        tables.append(ReportTable(f"{primary} by {title}", heads, rows, notes=run.notes))
    text = "How the errors depend on how much train knows: few ratings of a user or of an item leave little to learn."
    return Section("By support", [text], tables=tables)


def calibration(run: Run) -> Section:
    """Return the section "Calibration": how well given ratings agree with predicted ones.

    If a model estimates a spread, a table says how many ratings are in its intervals.
    """
    records = run.about["calibration"]
    best_model = run.models[0]
    rows = [[name, _number(records[name]["slope"]), _number(records[name]["intercept"])] for name in run.models]
    bins = [
        [
            f"{group['predicted']:.3f}",
            f"{group['given']:.3f}",
            f"{group['given'] - group['predicted']:+.3f}",
            f"{group['pairs']:,}",
        ]
        for group in records[best_model]["bins"]
    ]
    text = (
        "The line of given on predicted ratings has slope 1 and intercept 0 if predictions are right on average at"
        " every height. A slope below 1: high predictions are too high and low ones too low; above 1: they differ too"
        " little."
    )
    tables = [
        ReportTable(
            "Given ratings by predicted ones",
            ["model", "slope", "intercept"],
            rows,
            notes=run.notes,
        ),
        ReportTable(
            f"{best_model}: pairs in groups by the predicted rating",
            ["mean predicted", "mean given", "given − predicted", "pairs"],
            bins,
            numbers=0,
        ),
    ]
    spreads = run.about["spread"]
    if spreads:
        text += (
            " A model with a spread says how far a rating may be from its prediction: its interval of 90 % should hold"
            " 90 % of the ratings."
        )
        spread_rows = [
            [
                name,
                _number(record["mean"]),
                *(_share(record["covered"][f"{p:g}"]) for p in COVERED),
                f"{record['pairs']:,}",
            ]
            for name, record in spreads.items()
        ]
        heads = ["model", "mean spread", *(f"in the interval of {p:.0%}" for p in COVERED), "pairs"]
        tables.append(ReportTable("Ratings in the intervals of the spread", heads, spread_rows))
    return Section("Calibration", [text], tables=tables)


def refits(run: Run) -> Section | None:
    """Return the section "Bias, variance and more data": the parts of each model's error.

    The result is None for a run without refits (``[judge] refits``).
    """
    if "refits" not in run.about:
        return None
    record = run.about["refits"]
    shares = list(next(iter(record["models"].values()))["rmse"])
    rows = []
    for name in run.models:
        of_model = record["models"][name]
        rows.append(
            [
                name,
                *(f"{of_model['rmse'][share]:.4f}" for share in shares),
                f"{of_model['variance']:.4f}",
                f"{of_model['remainder']:.4f}",
            ]
        )
    heads = ["model", *(f"rmse, {float(share):.0%} of train" for share in shares)]
    heads += ["variance", "bias² + noise"]
    text = (
        "The train part of the first fold was divided at random into two halves (number of divisions:"
        f" {record['divisions']}), and each model was fitted on both halves and on one half of each. If the error"
        " still falls from half to all of train, more ratings will help. With half of train, the mean squared error"
        " is the sum of two parts. The variance is half the mean squared difference between the predictions from the"
        " two halves, which share no rating: how far a fit on half of the ratings is from the mean of such fits. The"
        " rest is bias² + noise, which no fit of this kind avoids. A large variance calls for more data,"
        " regularization or averaging; a large bias for a richer model. The noise of the ratings is the same"
        " for all models, so the smallest bias² + noise is a bound for it."
    )
    table = ReportTable("Learning curve, and the parts of the error", heads, rows, notes=run.notes)
    return Section("Bias, variance and more data", [text], tables=[table])


def reviews(run: Run) -> Section | None:
    """Return the section "Reviews": how well the texts of reviews predict ratings.

    The result is None if no saved model learned from reviews.
    """
    names = [name for name in run.models if run.folder.has(run_files.model_card(name))]
    records = {name: run.folder.read_json(run_files.model_card(name)).get("record") or {} for name in names}
    records = {name: record for name, record in records.items() if "estimated_slope" in record}
    if not records:
        return None
    paragraphs = [
        "The score of a text is predicted from its words, which are weighed by the reviews of other items. The score of"
        " an item is the mean of its texts, drawn towards that of all items where they are few. It is where the bias of"
        " an item starts, before its ratings are counted."
    ]
    rows = []
    for name, record in records.items():
        paragraphs.append(
            f"{name}: {_use_of_reviews(record)} Words that raise a score: {', '.join(record['raise'])}."
            f" Words that lower it: {', '.join(record['lower'])}."
        )
        rows.append(
            [
                name,
                f"{record['reviews']:,}",
                f"{record['items']:,}",
                f"{record['rmse']:.3f}",
                f"{record['rmse_of_mean']:.3f}",
                f"{record['pearson']:.3f}",
            ]
        )
    heads = ["model", "reviews with a score", "items", "rmse of texts", "of the mean", "correlation"]
    table = ReportTable("Scores of texts, on held-out items", heads, rows)
    return Section("Reviews", paragraphs, tables=[table])


def _use_of_reviews(record: dict[str, Any]) -> str:
    """Return a sentence about what reviews say of ratings, from the record of a ``text_score`` model."""
    estimate = f"estimated slope {record['estimated_slope']:.2f} ± {record['slope_error']:.2f}"
    if record["slope"] == 0:
        return f"the reviews do not say enough about the ratings of new items to be used ({estimate})."
    return (
        f"an item whose texts score 1 higher has ratings that are {record['slope']:.2f} higher"
        f" ({estimate}, drawn towards 0)."
    )


def folds(run: Run) -> Section | None:
    """Return the section "Folds": the first metric of every model in each fold.

    The result is None for a run with only one fold.
    """
    records = run.about["folds"]
    if not records:
        return None
    primary = run.about["primary"]
    rows = [[name, *(f"{record['models'][name][primary]:.4f}" for record in records)] for name in run.models]
    heads = ["model", *(f"{record['fold']} ({record['pairs']:,} pairs)" for record in records)]
    text = (
        f"Each pair is in the test of one of {len(records)} folds, by its hash, and every model is"
        " fitted once per fold. The errors of this report are over the pairs of all folds together."
        " Folds share their train ratings, so their spread does not measure uncertainty: the"
        " intervals are. The saved model is fitted on all ratings."
    )
    return Section(
        "Folds",
        [text],
        details=[Details(f"{primary} in each fold", [ReportTable(f"{primary} by fold", heads, rows)])],
    )


def _number(value: float | None) -> str:
    """Return a number with four decimals as text, or a dash (–) for None."""
    if value is None:
        return "–"
    return f"{value:.4f}"


def _share(value: float | None) -> str:
    """Return a share as a percentage, or a dash (–) for None."""
    if value is None:
        return "–"
    return f"{value:.1%}"
