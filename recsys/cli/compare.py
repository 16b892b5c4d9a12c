"""The verb compare: which of several models to choose, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys import run_files
from recsys.cli.application import DECISIONS, app
from recsys.cli.console import log, out, print_table, short_labels
from recsys.cli.options import (
    Columns,
    Delimiter,
    Encoding,
    FileFormat,
    Json,
    config_of,
    reading_overrides,
    require_finite,
    run_argument,
)
from recsys.cli.rating_runs import are_rating_runs, compare_rating_runs
from recsys.errors import ConfigError, GateFired, suggest_nearest
from recsys.locations import Location, Uri
from recsys.runfolder import RunFolder, damage_explained, to_plain_json

if TYPE_CHECKING:
    import pandas as pd

    from recsys.data.reading.read_settings import ReadSettings
    from recsys.evaluation.testing.choose import ModelChoice
    from recsys.evaluation.testing.compare import Comparison
    from recsys.types import Evaluation

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".gz", ".pq")
"""The suffixes of files that are tables, not run folders."""
OVER_FOLDS = "differences_over_folds"
"""The table of the differences over all folds of a backtest, one value per user."""
MACHINE_COSTS = ("ms_per_user", "peak_mb")
"""The guardrails that can be compared only between runs on the same machine."""


@dataclass(frozen=True)
class Candidate:
    """A model to compare.

    Attributes:
        evaluation: the metrics of the model for each user. Its name is the name of the candidate.
        lists: the table of its lists: user_id, item_id, rank.
        guards: guardrail -> value. A guardrail is a measure that a better model must not make
            worse: ``coverage``, ``tail_share``, ``ms_per_user`` or ``peak_mb``.
        platform: the machine on which the model ran, or "" if it is unknown.
        pooled: the metrics of the model for each user, over all folds of a backtest. None without a
            backtest.
        windows: the start of the test of each fold of a backtest, as ISO times.
    """

    evaluation: Evaluation
    lists: pd.DataFrame
    guards: dict[str, float] = field(default_factory=dict)
    platform: str = ""
    pooled: Evaluation | None = None
    windows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Which of several candidates to take, and by which comparison.

    Attributes:
        incumbent: the model that the others have to beat.
        comparison: the comparison on the test.
        deciding: the comparison that decides: over all folds of a backtest, else ``comparison``.
        choice: the chosen model, with the reasons.
        exempt: the models to which gates are not applied: the baselines of a single run.
    """

    incumbent: str
    comparison: Comparison
    deciding: Comparison
    choice: ModelChoice
    exempt: frozenset[str] = frozenset()


@app.command(rich_help_panel=DECISIONS)
def compare(
    runs: Annotated[
        list[Path],
        run_argument("Run folders, by path or URI, or tables of lists; the others are compared with the first."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The model of each run. Default: the best of the run that is not a baseline."),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="For tables of lists: what the users chose.")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--metric",
            help="A metric (repeatable); the first decides between several runs or tables."
            " Default: all of the runs, or ndcg@10 and recall@10 of the tables.",
        ),
    ] = None,
    relevant: Annotated[
        float | None,
        typer.Option(
            callback=require_finite, help="For tables of lists: the least value of a relevant row of the truth."
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help='"ndcg@10 drops 0.01", "coverage drops 0.1", "ms_per_user rises 5" or "ndcg@10 within 0.01"'
            " (repeatable): if so, exit code 3."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the bootstrap.")] = 0,
    columns: Columns = None,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: Json = False,
) -> None:
    """Compare models on the same users, and print which to choose.

    Give several runs (one model of each is compared), one run (all its models), or tables of lists.

    Example: recsys compare runs/old runs/new --fail-if "ndcg@10 drops 0.01"
    """
    from recsys.evaluation.agreement.system_pairs import DEFAULT_MEASURES
    from recsys.evaluation.testing.choose import mean_agreement, most_changed_users
    from recsys.evaluation.testing.gates import Gate, changes_from

    overrides = reading_overrides(columns, file_format, delimiter, encoding)
    if not truth and (overrides or relevant is not None):
        raise ConfigError(
            "--relevant and the options on reading files are for tables of lists: name what the users chose with"
            " --truth FILE. A run has been read and judged already."
        )
    if not truth and are_rating_runs(runs):
        compare_rating_runs(runs, model, metrics, fail_if or [], as_json)
        return
    if truth:
        reading = config_of(str(truth), overrides).data.reading
        candidates = read_tables_of_lists(runs, truth, reading, metrics, relevant)
    else:
        candidates = read_run_folders(runs, model)
        if metrics:
            candidates = [with_metrics(candidate, metrics) for candidate in candidates]
    evaluations = {candidate.evaluation.name: candidate.evaluation for candidate in candidates}
    metric_names = candidates[0].evaluation.metrics
    guards = comparable_guards(candidates)
    guard_names = {name for values in guards.values() for name in values}
    gates = [Gate.parse(text, {*metric_names, *guard_names, *DEFAULT_MEASURES}) for text in fail_if or []]
    if len(runs) == 1:
        decision = decide_in_run(RunFolder.open(runs[0]), candidates, guards, seed)
    else:
        decision = decide_between_runs(candidates, guards, seed)
    incumbent = decision.incumbent
    choice = decision.choice
    lists = {candidate.evaluation.name: candidate.lists for candidate in candidates}
    rival = choice.pick
    if choice.pick == incumbent:
        rival = next(name for name in reversed(list(evaluations)) if name != incumbent)
    changed = most_changed_users(evaluations[incumbent], evaluations[rival], metric_names[0], lists)
    agreement = mean_agreement(lists)
    changes = changes_from(incumbent, decision.deciding.differences, guards, agreement)
    fired = [
        gate.describe(change)
        for gate in gates
        for change in changes
        if gate.measure == change.measure and change.model not in decision.exempt and gate.fires(change)
    ]
    tables = {"means": decision.comparison.means, "differences": decision.comparison.differences}
    if decision.deciding is not decision.comparison:
        tables[OVER_FOLDS] = decision.deciding.differences
    tables |= {
        "agreement": agreement,
        "guardrails": guards_table(guards),
        "most_changed": changed.rename(columns={"a": incumbent, "b": rival}),
    }
    if as_json:
        print_json(tables, choice, fired)
    else:
        out.print(f"pick: {choice.pick}")
        for reason in choice.reasons:
            out.print(f"  {reason}")
        out.print()
        print_tables(tables | {"means": decision.comparison.table()}, metric_names[0])
    if fired:
        raise GateFired("; ".join(fired))


def decide_in_run(
    run: RunFolder, candidates: list[Candidate], guards: dict[str, dict[str, float]], seed: int
) -> Decision:
    """Compare all models of one run with each other, and choose one of them.

    The model to beat is the best baseline of the run. Gates are not applied to baselines, because a
    poor baseline is not a fault.

    Args:
        run: the run folder.
        candidates: the models of the run.
        guards: model -> guardrail -> value.
        seed: the seed of the bootstrap.
    """
    from recsys.evaluation.testing.pick import baseline_differences, pick_model

    comparison, deciding = _comparisons(candidates, None, seed)
    metrics = run.read_json(run_files.METRICS)
    metrics = share_tests(metrics, comparison)
    if deciding is not comparison:
        metrics["backtest"] = share_tests(metrics["backtest"], deciding)
    incumbent = pick_model(metrics).baseline or candidates[0].evaluation.name
    return Decision(
        incumbent, comparison, deciding, choose_in_run(metrics, guards), frozenset(baseline_differences(metrics))
    )


def share_tests(metrics: dict[str, Any], comparison: Comparison) -> dict[str, Any]:
    """Let the sentences and the table agree on the differences from baselines, and return the metrics.

    The table gets the intervals and p-values of the run, which the report shows too. If an older
    run lacks the p-value of a baseline, the returned metrics get the p-value of the table; the file
    of the run is not changed. Differences of other metrics, and differences between two models that
    are not baselines, keep the test of the table.

    Args:
        metrics: the content of metrics.json, or its entry ``backtest``.
        comparison: the comparison of every two models of the run, which is changed in place.
    """
    from recsys.evaluation.testing.pick import baseline_differences

    metrics = deepcopy(metrics)
    about = metrics["about"]
    table = comparison.differences
    by_primary = table[table["metric"] == about["primary"]]
    rows = {(row.model, row.against): (row.Index, 1) for row in by_primary.itertuples()}
    rows |= {(row.against, row.model): (row.Index, -1) for row in by_primary.itertuples()}
    for baseline, of_baseline in baseline_differences(metrics).items():
        for name, cell in of_baseline["all"].items():
            if (name, baseline) not in rows:
                # The metrics of the comparison do not include the first one of the run.
                continue
            row, sign = rows[name, baseline]
            if "tests" not in about:
                cell["ci95"] = sorted(sign * table.loc[row, ["low", "high"]].to_numpy(dtype=float))
                cell["p_holm"] = table.loc[row, "p_holm"]
                continue
            # A missing value is None in the file.
            ends = [math.nan if end is None else sign * end for end in cell["ci95"]]
            table.loc[row, ["low", "high"]] = sorted(ends)
            if cell.get("p_holm") is not None:
                table.loc[row, ["p", "p_holm"]] = [cell["p"], cell["p_holm"]]
    about.setdefault("tests", int(table["p"].notna().sum()))
    return metrics


def decide_between_runs(candidates: list[Candidate], guards: dict[str, dict[str, float]], seed: int) -> Decision:
    """Compare the first candidate with each of the others, and choose one of all.

    Args:
        candidates: one model of each run, or one candidate per table of lists.
        guards: model -> guardrail -> value.
        seed: the seed of the bootstrap.
    """
    from recsys.evaluation.testing.choose import choose_model

    first = candidates[0].evaluation
    comparison, deciding = _comparisons(candidates, first.name, seed)
    return Decision(first.name, comparison, deciding, choose_model(deciding, first.name, first.metrics[0], guards))


def _comparisons(candidates: list[Candidate], baseline: str | None, seed: int) -> tuple[Comparison, Comparison]:
    """Return the comparison of the candidates on the test, and the one that decides.

    The second one is over all folds of a backtest, because one window of time says less than all of
    them. Where not all candidates have the same backtest, it is the first one.

    Args:
        baseline: the model with which the others are compared. None: each with each.
    """
    from recsys.evaluation.testing.compare import compare as compare_evaluations

    comparison = compare_evaluations([candidate.evaluation for candidate in candidates], baseline=baseline, seed=seed)
    pooled = pooled_evaluations(candidates)
    if not pooled:
        return comparison, comparison
    log.print("gates, and the choice between runs, are decided by the differences over all folds of the backtest")
    return comparison, compare_evaluations(pooled, baseline=baseline, seed=seed)


def pooled_evaluations(candidates: list[Candidate]) -> list[Evaluation]:
    """Return the evaluation of each candidate over all folds of its backtest.

    The result is empty if a candidate has no backtest. It is also empty if the candidates differ in
    the windows of time of their folds; this is printed on stderr.
    """
    pooled = [candidate.pooled for candidate in candidates if candidate.pooled is not None]
    if len(pooled) < len(candidates):
        return []
    if len({candidate.windows for candidate in candidates}) > 1:
        log.print("the backtests of these runs have other windows of time: nothing is compared over all folds")
        return []
    return pooled


def choose_in_run(metrics: dict[str, Any], guards: dict[str, dict[str, float]]) -> ModelChoice:
    """Return which model of one run to choose, and why.

    A pick that breaks a guardrail of the best baseline is not conclusive.

    Args:
        metrics: the content of metrics.json.
        guards: model -> guardrail -> value.
    """
    from recsys.evaluation.testing.choose import ModelChoice, broken_guardrails
    from recsys.evaluation.testing.pick import pick_model
    from recsys.report.sections.verdict import verdict

    pick = pick_model(metrics)
    reasons = [verdict(metrics)]
    if pick.name is None:
        return ModelChoice(next(iter(metrics["models"])), False, reasons)
    broken: list[str] = []
    if pick.baseline is not None and pick.name != pick.baseline:
        broken = broken_guardrails(guards.get(pick.baseline, {}), guards[pick.name])
    if pick.outcome == "no difference shown" and pick.name == pick.model:
        reasons.append(f"Take {pick.baseline} instead if a simpler model is worth more than the chance of a gain.")
    reasons += [f"Compared with {pick.baseline} it breaks a guardrail: {sentence}." for sentence in broken]
    return ModelChoice(pick.name, pick.outcome == "better" and not broken, reasons)


def read_run_folders(runs: Sequence[Location], model: str | None) -> list[Candidate]:
    """Return the candidates of one run or of several runs.

    For one run they are all of its models, under their names. For several runs they are one model
    of each, under the names of the runs.

    Args:
        runs: run folders.
        model: for several runs, the model of each. None: the best of each run that is not a
            baseline.

    Raises:
        ConfigError: a path is a table, ``model`` is given for one run, or a run has no such model.
        RunFolderError: a run folder is incomplete or damaged.
    """
    from recsys.evaluation.testing.compare import read_run
    from recsys.evaluation.testing.pick import pick_model

    for run in runs:
        if not isinstance(run, Uri) and (run.is_file() or run.suffix in TABLE_SUFFIXES):
            raise ConfigError(f"{run}: a table, not a run folder. Name what the users chose with --truth FILE.")
    if len(runs) == 1:
        if model:
            raise ConfigError("--model chooses one model of each run: name at least two runs.")
        folder = RunFolder.open(runs[0])
        with damage_explained(runs[0]):
            evaluations = read_run(folder)
            pooled = read_pooled(folder)
            return [read_candidate(folder, evaluation, name, pooled) for name, evaluation in evaluations.items()]
    candidates = []
    for run, label in zip(runs, short_labels(runs), strict=True):
        folder = RunFolder.open(run)
        with damage_explained(run):
            evaluations = read_run(folder)
            pick = pick_model(folder.read_json(run_files.METRICS))
        name = model or pick.model or pick.baseline or next(iter(evaluations))
        if not model:
            log.print(f"{run}: model {name}, the best of the run; --model takes another")
        if name not in evaluations:
            raise ConfigError(f"{run}: no model '{name}'.{suggest_nearest(name, evaluations)}")
        with damage_explained(run):
            evaluation = replace(evaluations[name], name=label)
            candidates.append(read_candidate(folder, evaluation, name, read_pooled(folder)))
    return candidates


def with_metrics(candidate: Candidate, metrics: list[str]) -> Candidate:
    """Return a candidate with only some of the metrics of its run, in the given order.

    Args:
        candidate: the candidate.
        metrics: the names of the metrics.

    Raises:
        ConfigError: the run does not have one of the metrics.
    """
    from recsys.evaluation.judging.metrics import parse_all

    metrics_of_run = candidate.evaluation.metrics
    names = [name if name in metrics_of_run else str(parse_all([name], complete=True)[0]) for name in metrics]
    for name in names:
        if name not in metrics_of_run:
            raise ConfigError(
                f"{candidate.evaluation.name}: its run has no metric '{name}'.{suggest_nearest(name, metrics_of_run)}"
                " A run computes what [judge] metrics names."
            )
    pooled = candidate.pooled
    if pooled is not None:
        pooled = _select_metrics(pooled, names)
    return replace(candidate, evaluation=_select_metrics(candidate.evaluation, names), pooled=pooled)


def _select_metrics(evaluation: Evaluation, names: list[str]) -> Evaluation:
    """Return an evaluation whose metrics are ``names``, in this order."""
    definitions = {name: evaluation.about["definitions"][name] for name in names}
    return replace(evaluation, about=evaluation.about | {"definitions": definitions})


def read_pooled(folder: RunFolder) -> dict[str, Evaluation]:
    """Return model -> its evaluation over all folds; empty for a run without a backtest."""
    from recsys.evaluation.testing.compare import read_run

    if not folder.has(run_files.POOLED_PER_USER):
        return {}
    return read_run(folder, run_files.POOLED_PER_USER)


def read_candidate(folder: RunFolder, evaluation: Evaluation, name: str, pooled: dict[str, Evaluation]) -> Candidate:
    """Return a model of a run as a candidate, with its lists for tested users and its guardrails.

    Args:
        folder: the run folder.
        evaluation: the evaluation of the model, under the name of the candidate.
        name: the name of the model in the run.
        pooled: model -> its evaluation over all folds, from :func:`read_pooled`.

    Raises:
        RunFolderError: a file is missing or damaged.
    """
    lists = folder.read_table(run_files.topk(name))
    tested = evaluation.per_user["user_id"]
    guards: dict[str, float] = {}
    for measure, cell in folder.read_json(run_files.METRICS)["about"]["beyond"].get(name, {}).items():
        value = cell.get("value", cell.get("mean"))
        if measure in ("coverage", "tail_share") and value is not None:
            guards[measure] = float(value)
    manifest = folder.read_json(run_files.MANIFEST)
    hops = {hop["name"]: hop for hop in manifest["hops"]}
    if f"recommend {name}" in hops:
        guards["ms_per_user"] = 1000 * hops[f"recommend {name}"]["seconds"] / max(lists["user_id"].nunique(), 1)
        hops_of_model = [hops[hop] for hop in (f"fit {name}", f"recommend {name}") if hop in hops]
        guards["peak_mb"] = max(hop["peak_mb"].get("total", 0.0) for hop in hops_of_model)
    candidate = Candidate(evaluation, lists[lists["user_id"].isin(tested)], guards, manifest["platform"])
    if not pooled:
        return candidate
    windows = tuple(fold["cut"] for fold in folder.read_json(run_files.BACKTEST)["folds"])
    return replace(candidate, pooled=replace(pooled[name], name=evaluation.name), windows=windows)


def read_tables_of_lists(
    tables: list[Path], truth: Path, reading: ReadSettings, metrics: list[str] | None, relevant: float | None
) -> list[Candidate]:
    """Evaluate tables of lists against one truth, and return them as candidates.

    The lists may come from any systems. Each candidate has the guardrail ``coverage``: the share of
    the items in any of these tables that this table names. So it depends on the other tables, and
    is not the coverage of a catalogue.

    Args:
        tables: at least two files with user_id, item_id, and rank or score.
        truth: the file with what the users chose.
        reading: how the tables and the truth are read.
        metrics: the names of the metrics. None: ndcg@10 and recall@10.
        relevant: the smallest value of a relevant row of the truth. None: every value above 0 is
            relevant.

    Raises:
        ConfigError: there are fewer than two tables, or a metric is unknown.
        InputError: a table cannot be read.
    """
    from recsys.evaluation.evaluate import evaluate_tables
    from recsys.evaluation.judging.metrics import parse_all
    from recsys.evaluation.settings import EvaluationSettings
    from recsys.evaluation.topk_tables import read_topk, read_truth

    if len(tables) < 2:
        raise ConfigError("name at least two tables.")
    names = tuple(map(str, parse_all(metrics or ["ndcg@10", "recall@10"])))
    settings = EvaluationSettings(metrics=names, relevant=relevant)
    truth_table = read_truth(truth, reading)
    lists = {label: read_topk(path, reading) for path, label in zip(tables, short_labels(tables), strict=True)}
    all_items = set().union(*(table["item_id"].unique() for table in lists.values()))
    candidates = []
    for label, table in lists.items():
        evaluation = evaluate_tables(table, truth_table, settings, name=label)
        for warning in evaluation.about["warnings"]:
            log.print(f"warning: {label}: {warning}")
        coverage = table["item_id"].nunique() / len(all_items)
        candidates.append(Candidate(evaluation, with_ranks(table), {"coverage": coverage}))
    return candidates


def with_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of lists with a column ``rank``. Its ids are no longer categorical.

    If the column is missing, it is computed per user from the scores: 1 for the highest score. Of
    equal scores, the earlier row of the table has the lower rank.
    """
    table = table.astype({column: object for column in ("user_id", "item_id") if table[column].dtype == "category"})
    if "rank" in table:
        return table
    ranks = table.groupby("user_id")["score"].rank(ascending=False, method="first").astype(int)
    return table.assign(rank=ranks)


def comparable_guards(candidates: list[Candidate]) -> dict[str, dict[str, float]]:
    """Return the guardrails that can be compared, as a dict: model -> guardrail -> value.

    Time and memory (:data:`MACHINE_COSTS`) are left out if the models ran on different machines.
    This is printed on stderr.
    """
    guards = {candidate.evaluation.name: candidate.guards for candidate in candidates}
    if len({candidate.platform for candidate in candidates}) == 1:
        return guards
    log.print("the runs are from different machines: their time and memory are not compared")
    return {
        name: {guard: value for guard, value in values.items() if guard not in MACHINE_COSTS}
        for name, values in guards.items()
    }


def guards_table(guards: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Return a table with one row per model: ``model``, and one column per guardrail.

    A missing value is NaN.

    Args:
        guards: model -> guardrail -> value.
    """
    import pandas as pd

    return pd.DataFrame([{"model": name, **values} for name, values in guards.items()])


def print_json(tables: dict[str, pd.DataFrame], choice: ModelChoice, fired: list[str]) -> None:
    """Print one JSON object to stdout: the tables, the choice, and the conditions that hold.

    The key ``means`` is a dict: model -> metric -> value. Each other table is a list of rows. The
    other keys are ``pick``, ``conclusive``, ``reasons`` and ``fired``. NaN becomes null.

    Args:
        tables: name -> table.
        choice: the chosen model, with the reasons.
        fired: a sentence per condition of ``--fail-if`` that holds.
    """
    record: dict[str, Any] = {
        name: table.to_dict(orient="index" if name == "means" else "records") for name, table in tables.items()
    }
    record |= {
        "pick": choice.pick,
        "conclusive": choice.conclusive,
        "reasons": choice.reasons,
        "fired": fired,
    }
    print(json.dumps(to_plain_json(record), ensure_ascii=False, allow_nan=False))


def print_tables(tables: dict[str, pd.DataFrame], primary: str) -> None:
    """Print the tables of a comparison, each below its title.

    Args:
        tables: name -> table, with the names of :func:`print_json`.
        primary: the metric that decides, for a title.
    """
    means = tables["means"].reset_index(names="model")
    print_table("Means (letters: the models that this one beats)", means.columns, _format_rows(means))
    for name, title in (("differences", "Differences"), (OVER_FOLDS, "Differences over all folds, by user")):
        if name in tables:
            print_table(
                title,
                ["difference", "metric", "size [95 %]", "p (Holm)", "effect size", "detectable", "users"],
                [_format_difference(row) for row in tables[name].itertuples()],
            )
    titles = {
        "agreement": "Agreement of the lists",
        "guardrails": "Guardrails",
        "most_changed": f"Users whose {primary} differs most",
    }
    for name, title in titles.items():
        print_table(title, tables[name].columns, _format_rows(tables[name]))


def _format_rows(table: pd.DataFrame) -> list[list[str]]:
    return [[_format_cell(value) for value in row] for row in table.itertuples(index=False)]


def _format_cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _format_difference(row: Any) -> list[str]:
    return [
        f"{row.model} - {row.against}",
        row.metric,
        f"{row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}]",
        f"{row.p_holm:.4f}",
        f"{row.effect_size:+.2f}",
        f"{row.detectable:.4f}",
        f"{row.users:,}",
    ]
