"""Thousands of calls that nobody means to type, and what must hold after every one of them.

    python bench/fuzz_verbs.py calls 2000      verbs with options at random, most of them of the right kind
    python bench/fuzz_verbs.py configs 2000    `recsys run` with configs of which one to four keys are changed
    python bench/fuzz_verbs.py damage 1000     runs and bundles of which files are damaged, then a verb that reads them
    python bench/fuzz_verbs.py paths 1000      verbs that write, to names that are taken, odd, linked or out of reach
    python bench/fuzz_verbs.py studies 200     `lab` and `tune` alone, to such names

After each call: the exit code is 0, 2 or 3; a code of 2 has one message without a traceback; the files of the user are
what they were; nothing half-written is left. A third argument is the first seed, so that one call can be repeated.
SIGTERM ends the set after the call that runs, and the section says how many were made.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import table, write_section

from recsys.cli import load_command, run_verb
from recsys.fingerprint import fingerprint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from interruptions import digest

SECONDS = 90
"""A call that takes longer is a fault."""

EVENTS = 900
"""Rows of the log. Some users have many and most have few, since some verbs need users with many events."""

MEMORY = 10 * 2**30

USERS_FILES = ("events.csv", "items.csv", "users.csv", "users.txt", "config.toml", "rules.toml", "truth.csv")
USERS_FILES += ("mine/thesis.txt", "mine/manifest.json")
"""What no call may change, whatever it is told to write there."""

NUMBERS = ["0", "1", "2", "3", "10", "-1", "3.5", "0.5", "1e-9", "1e400", "nan", "inf", "-inf", "9" * 30, "0x10", "1_0"]
WORDS = ["", " ", "x", "é", "[", "[bold]", "{}", "a=b", "=", "als", "ndcg@10", "i3", "u1", "u99", "\u2028", "a" * 300]
PATHS = [
    "events.csv", "items.csv", "users.csv", "users.txt", "config.toml", "rules.toml", "run", "bundle", "lists.csv",
    "truth.csv", "mine", "mine/thesis.txt", "nowhere", "nowhere/x", "new", "[ab]", "run/topk/popular.parquet",
    "run/report.html", "run/metrics.json", "bundle/bundle.json", "outcomes.csv", "a.txt", "b.txt", "link", "/dev/full",
]  # fmt: skip
MODELS = ["als", "popular", "recent", "itemknn", "content", "ease", "hybrid", "nobody"]
METRICS = ["ndcg@10", "recall@5", "mrr", "map@3", "auc", "rmse", "ndcg[gain=exp]@10", "ndcg@0", "ndcg@x", "precision"]
MEASURES = ["tau", "spearman", "rbo", "rbo[p=.9]", "overlap@3", "tau_ap", "footrule", "rbo[p=2]"]


def main(kind: str, count: str, first: str = "0") -> int:
    """Make ``count`` calls of one kind, print each fault with its seed, and return the number of faults."""
    # Some numbers of the fuzzer ask for all the memory there is.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable()
    codes: Counter[tuple[str, int]] = Counter()
    stop_signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    faults = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder, "clean")
        prepare(clean)
        before = {name: digest(clean / name) for name in USERS_FILES}
        for seed in range(int(first), int(first) + int(count)):
            place = Path(folder, "place")
            shutil.copytree(clean, place, symlinks=True)
            words, answers = KINDS[kind](np.random.default_rng(seed), place)
            expected = before | {name: digest(place / name) for name in USERS_FILES if kind == "configs"}
            code, complaints, _ = attempt(words, answers, place)
            complaints += [f"{name} has changed" for name in USERS_FILES if digest(place / name) != expected[name]]
            complaints += [f"{path} is left" for path in place.rglob(".*.recsys-*.*")]
            codes[words[0], code] += 1
            if complaints:
                faults += 1
                print(f"{kind} {seed}: recsys {words}\n  " + "\n  ".join(complaints), flush=True)
            shutil.rmtree(place)
            if sum(codes.values()) % 100 == 0:
                print(f"{sum(codes.values()):,} after {time.monotonic() - start:.0f} s", file=sys.stderr)
            if stop_signals:
                break
    write_report(kind, codes, faults, time.monotonic() - start)
    return faults


def attempt(words: list[str], answers: str, place: Path, seconds: int = SECONDS) -> tuple[int, list[str], str]:
    """Call a verb in ``place`` and return (exit code, what is wrong with how it ended, its messages).

    Args:
        words: the verb and its arguments.
        answers: what a person types.
        place: the folder to call it in.
        seconds: the time after which the call is stopped. 0: never.
    """
    printed, messages = io.StringIO(), io.StringIO()
    back = os.getcwd()
    keyboard = sys.stdin
    os.chdir(place)
    sys.stdin = io.StringIO(answers)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(seconds)
    try:
        with redirect_stdout(printed), redirect_stderr(messages):
            code = run_verb(words)
    except BaseException as error:
        code = 70
        messages.write(f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        os.chdir(back)
        sys.stdin = keyboard
    said = messages.getvalue()
    complaints = []
    if code not in (0, 2, 3):
        complaints.append(f"exit code {code}: {said[-1500:]}")
    if "Traceback" in said:
        complaints.append("a traceback")
    if code == 2 and not said.strip():
        complaints.append("no message")
    return code, complaints, said


def _stop(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def prepare(place: Path) -> None:
    """Write a small log with its tables, a run, a bundle, lists, and files of a user."""
    place.mkdir()
    rng = np.random.default_rng(0)
    events = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in np.sort(rng.integers(0, 1600, EVENTS)) ** 2 // 64_000],
            "item_id": [f"i{number}" for number in rng.integers(0, 25, EVENTS)],
            "value": rng.integers(1, 6, EVENTS),
            "timestamp": 1_600_000_000 + 3600 * rng.permutation(EVENTS),
        }
    )
    events.to_csv(place / "events.csv", index=False)
    items = {"item_id": [f"i{number}" for number in range(25)], "title": [f"Title {number}" for number in range(25)]}
    pd.DataFrame(items | {"genre": rng.choice(["war", "love", "war|love"], 25)}).to_csv(
        place / "items.csv", index=False
    )
    users = {"user_id": [f"u{number}" for number in range(40)], "country": rng.choice(["DE", "FR"], 40)}
    pd.DataFrame(users).to_csv(place / "users.csv", index=False)
    (place / "users.txt").write_text("u1\nu2\n")
    (place / "rules.toml").write_text('[[rule]]\nexclude = { genre = "war" }\n')
    (place / "config.toml").write_text(toml(config()))
    (place / "a.txt").write_text("i1\ni2\ni3\n")
    (place / "b.txt").write_text("i2\ni1\ni4\n")
    pd.DataFrame({"user_id": range(100), "arm": ["control", "b"] * 50, "outcome": rng.random(100)}).to_csv(
        place / "outcomes.csv", index=False
    )
    # The lab needs users with 16 ratings.
    ratings = pd.DataFrame({"user_id": np.repeat(np.arange(60), 20), "item_id": np.tile(np.arange(20), 60)})
    ratings.assign(value=rng.integers(1, 6, len(ratings))).to_csv(place / "ratings.csv", index=False)
    liked = events.iloc[EVENTS // 2 :].drop_duplicates(["user_id", "item_id"])
    liked.to_csv(place / "truth.csv", index=False)
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years of work")
    (place / "mine" / "manifest.json").write_text("{}")
    (place / "link").symlink_to("mine")
    clean = [
        "run config.toml",
        "bundle run bundle --model als",
        "recommend run --users users.txt --out lists.csv",
    ]
    for call in clean:
        # Kernels may be compiled for minutes here.
        code, _, messages = attempt(call.split(), "", place, seconds=0)
        if code:
            raise SystemExit(f"recsys {call} does not work: {messages}")


def config() -> dict[str, Any]:
    """Return a whole config, as nested tables."""
    return {
        "out": "run",
        "seed": 1,
        "data": {"events": "events.csv", "items": "items.csv", "users": "users.csv"},
        "split": {"rule": "time", "test": 0.2},
        "models": {"als": {"rank": 4, "iterations": 2}, "itemknn": {}, "content": {}, "popular2": {"model": "popular"}},
        "recommend": {"k": 5},
        "judge": {"metrics": ["ndcg@5", "recall@5"], "resamples": 100},
    }


# ------------------------------------------------------------------------------------------------ calls


def random_call(rng: np.random.Generator, place: Path) -> tuple[list[str], str]:
    """Return a call of any verb: arguments mostly of the right kind, each option now and then."""
    names = sorted(ARGUMENTS)
    name = str(rng.choice(names))
    words = name.split()
    for right in ARGUMENTS[name]:
        words.append(str(rng.choice(right if rng.random() < 0.9 else PATHS + WORDS)))
    for parameter in _options(name):
        if rng.random() < (0.9 if parameter.required or parameter.opts[0] in USUAL else 0.12):
            words.append(str(rng.choice(parameter.opts)))
            for _ in range(parameter.nargs * (not getattr(parameter, "is_flag", False))):
                words.append(_value_of(parameter.opts[0], rng))
    # Runs with models at their defaults would take most of the time and show nothing more.
    if name == "tune":
        words += ["--set", "tune.trials=2", "--set", 'tune.model="als"']
    if name == "lab":
        words += ["--pairs", "100"]
    return words, "".join(str(rng.choice(["y", "n", "?", "", "quit", "5"])) + "\n" for _ in range(6))


def _options(name: str) -> list[Any]:
    command = load_command()
    for part in name.split():
        command = command.commands[part]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    # Java would start, and outlive a call that takes too long.
    return [parameter for parameter in options if parameter.opts[0] != "--spark"]


def _value_of(option: str, rng: np.random.Generator) -> str:
    right = VALUES.get(option, NUMBERS)
    if option == "--set" and rng.random() < 0.8:
        return ".".join(_random_key(rng)) + "=" + json.dumps(_random_value(rng))
    return str(rng.choice(right if rng.random() < 0.9 else NUMBERS + WORDS + PATHS))


USUAL = ("--user",)
"""Options without which a verb has little to do."""

ARGUMENTS: dict[str, list[list[str]]] = {
    "report": [["run"]],
    "run": [["config.toml", "events.csv"]],
    "tune": [["config.toml"]],
    "route": [["config.toml", "events.csv"]],
    "check": [["config.toml", "events.csv", "items.csv", "truth.csv"]],
    "recommend": [["run", "bundle"]],
    "similar": [["run", "bundle"], ["i1", "i24", "i99", "Title 3"]],
    "explain": [["run", "bundle"]],
    "onboard": [["run", "bundle"]],
    "evaluate": [["lists.csv", "run/topk/popular.parquet"], ["truth.csv"]],
    "compare": [["run"]],
    "agree": [["a.txt", "lists.csv", "run/topk/popular.parquet"], ["b.txt", "run/topk/als.parquet"]],
    "lab": [["events.csv"]],
    "bundle": [["run"], ["new", "bundle"]],
    "update": [["bundle"], ["truth.csv"], ["new", "bundle"]],
    "doctor": [],
    "data make": [["new", "world"]],
    "ab plan": [],
    "ab assign": [["users.txt"]],
    "ab analyse": [["outcomes.csv"]],
}
VALUES: dict[str, list[str]] = {
    "--out": ["new", "new/x", *PATHS],
    "--items": ["items.csv", *PATHS],
    "--users": ["users.csv", "users.txt", "40", *PATHS],
    "--user": ["u1", "u2", "u99"],
    "--item": ["i1", "i99"],
    "--with": ["i1", "i1=5", "i2=x"],
    "--by": ["genre", "title", "country"],
    "--rules": ["rules.toml", *PATHS],
    "--model": MODELS,
    "--metric": METRICS,
    "-m": METRICS + MEASURES,
    "--measure": MEASURES,
    "--column": ["user_id=user_id", "user_id=item_id", "value=", "=x", "value=7", "genre=genre"],
    "--format": ["csv", "tsv", "jsonl", "parquet", "auto", "movielens"],
    "--delimiter": [",", ";", "::", "\t", ""],
    "--encoding": ["utf-8", "latin-1", "utf-16", "klingon"],
    "--time-unit": ["s", "ms", "iso", "yyyymmdd"],
    "--fail-if": ["ndcg@5 drops 0.1", "rbo drops 0.1", "coverage drops 10%", "ndcg@5 drops", "drops 1"],
    "--train": ["events.csv", "truth.csv"],
    "--truth": ["truth.csv"],
    "--against": ["run", "bundle"],
    "--missing-users": ["zero", "skip", "error"],
    "--ties": ["sort", "average"],
    "--convention": ["trec", "recbole", "recsys"],
    "--strategy": ["popular", "entropy", "random"],
    "--arm": ["a=1", "b=1", "a", "a=-1"],
    "--name": ["x", "test"],
    "--mean": ["0.1", "10"],
    "--lift": ["0.05", "0.5", "1"],
    "--daily": ["10", "1000"],
    "--power": ["0.8", "0.9"],
    "--expected": ["0.5", "0.6"],
    "-k": ["1", "3", "5", "25", "1000"],
    "--seed": ["0", "1"],
    "--pairs": ["100", "200"],
    "--questions": ["1", "3", "50"],
    "--diverse": ["0.1", "0.9"],
    "--calibrate": ["0.1", "0.9"],
    "--explore": ["0.1", "0.9"],
    "--relevant": ["1", "3"],
    "--sampled": ["5", "100"],
    "--split": ["run/split/train.parquet", "run/split/test.parquet", "events.csv", "truth.csv"],
    "--run": ["run"],
    "--refused": ["new.csv", "events.csv", "mine/thesis.txt"],
    "--events": ["100", "300"],
    "--size": ["1000,10,10", "x"],
    "--memory": ["4g", "1m", "x"],
}

# ---------------------------------------------------------------------------------------------- configs


def random_config(rng: np.random.Generator, place: Path) -> tuple[list[str], str]:
    """Write a config of which one to four keys are changed, or its text is, and return the call that runs it."""
    settings = config()
    settings["split"]["rule"] = str(rng.choice(["time", "time", "last", "fraction", "users", "items"]))
    if settings["split"]["rule"] != "time":
        del settings["split"]["test"]
    for _ in range(rng.integers(1, 5)):
        _change(settings, rng)
    text = toml(settings)
    if rng.random() < 0.1:
        at = int(rng.integers(0, len(text)))
        text = text[:at] + str(rng.choice(["[", '"', "\n", "=", "\0", "é", ","])) + text[at + int(rng.integers(0, 9)) :]
    (place / "config.toml").write_text(text)
    return [str(rng.choice(["run", "run", "run", "check", "route"])), "config.toml"], ""


def _change(settings: dict[str, Any], rng: np.random.Generator) -> None:
    *sections, key = _random_key(rng)
    table = settings
    if len(sections) > 1 and sections[1] == "../x" and rng.random() < 0.9:
        return
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            return
    if rng.random() < 0.1:
        table.pop(key, None)
    elif rng.random() < 0.03:
        table[key[:-1] + "e"] = 1
    elif key in RIGHT and rng.random() < 0.8:
        table[key] = RIGHT[key][int(rng.integers(0, len(RIGHT[key])))]
    else:
        table[key] = _random_value(rng)


def _random_key(rng: np.random.Generator) -> list[str]:
    section = str(rng.choice(list(KEYS)))
    key = str(rng.choice(KEYS[section].split()))
    if section == "models":
        kind = str(rng.choice(["als", "als", "itemknn", "content", "popular2", "ease", "bpr", "transitions", "../x"]))
        return ["models", kind, key]
    return [section, key] if section else [key]


KEYS = {
    "": "out engine seed",
    "data": "format columns item_columns user_columns user_fallback duplicates delimiter header encoding time_unit"
    " max_refused_share events items users",
    "split": "test at until folds n share history seed",
    "filter": "min_item_events min_user_events repeat",
    "weigh": "events transform cap half_life_days aggregate session_minutes",
    "models": "model rank iterations alpha reg nu beta seed decay recency_days solver neighbours shrink fields",
    "recommend": "k exclude_seen rules min_history everyone segment segment_prior fallback memory_mb",
    "judge": "metrics relevant resamples cold_start sampled candidates missing_users segments attribute baseline",
}


RIGHT: dict[str, list[Any]] = {
    "out": ["run", "new"],
    "seed": [0, 7],
    "format": ["csv", "auto"],
    "columns": [{"value": "timestamp"}, {"user_id": "item_id", "item_id": "user_id"}, {}],
    "engine": ["local"],
    "everyone": [True, False],
    "segments": [["country"], []],
    "fallback": ["popular", "recent", "segment", "none"],
    "missing_users": ["zero", "skip"],
    "baseline": ["popular", "recent", "als"],
    "rules": ["rules.toml"],
    "items": ["items.csv"],
    "users": ["users.csv"],
    "delimiter": [","],
    "encoding": ["utf-8", "latin-1"],
    "user_fallback": ["timestamp"],
    "until": ["2020-09-25"],
    "nu": [0.0, 1.0],
    "beta": [0.0, 1.0],
    "duplicates": ["first", "last", "most frequent"],
    "header": [True],
    "time_unit": ["s", "ms"],
    "max_refused_share": [0.0, 1.0],
    "test": [0.1, 0.5, 0.99],
    "at": ["2020-09-18", 1_600_500_000],
    "folds": [1, 2],
    "n": [1, 3, 50],
    "share": [0.1, 0.9],
    "history": [0.5, 0.01],
    "candidates": ["train", "items", "cold"],
    "min_item_events": [0, 3, 30],
    "min_user_events": [0, 3, 30],
    "repeat": [True, False],
    "events": ["events.csv"],
    "transform": ["log1p"],
    "cap": [0.5, 3, 1e30],
    "half_life_days": [1, 1e-3, 1e6],
    "aggregate": ["sum", "last", "max", "count"],
    "session_minutes": [1, 1e6],
    "model": ["als", "popular", "recent", "itemknn", "ease", "content", "random", "rp3beta", "transitions"],
    "rank": [1, 8, 40],
    "iterations": [1, 3],
    "alpha": [0.0, 1.0, 1e6],
    "reg": [0.0, 1e-12, 1.0, 1e6],
    "solver": ["cg", "cholesky"],
    "decay": [0.5, 1.0],
    "recency_days": [1.0, 1e-6],
    "neighbours": [1, 100],
    "shrink": [0, 1e9],
    "fields": [{"genre": 1.0}, ["genre"], {"title": 1}],
    "memory_mb": [1, 1000],
    "min_history": [0, 2, 1000],
    "k": [1, 5, 25, 1000],
    "exclude_seen": [True, False],
    "all_users": [True, False],
    "segment": ["country", ["country"]],
    "metrics": [["ndcg@5", "recall@5"], ["map@3", "mrr@3"], ["hit_rate@1"], ["ndcg[gain=exp]@5"]],
    "relevant": [0, 4, 5.0, 6],
    "resamples": [100, 500],
    "cold_start": [True, [1, 2], [0, 3]],
    "sampled": [5, 100],
}
"""Values of the right kind for a key, at their ends too."""


def _random_value(rng: np.random.Generator) -> Any:
    """Return a value of any type, more often one that some key takes."""
    values: list[Any] = [
        0, 1, 2, 5, 100, -1, 10**12, 2**63 - 1, 0.5, 1e-12, 1e300, float("nan"), float("inf"), True, False, "", "x",
        "csv", "auto", "time", "last", "fraction", "sum", "max", "log1p", "first", "events.csv", "items.csv", "mine",
        "als", "popular", "hybrid", "blend", "itemknn", "cg", "2020-10-01", "genre", "../up", "é\n", [], ["ndcg@5"],
        ["ndcg@5", "ndcg@5"], [1, "x"], {}, {"user_id": "item_id"}, {"buy": 1.0}, {"genre": 1.0}, [["als"]],
    ]  # fmt: skip
    return values[int(rng.integers(0, len(values)))]


def toml(settings: dict[str, Any], name: str = "") -> str:
    """Return nested tables as TOML."""
    lines = [f"[{name}]"] if name else []
    tables = []
    for key, value in settings.items():
        quoted = json.dumps(key)
        if isinstance(value, dict):
            tables.append(toml(value, f"{name}.{quoted}" if name else quoted))
        else:
            lines.append(f"{quoted} = {_literal(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_literal(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_literal(part)}" for key, part in value.items()) + "}"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


# ----------------------------------------------------------------------------------------------- damage


def random_damage(rng: np.random.Generator, place: Path) -> tuple[list[str], str]:
    """Damage one to three files of the run or the bundle, and return a call that reads it."""
    target = place / str(rng.choice(["run", "bundle"]))
    for _ in range(rng.integers(1, 4)):
        files = [path for path in sorted(target.rglob("*")) if path.is_file()]
        # Pictures are not read back, and there are many.
        files = [path for path in files if path.suffix not in (".png", ".svg", ".html")]
        _damage(files[int(rng.integers(0, len(files)))], files, rng)
    if target.name == "bundle" and rng.random() < 0.7:
        _list_anew(target)
    name = target.name
    calls = [
        ["recommend", name, "--user", "u1"], ["recommend", name, "--users", "users.txt", "--out", "new.csv"],
        ["similar", name, "i1"], ["similar", name, "--user", "u1"], ["explain", name, "--user", "u1", "--item", "i1"],
        ["onboard", name], ["report", name], ["compare", name], ["bundle", name, "new"],
        ["check", "--split", "run/split/train.parquet", "run/split/test.parquet"],
        ["update", "bundle", "truth.csv", "new"], ["update", "bundle", "truth.csv", "bundle"],
        ["evaluate", f"{name}/topk/als.parquet", "truth.csv"],
    ]  # fmt: skip
    return calls[int(rng.integers(0, len(calls)))], "y\nn\n\n"


def _damage(path: Path, files: list[Path], rng: np.random.Generator) -> None:
    data = path.read_bytes()
    accident = str(rng.choice(["flip", "cut", "empty", "remove", "copy", "json", "json", "json", "insert"]))
    at = int(rng.integers(0, max(len(data), 1)))
    if accident == "flip" and data:
        data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(0, 8)))]) + data[at + 1 :]
    elif accident == "cut":
        data = data[:at]
    elif accident == "empty":
        data = b""
    elif accident == "insert":
        data = data[:at] + b"\x00\xff]}" + data[at:]
    elif accident == "copy":
        data = files[int(rng.integers(0, len(files)))].read_bytes()
    elif accident == "remove":
        path.unlink()
        return
    elif accident == "json":
        texts = [file for file in files if file.suffix == ".json"]
        path = texts[int(rng.integers(0, len(texts)))]
        try:
            data = json.dumps(_edit(json.loads(path.read_text()), rng)).encode()
        except ValueError:
            data = b"null"
    path.write_bytes(data)


def _edit(value: Any, rng: np.random.Generator) -> Any:
    """Replace, remove or add one part of a JSON document, at any depth."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = str(rng.choice(list(value)))
        if rng.random() < 0.15:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: _edit(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = int(rng.integers(0, len(value)))
        return [*value[:at], _edit(value[at], rng), *value[at + 1 :]]
    odd: list[Any] = [None, 0, -1, 10**30, 1e308, "", "x", "../x", "/etc/passwd", [], {}, [[]], {"x": 1}, True, "nan"]
    return odd[int(rng.integers(0, len(odd)))]


def _list_anew(bundle: Path) -> None:
    """Write the checksums of a bundle again, as somebody does who wants to deceive its reader."""
    try:
        card = json.loads((bundle / "bundle.json").read_text())
        files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
        named = {path.relative_to(bundle).as_posix(): fingerprint(path) for path in files}
        card["files"] = {name: value for name, value in named.items() if name not in ("bundle.json", "_SUCCESS")}
        (bundle / "bundle.json").write_text(json.dumps(card))
    except (OSError, ValueError, TypeError):
        return


# ------------------------------------------------------------------------------------------------ paths


def random_path(rng: np.random.Generator, place: Path, verbs: tuple[str, ...] | None = None) -> tuple[list[str], str]:
    """Return a call that writes to a name which is free, taken by anything, odd, linked or out of reach.

    Args:
        rng: draws the call and the name.
        place: the folder of the call.
        verbs: the verbs to choose from. None: all.
    """
    names = [
        "new", "new/deep/er", "mine", "mine/", "./mine", "mine/thesis.txt", "mine/new", "link", "link/new", "dangling",
        "run", "run/", "run/inside", "bundle", "bundle/inside", "events.csv", "events.csv/new", "config.toml", ".",
        "..", "", " ", "[ab]", "*", "?", "a b", "é", "-x", "~", "$HOME", ".hidden", "new\n", "a" * 256,
        ".new.recsys-old",
        "/dev/null/x", "/proc/new", "/dev/full", "half", "half/", "world", "users.txt", "lists.csv", "truth.csv",
        "rules.toml", "items.csv", "sealed", "sealed/new", "loop", "hard.csv",
    ]  # fmt: skip
    (place / "dangling").symlink_to("gone")
    (place / "loop").symlink_to("loop")
    shutil.copytree(place / "run", place / "half")
    (place / "half" / "notes.txt").write_text("of the user")
    (place / "world").mkdir()
    (place / "world" / "world.json").write_text("{}")
    (place / "sealed").mkdir(mode=0o500)
    os.link(place / "events.csv", place / "hard.csv")
    name = str(rng.choice(names))
    calls = [
        ["run", "config.toml", "--set", f"out={json.dumps(name)}"],
        ["bundle", "run", name], ["bundle", "run", name, "--model", "popular2"],
        ["update", "bundle", "truth.csv", name], ["recommend", "run", "--users", "users.txt", "--out", name],
        ["data", "make", name, "--users", "20", "--items", "10", "--events", "100"],
        ["lab", "ratings.csv", "--pairs", "100", "-m", "tau_b", "-m", "rbo", "--out", name],
        ["check", "events.csv", "--refused", name], ["agree", "lists.csv", "lists.csv", "--out", name],
        ["ab", "assign", "users.txt", "--name", "x", "--out", name],
        ["tune", "config.toml", "--set", "tune.trials=2", "--set", 'tune.model="itemknn"', "--out", name],
    ]  # fmt: skip
    if verbs is not None:
        calls = [call for call in calls if call[0] in verbs]
    return calls[int(rng.integers(0, len(calls)))], ""


KINDS: dict[str, Callable[[np.random.Generator, Path], tuple[list[str], str]]] = {
    "calls": random_call,
    "configs": random_config,
    "damage": random_damage,
    "paths": random_path,
    "studies": partial(random_path, verbs=("lab", "tune")),
}


def write_report(kind: str, codes: Counter[tuple[str, int]], faults: int, seconds: float) -> None:
    """Print how the calls ended, verb by verb, and write the section of the results."""
    verbs = sorted({verb for verb, _ in codes})
    rows = [[verb, *(f"{codes[verb, code]:,}" for code in (0, 2, 3))] for verb in verbs]
    body = f"{sum(codes.values()):,} calls, {faults} faults.\n\n" + table(["verb", "done", "refused", "gate"], rows)
    print(f"{body}\n{seconds:.0f} s", file=sys.stderr)
    write_section(f"fuzz_{kind}", TITLES[kind], f"python bench/fuzz_verbs.py {kind} {sum(codes.values())}", body)


TITLES = {
    "calls": "Verbs called at random",
    "configs": "Configs changed at random",
    "damage": "Runs and bundles damaged at random",
    "paths": "Results written to names at random",
    "studies": "Results of lab and tune written to names at random",
}


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
