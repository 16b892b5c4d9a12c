"""What `recsys run LOG` chooses by itself, beside published rows and beside every other model of the package.

    python bench/choice.py [--cpu | --no-limit] [LOG …]     some minutes a log, gowalla half an hour;
                                                           writes a section for each

LOG is citeulike, ml-time, ml-fraction or gowalla; without any, all four. Each log is run by a config that names the
files, the split and the metrics, and no model, so that engine, models and settings are the package's own choice, made
without the test part. ``citeulike`` and ``gowalla`` stand beside published rows on the same split; both splits of
``ml-latest-small`` beside a second run, which has every other kind of model with its defaults.

Everything runs on one thread. ``--cpu`` counts the time limit of the hybrid in CPU seconds, which is what an idle core
would give it: for a machine that has other work. With ``--no-limit`` its search ends when no step helps. The data is
found by RECSYS_DATA, or ../shared/data.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from citeulike import PUBLISHED as CITEULIKE
from gowalla import PUBLISHED as GOWALLA
from results import table, write_section

from recsys import run_files
from recsys.cli import main as cli
from recsys.evaluation.testing.significance import mean_ci
from recsys.models import KINDS
from recsys.models.combining import search
from recsys.runfolder import RunFolder

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))
WORK = Path("runs/bench-choice")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
OUT_OF_CONTEST = ("random", "popular", "recent", "repeat", "blend", "hybrid", "sasrec")
RIVALS = [kind for kind in KINDS if kind not in OUT_OF_CONTEST]
"""Kinds of the second run.

Every run has the baselines, and ``repeat`` needs lists that may name what was seen. ``sasrec`` trains for minutes, and
``bench/sequential.py`` has it beside the closed forms.
"""

MOVIELENS = {"data": {"events": f"{DATA}/ml-latest-small"}}


@dataclass(frozen=True)
class Log:
    """A log with the settings that say how it is judged.

    Attributes:
        settings: section -> key -> value of the config, no models among them.
        published: name -> the means of ``metrics``, on the same split.
        bar: the means of ``metrics`` that the choice should reach, from this package with settings chosen by hand or
            by an earlier search; empty if there are none.
        rivals: whether a second run has every other kind of model.
    """

    settings: dict[str, dict]
    metrics: tuple[str, ...]
    published: dict[str, tuple[float, ...]]
    bar: tuple[float, ...] = ()
    rivals: bool = False


def files_of(folder: str, suffix: str = "") -> dict[str, str]:
    """Return the section of a split that somebody else made."""
    parts = {part: f"{DATA}/{folder}/{part}{suffix}.parquet" for part in ("train", "test")}
    return {"rule": "files"} | parts


LOGS = {
    "citeulike": Log(
        {
            "data": {"items": f"{WORK}/articles.parquet"},
            "split": files_of("citeulike-t", "_p10"),
            "recommend": {"k": 300},
        },
        ("recall@50", "recall@100", "recall@300"),
        CITEULIKE,
        (0.3253, 0.4203, 0.5779),
    ),
    "ml-time": Log(MOVIELENS | {"split": {"rule": "time"}}, ("ndcg@10", "recall@10"), {}, rivals=True),
    "ml-fraction": Log(MOVIELENS | {"split": {"rule": "fraction"}}, ("ndcg@10", "recall@10"), {}, rivals=True),
    "gowalla": Log(
        {"split": files_of("gowalla"), "recommend": {"k": 20}},
        ("recall@20", "ndcg@20"),
        GOWALLA,
        (0.1951, 0.1633),
    ),
}


def write_articles() -> None:
    """Write the words of each article as a text, each as often as it occurs."""
    words = pd.read_parquet(DATA / "citeulike-t" / "words.parquet")
    words["text"] = [f"{word} " * count for word, count in zip(words["word"], words["count"], strict=True)]
    texts = words.groupby("item_id")["text"].sum().reset_index()
    texts.to_parquet(WORK / "articles.parquet")


def run(name: str, log: Log, models: dict[str, dict], limit: list[str]) -> tuple[RunFolder, float]:
    """Run a config in a process of its own, and return its folder and its CPU seconds.

    A run that is there already, from a call that was cut short, is not repeated: remove runs/bench-choice to do so.

    Args:
        name: the name of the run folder.
        models: kind -> settings. Empty: the run chooses.
        limit: the option that says what the time limit of the hybrid counts, or nothing.
    """
    sections = log.settings | {"judge": {"metrics": list(log.metrics), "cold_start": []}}
    lines = [f'out = "{WORK / name}"']
    for section, values in (sections | {f"models.{kind}": params for kind, params in models.items()}).items():
        lines += [f"[{section}]", *(f"{key} = {format_toml(value)}" for key, value in values.items())]
    config = WORK / f"{name}.toml"
    config.write_text("\n".join(lines) + "\n")
    measured = WORK / f"{name}.seconds"
    if not measured.exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = os.environ | dict.fromkeys(THREADS, "1")
        child = [sys.executable, __file__, "--child", *limit, str(config)]
        subprocess.run(child, check=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        measured.write_text(f"{seconds:.0f}")
    return RunFolder.open(str(WORK / name)), float(measured.read_text())


def format_toml(value) -> str:
    """Return a text, a number or a list of them as TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(format_toml, value))}]"
    return str(value)


def run_child(config: str, limit: list[str]) -> None:
    """Do what ``recsys run CONFIG`` does, in this process."""
    sys.argv = ["recsys", "run", config]
    with contextlib.ExitStack() as patches:
        if limit == ["--cpu"]:
            patches.enter_context(mock.patch.object(search, "clock", time.process_time))
        if limit == ["--no-limit"]:
            patches.enter_context(mock.patch.object(search.Deadline, "is_over", return_value=False))
        cli()


def values_of(folder: RunFolder, metrics: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Return model -> the metrics of each tested user, by user."""
    values = folder.read_table(run_files.PER_USER, ["model", "user_id", *metrics])
    return {str(name): part.set_index("user_id")[list(metrics)] for name, part in values.groupby("model")}


def format_difference(values: pd.Series, others: pd.Series) -> str:
    """Return the mean difference of a metric over users, with its interval."""
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*mean_ci((values - others).to_numpy()))


def describe(record: dict[str, Any]) -> str:
    """Return in sentences what a hybrid chose and why."""
    parts = sorted(record["parts"].items(), key=lambda part: -part[1]["ndcg@100"])
    tried = "; ".join(f"{kind} {part['ndcg@100']:.4f} {part['params']}, of {part['tried']}" for kind, part in parts)
    sentences = [
        f"Weights: {record['weights']}, because {record['why']}.",
        f"By length of history: {record.get('by_history', 'the same')}.",
        f"New items: {record.get('new_items', {}).get('weights', 'no choice')}.",
        f"Parts, by NDCG@100 of hidden likes: {tried}.",
        f"Left out: {', '.join(record['left_out']) or 'none'}.",
    ]
    if "stopped" in record:
        sentences.append(f"Search: {record['stopped']}.")
    return " ".join(sentences)


def read_record(folder: RunFolder) -> dict[str, Any]:
    """Return what the hybrid of a run, which stands before its fallback, recorded of its choice."""
    card = f"{run_files.model_folder('hybrid')}/hybrid/{run_files.MODEL_CARD}"
    return folder.read_json(card)["record"]


def measure(name: str, limit: list[str]) -> None:
    """Run a log, and write its section."""
    log = LOGS[name]
    folder, seconds = run(name, log, {}, limit)
    record = read_record(folder)
    values = values_of(folder, log.metrics)
    known = values["hybrid"].index.isin(folder.read_table(run_files.split_part("history"), ["user_id"])["user_id"])
    chosen = values["hybrid"]
    if log.rivals:
        models = {kind: {} for kind in RIVALS}
        # The fallback is that of a run without models on a log with times. Whom a model can score, it serves: the
        # trial of ``min_history`` would fit each one twice.
        fallback = {"recommend": {"fallback": "recent", "min_history": 0}}
        rivals, _ = run(f"{name}-rivals", replace(log, settings=log.settings | fallback), models, limit)
        values |= {kind: part for kind, part in values_of(rivals, log.metrics).items() if kind in RIVALS}
    order = sorted(values, key=lambda kind: -values[kind][log.metrics[0]].mean())
    rows = []
    for kind in order:
        means = [f"{values[kind][metric].mean():.4f}" for metric in log.metrics]
        first = log.metrics[0]
        difference = "" if kind == "hybrid" else format_difference(chosen[first], values[kind][first])
        of_known = f"{values[kind][first].loc[chosen.index][known].mean():.4f}"
        rows.append([f"**{kind}**" if kind == "hybrid" else kind, *means, difference, of_known])
    rows += [
        [f"{kind}, published", *(f"{mean:.4f}" for mean in means), "", ""] for kind, means in log.published.items()
    ]
    if log.bar:
        rows.append(["to be reached", *(f"{mean:.4f}" for mean in log.bar), "", ""])
    body = table(["model", *log.metrics, f"hybrid minus it, {log.metrics[0]}", "known users"], rows)
    body += (
        f"\n\n{len(chosen):,} users, of whom {known.sum():,} are known: they have a history, and the last column is the"
        f" {log.metrics[0]} of their lists. The others get the fallback. The run that chose took {seconds:,.0f} CPU"
        " seconds on one thread. "
    )
    body += describe(record)
    command = " ".join(["python bench/choice.py", *limit, name])
    write_section(f"choice-{name}", f"The choice of `recsys run`: {name}", command, body)


def main() -> None:
    """Measure the named logs."""
    words = sys.argv[1:]
    limit = [word for word in words if word in ("--cpu", "--no-limit")]
    names = [word for word in words if not word.startswith("--")]
    if "--child" in words:
        run_child(names[0], limit)
        return
    WORK.mkdir(parents=True, exist_ok=True)
    write_articles()
    for name in names or LOGS:
        measure(name, limit)


if __name__ == "__main__":
    main()
