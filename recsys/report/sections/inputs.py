"""The sections on the input and the cost of a run: data, split, rules, time and memory, versions."""

from __future__ import annotations

from typing import Any

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Details, Drawing, ReportTable, Section
from recsys.report.run_reader import Run

MIN_SHARE = 0.01
"""Smallest share of the run time that a step must have to be in the figure of the costs."""


def data_overview(run: Run) -> Section:
    """Return the section "Data": the properties of the log, and the curve of the long tail."""
    data = run.folder.read_json(run_files.DATA_CARD)
    refused = data["refused"]
    rows = [
        ["events accepted", f"{data['events']:,}"],
        ["rows refused", f"{refused['total']:,}" + _format_reasons(refused["by_reason"])],
        ["users", f"{data['users']:,}"],
        ["items", f"{data['items']:,}"],
        ["empty cells", f"{data['sparsity']:.3%}"],
        ["median events per user", f"{data['median_events_per_user']:,.0f}"],
        ["median events per item", f"{data['median_events_per_item']:,.0f}"],
        ["Gini of events over items", f"{data['gini_items']:.3f}"],
        ["events on the top 1 % of items", f"{data['top_1_percent_share']:.1%}"],
    ]
    rows += _format_values(data.get("values"))
    rows += [
        ["repeated (user, item) pairs", f"{data['repeats']:,}"],
        ["rows equal to an earlier row", f"{data['exact_duplicates']:,}"],
    ]
    busy = data["busiest_users"]
    if busy["users"]:
        share = f"{busy['share_of_events']:.1%} of the events"
        rows.append(
            [
                f"users with more than {busy['more_than']:,.0f} events (machines?)",
                f"{busy['users']:,}, {share}",
            ]
        )
    if data["span"]:
        rows.append(["time span (UTC)", " to ".join(data["span"])])
        gaps = data["gaps"]
        longest = ""
        if gaps["longest"]:
            longest = f", {gaps['longest']:,} of them from {gaps['from']} to {gaps['to']}"
        rows.append(["days without an event", f"{gaps['empty_days']:,}{longest}"])
    rows += [[f"rows of the {name} table", f"{size:,}"] for name, size in data["tables"].items()]
    rows += [
        [f"further rows of ids in the {name} table, settled by [data] duplicates", f"{count:,}"]
        for name, count in data.get("duplicates", {}).items()
    ]
    table = ReportTable("Data card", ["property", "value"], rows, numbers=2)
    source = f"Read from {data['source']}."
    likes = run.likes.to_numpy()
    if not likes.sum():
        return Section("Data", [source], tables=[table])
    svg = plots.share_curve(likes / likes.sum(), "liked items, the most liked first, %", "% of the likes in train")
    label = "The long tail: the share of all likes on the most liked items; dashed: if all items were liked equally."
    return Section("Data", [source, f"Figure. {label}"], tables=[table], figures=[Drawing(svg, label)])


def _format_values(values: dict[str, Any] | None) -> list[list[str]]:
    """Return the rows of the data card about the values of events.

    There is one row if all events have the same value.

    Args:
        values: the statistics of the values. None for a run of recsys 0.1.0, which did not compute
            them: there are no rows then.
    """
    if values is None:
        return []
    if values["smallest"] == values["largest"]:
        return [["value of every event", f"{values['largest']:g}"]]
    rows = [
        ["values: smallest, mean, largest", f"{values['smallest']:g}, {values['mean']:g}, {values['largest']:g}"],
        ["negative values, zeros", f"{values['negative']:,}, {values['zero']:,}"],
    ]
    if values["skew"] is not None:
        rows.append(["skew of the values (0: symmetric; large: a few values dominate)", f"{values['skew']:g}"])
    return rows


RANKED = {
    "train": "those with an event in train ([judge] candidates = 'train').",
    "items": "those with an event in train and those of the items table ([judge] candidates = 'items').",
    "cold": "only those without an event in train, so new items compete with new items alone"
    " ([judge] candidates = 'cold'; 'items' ranks them among all).",
}
"""Value of ``[judge] candidates`` -> a text that says which items the lists rank."""


def split_audit(run: Run) -> Section:
    """Return the section "Split": the parts of the split, and which data are in several parts."""
    split = run.folder.read_json(run_files.SPLIT_CARD)
    settings = ", ".join(f"{key} = {value}" for key, value in split["parameters"].items() if value is not None)
    cut = ""
    if split["cut"]:
        cut = f"; cut at {split['cut']} (UTC)"
    users = split["test_users"]
    items = split["test_items"]
    sentences = [
        f"Rule: {split['rule']} ({settings}){cut}.",
        f"Of {users['warm'] + users['cold']:,} tested users {users['warm']:,} are warm (they have"
        f" a history) and {users['cold']:,} are cold. Of {items['warm'] + items['cold']:,} tested"
        f" items {items['cold']:,} have no event in train.",
    ]
    if ranked := split.get("ranked"):
        sentences.append(f"The lists rank {ranked['items']:,} items: {RANKED[ranked['candidates']]}")
        if split["rule"] == "items" and ranked["candidates"] == "items":
            sentences.append(
                "Items of train, which no tested user chose, fill most places; candidates = 'cold' ranks the new items"
                " alone."
            )
    overlap = split["test_rows_before_train_end"]
    not_candidates = split["test_outside_candidates"]
    parts = [
        [
            name,
            *(f"{split[name][key]:,}" for key in ("rows", "pairs", "users", "items")),
            _format_span(split[name]),
        ]
        for name in ("train", "history", "test")
    ]
    audit = [
        ["rows in both history and test (must be 0)", f"{split['shared_rows']:,}"],
        ["(user, item) pairs in both, at any time", f"{split['repeated_pairs']:,}"],
        [
            "test rows earlier than the latest train row",
            "no timestamps" if overlap is None else f"{overlap:.1%}",
        ],
        [
            "test rows whose item is not a candidate",
            f"{not_candidates['rows']:,} ({not_candidates['share_of_rows']:.1%})",
        ],
        ["train users without a test row", f"{split['users_wholly_in_train']:,}"],
        ["candidates", f"{split['candidates']:,}"],
        [
            "share of events that moved to other items between train and test (expected by chance)",
            f"{split['drift']['items_moved']:.1%} ({split['drift']['items_moved_by_chance']:.1%})",
        ],
        [
            "mean value in train, in test",
            ", ".join(f"{mean:.3g}" for mean in split["drift"]["mean_value"]),
        ],
    ]
    audit += [
        [f"removed by {name}", f"{removed['rows']:,} rows"]
        for name, removed in split["filters"].items()
        if removed["rows"]
    ]
    tables = [
        ReportTable("Parts", ["part", "events", "pairs", "users", "items", "time (UTC)"], parts),
        ReportTable("Leakage audit", ["check", "value"], audit, numbers=2),
    ]
    return Section("Split", sentences, warnings=split["warnings"], tables=tables)


def rules(run: Run) -> Section | None:
    """Return the section "Rules": the number of items that each business rule removes.

    For rules on (user, item) pairs, it is the number of pairs.

    Warnings name the ids in rules that are not in the data. The result is None for a run without
    rules.
    """
    if not run.folder.has(run_files.RULES_CARD):
        return None
    about = run.folder.read_json(run_files.RULES_CARD)
    rows = [[rule, f"{count:,}"] for rule, count in about["removed"].items()]
    warnings = [
        f"{rule}: unknown ids ({len(ids):,}): {', '.join(map(str, ids[:5]))}{', …' if len(ids) > 5 else ''}."
        for rule, ids in about["unknown"].items()
    ]
    heads = ["rule", "items that it removes (deny_for: pairs)"]
    tables = []
    if rows:
        tables = [ReportTable("What each rule does by itself", heads, rows)]
    text = "The lists of every model keep the rules. A quota removes no item for good, so it is not counted."
    return Section("Rules", [text], warnings=warnings, tables=tables)


def costs(run: Run) -> Section:
    """Return the section "Time and memory": the seconds and the peak memory of each step of the run."""
    manifest = run.manifest
    hops = manifest["hops"]
    roles = [role for role in ("python", "jvm", "workers", "total") if any(role in hop["peak_mb"] for hop in hops)]
    rows = [
        [
            hop["name"],
            f"{hop['seconds']:.1f}",
            *(f"{hop['peak_mb'].get(role, 0):,.0f}" for role in roles),
        ]
        for hop in hops
    ]
    total = sum(hop["seconds"] for hop in hops)
    rows.append(["all", f"{total:.1f}", *([""] * len(roles))])
    heads = ["step", "seconds", *(f"{role}, peak MiB" for role in roles)]
    peak = max(hop["peak_mb"].get("total", 0.0) for hop in hops)
    longest = {hop["name"]: hop["seconds"] for hop in hops if hop["seconds"] >= MIN_SHARE * total}
    text = (
        f"On {manifest['platform']}: {total:,.1f} seconds in all, at most {peak:,.0f} MiB of memory. The figure has"
        f" the steps that take at least {MIN_SHARE:.0%} of the time."
    )
    return Section(
        "Time and memory",
        [text],
        figures=[Drawing(plots.bars(longest, "seconds"), "Seconds of the longest steps; the table has every step.")],
        details=[Details("Every step", [ReportTable("Cost of each step", heads, rows)])],
    )


def reproduce(run: Run) -> Section:
    """Return the section "Reproduce": versions, command, seed, fingerprints of the data, and the config."""
    manifest = run.manifest
    config = run.folder.local(run_files.CONFIG).read_text(encoding="utf-8")
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
    text = "The configuration with all defaults is config.toml in this folder:"
    return Section(
        "Reproduce",
        [text],
        tables=[ReportTable("Versions", ["property", "value"], rows, numbers=2)],
        code=config,
    )


def _format_span(part: dict[str, Any]) -> str:
    """Return the first and the last time of a part of the split as text, or a dash (–) without times."""
    if "from" not in part:
        return "–"
    return f"{part['from']} to {part['to']}"


def _format_reasons(by_reason: dict[str, int]) -> str:
    """Return the number of refused rows per reason as text in parentheses, or "" if there are none."""
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in by_reason.items())
    if reasons:
        return f" ({reasons})"
    return ""
