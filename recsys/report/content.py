"""What a report says: a run folder's JSON turned into sentences and tables of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recsys.evaluation.beyond import DEFINITIONS
from recsys.evaluation.segments import LEAST_USERS
from recsys.runfolder import RunFolder

BASELINES = ("random", "popular", "recent")


@dataclass(frozen=True)
class Table:
    """A caption, column heads, rows of text; the columns from ``numbers`` on are numbers."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    numbers: int = 1


@dataclass(frozen=True)
class Section:
    """A headed part: paragraphs, warnings, tables, and the name of the figure that belongs to it."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figure: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Content:
    """``verdict`` stands first. ``metrics``: metrics.json, for the figures."""

    title: str
    verdict: str
    sections: list[Section]
    metrics: dict[str, Any]


def gather(folder: RunFolder) -> Content:
    """Read a run folder and say what it shows."""
    metrics, manifest = folder.read_json("metrics.json"), folder.read_json("manifest.json")
    data, split = folder.read_json("data.json"), folder.read_json("split.json")
    sections = [
        _models(metrics),
        _differences(metrics),
        _segments(metrics),
        _beyond(metrics),
        _data(data),
        _split(split),
        _users(metrics),
        _costs(manifest),
        _definitions(metrics),
        _reproduce(manifest, (folder.path / "config.toml").read_text(encoding="utf-8")),
    ]
    return Content(folder.path.resolve().name, verdict(metrics), sections, metrics)


def verdict(metrics: dict[str, Any]) -> str:
    """Return the plain sentence that a report opens with: the best model against the baseline."""
    about, models = metrics["about"], metrics["models"]
    primary, baseline = about["primary"], about["baseline"]
    own = [name for name in models if name not in BASELINES] or [name for name in models if name != baseline]
    scored = [name for name in own if models[name][primary]["mean"] is not None]
    if not scored:
        return f"No user could be judged by {primary}: nothing relevant in the test part."
    best = max(scored, key=lambda name: models[name][primary]["mean"])
    mean = f"{best} reaches {primary} = {models[best][primary]['mean']:.4f}"
    if baseline is None or best == baseline:
        return f"{mean} {_interval(models[best][primary]['ci95'])}; there is no baseline to compare it with."
    difference = metrics["differences"][best][primary]
    low, high = difference["ci95"]
    size = f"{difference['mean']:+.4f} {primary} {_interval([low, high], sign=True)}"
    over, groups = f"over {difference['users']:,} users", _by_history(metrics, best)
    if low > 0:
        return f"{best} beats {baseline} by {size} {over}.{groups}"
    if high < 0:
        return f"{best} is worse than {baseline}: {size} {over}.{groups}"
    return f"No difference shown between {best} and {baseline}: {size} {over}.{groups}"


def _by_history(metrics: dict[str, Any], model: str) -> str:
    """Return a sentence on the groups of users by history, where at least two are large enough to speak of."""
    about = metrics["about"]
    found: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for level, cells in about["segment_differences"]["history"].items():
        cell = cells[model][about["primary"]]
        if cell["users"] >= LEAST_USERS:
            low, high = cell["ci95"]
            found["better" if low > 0 else "worse" if high < 0 else "no difference shown"].append(level)
    if sum(map(len, found.values())) < 2:
        return ""
    clauses = (f"{how} for {' and '.join(levels)}" for how, levels in found.items() if levels)
    return f" By items in the user's history: {'; '.join(clauses)}."


def _models(metrics: dict[str, Any]) -> Section:
    names = list(metrics["about"]["definitions"])
    users = max(cell["users"] for model in metrics["models"].values() for cell in model.values())
    rows = [[model, *(_mean(cells[name]) for name in names)] for model, cells in metrics["models"].items()]
    engine = metrics["about"]["engine"]
    text = f"Means over {users:,} users with 95 % bootstrap intervals over users, on the {engine} engine."
    return Section("Models", [text], tables=[Table("Metric by model", ["model", *names], rows)])


def _differences(metrics: dict[str, Any]) -> Section:
    about = metrics["about"]
    names, baseline = list(about["definitions"]), about["baseline"]
    if not metrics["differences"]:
        return Section("Differences", [f"There is no baseline in this run ([judge] baseline = {baseline!r})."])
    rows = [
        [model, *(_mean(cells[name], sign=True) for name in names)] for model, cells in metrics["differences"].items()
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
    return Section("Differences", [text], tables=tables, figure="differences")


def _tested(cell: dict[str, Any]) -> list[str]:
    p, effect, least = cell["p_holm"], cell["effect_size"], cell["detectable"]
    return [
        _mean(cell, sign=True),
        "–" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}",
        "–" if effect is None else f"{effect:+.2f}",
        "–" if least is None else f"{least:.4f}",
        f"{cell['users']:,}",
    ]


def _segments(metrics: dict[str, Any]) -> Section:
    about = metrics["about"]
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
    return _mean(cell) + mark


def _gap(found: dict[str, Any]) -> str:
    if found["gap"] is None:
        return "–"
    return f"{found['gap']:.4f} {_interval(found['ci95'], sign=True)}\n{found['best']} over {found['worst']}"


def _beyond(metrics: dict[str, Any]) -> Section:
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


def _data(data: dict[str, Any]) -> Section:
    refused = data["refused"]
    rows = [
        ["events accepted", f"{data['events']:,}"],
        ["rows refused", f"{refused['total']:,}" + _reasons(refused["by_reason"])],
        ["users", f"{data['users']:,}"],
        ["items", f"{data['items']:,}"],
        ["empty cells", f"{data['sparsity']:.3%}"],
        ["median events a user", f"{data['median_events_per_user']:,.0f}"],
        ["median events an item", f"{data['median_events_per_item']:,.0f}"],
        ["Gini of events over items", f"{data['gini_items']:.3f}"],
        ["events on the top 1 % of items", f"{data['top_1_percent_share']:.1%}"],
    ]
    rows += [
        ["repeats of a (user, item)", f"{data['repeats']:,}"],
        ["rows equal to an earlier one", f"{data['exact_duplicates']:,}"],
    ]
    busy = data["busiest_users"]
    if busy["users"]:
        share = f"{busy['share_of_events']:.1%} of the events"
        rows.append([f"users with more than {busy['more_than']:,.0f} events: machines?", f"{busy['users']:,}, {share}"])
    if data["span"]:
        rows.append(["time span (UTC)", " to ".join(data["span"])])
        gaps = data["gaps"]
        longest = f", {gaps['longest']:,} of them from {gaps['from']} to {gaps['to']}" if gaps["longest"] else ""
        rows.append(["days without an event", f"{gaps['empty_days']:,}{longest}"])
    rows += [[f"rows of the {name} table", f"{size:,}"] for name, size in data["tables"].items()]
    return Section("Data", [f"Read from {data['source']}."], tables=[Table("Data card", ["what", "value"], rows)])


def _split(split: dict[str, Any]) -> Section:
    settings = ", ".join(f"{key} = {value}" for key, value in split["parameters"].items() if value is not None)
    text = f"Rule: {split['rule']} ({settings})" + (f"; cut at {split['cut']} (UTC)." if split["cut"] else ".")
    users, items, outside = split["test_users"], split["test_items"], split["test_outside_candidates"]
    total = users["warm"] + users["cold"]
    sentences = [
        text,
        f"Of {total:,} tested users {users['warm']:,} are warm (they have a history) and {users['cold']:,} are cold."
        f" Of {items['warm'] + items['cold']:,} tested items {items['cold']:,} have no train event.",
    ]
    early = split["test_rows_before_train_end"]
    parts = [
        [name, *(f"{split[name][key]:,}" for key in ("rows", "pairs", "users", "items")), _span(split[name])]
        for name in ("train", "history", "test")
    ]
    audit = [
        ["rows in both history and test (must be 0)", f"{split['shared_rows']:,}"],
        ["(user, item) pairs in both, at any time", f"{split['repeated_pairs']:,}"],
        ["test rows earlier than the latest train row", "no timestamps" if early is None else f"{early:.1%}"],
        ["test rows whose item is no candidate", f"{outside['rows']:,} ({outside['share_of_rows']:.1%})"],
        ["train users without a test row", f"{split['users_wholly_in_train']:,}"],
        ["candidates", f"{split['candidates']:,}"],
        [
            "events that moved to other items between train and test (by chance alone)",
            f"{split['drift']['items_moved']:.1%} ({split['drift']['items_moved_by_chance']:.1%})",
        ],
        ["mean value in train, in test", ", ".join(f"{mean:.3g}" for mean in split["drift"]["mean_value"])],
    ]
    audit += [
        [f"removed by {name}", f"{gone['rows']:,} rows"] for name, gone in split["filters"].items() if gone["rows"]
    ]
    tables = [
        Table("Parts", ["part", "events", "pairs", "users", "items", "time (UTC)"], parts),
        Table("Leakage audit", ["what", "value"], audit),
    ]
    return Section("Split", sentences, warnings=split["warnings"], tables=tables)


def _users(metrics: dict[str, Any]) -> Section:
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


def _costs(manifest: dict[str, Any]) -> Section:
    roles = [
        role for role in ("python", "jvm", "workers", "total") if any(role in h["peak_mb"] for h in manifest["hops"])
    ]
    rows = [
        [hop["name"], f"{hop['seconds']:.1f}", *(f"{hop['peak_mb'].get(role, 0):,.0f}" for role in roles)]
        for hop in manifest["hops"]
    ]
    rows.append(["all", f"{sum(hop['seconds'] for hop in manifest['hops']):.1f}", *([""] * len(roles))])
    heads = ["step", "seconds", *(f"{role}, peak MiB" for role in roles)]
    return Section("Time and memory", [f"On {manifest['platform']}."], tables=[Table("Cost of each step", heads, rows)])


def _definitions(metrics: dict[str, Any]) -> Section:
    rows = [[name, text] for name, text in metrics["about"]["definitions"].items()]
    return Section("Metric card", tables=[Table("What each metric means", ["metric", "definition"], rows, numbers=2)])


def _reproduce(manifest: dict[str, Any], config: str) -> Section:
    rows = [
        ["recsys", manifest["recsys"]],
        ["commit", manifest["commit"] or "not a git checkout"],
        ["Python", manifest["python"]],
        *([name, version] for name, version in manifest["packages"].items()),
        ["command", manifest["command"]],
        ["seed", str(manifest["seed"])],
        *([f"contents of {path}", digest] for path, digest in manifest["data"].items()),
        ["finished", manifest["finished"]],
    ]
    text = "The configuration with every default spelled out is config.toml in this folder:"
    return Section("Reproduce", [text], tables=[Table("Versions", ["what", "value"], rows, numbers=2)], code=config)


def _mean(cell: dict[str, Any], sign: bool = False) -> str:
    if cell["mean"] is None:
        return "–"
    return f"{cell['mean']:{'+' if sign else ''}.4f} {_interval(cell['ci95'], sign)}"


def _interval(ends: list[float | None], sign: bool = False) -> str:
    form = "+.4f" if sign else ".4f"
    return "" if ends[0] is None or ends[1] is None else f"[{ends[0]:{form}}, {ends[1]:{form}}]"


def _span(part: dict[str, Any]) -> str:
    return f"{part['from']} to {part['to']}" if "from" in part else "–"


def _reasons(by_reason: dict[str, int]) -> str:
    return f" ({', '.join(f'{reason}: {count:,}' for reason, count in by_reason.items())})" if by_reason else ""
