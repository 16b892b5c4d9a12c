"""What a run was made from and cost: data, split with leakage audit, rules, time and memory, how to reproduce it."""

from __future__ import annotations

from typing import Any

from recsys import run_files
from recsys.report import plots
from recsys.report.parts import Drawing, Section, Table
from recsys.report.run_reader import Run


def data(run: Run) -> Section:
    """The data card."""
    data = run.folder.read_json(run_files.DATA_CARD)
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
    told, table = [f"Read from {data['source']}."], Table("Data card", ["what", "value"], rows)
    likes = run.likes.to_numpy()
    if not likes.sum():
        return Section("Data", told, tables=[table])
    drawn = plots.share_curve(likes / likes.sum(), "liked items, the most liked first, %", "% of the likes in train")
    label = "The long tail: the share of all likes on the most liked items; dashed: all items alike."
    return Section("Data", [*told, f"Figure. {label}"], tables=[table], figures=[Drawing(drawn, label)])


def split(run: Run) -> Section:
    """The split card with its leakage audit."""
    split = run.folder.read_json(run_files.SPLIT_CARD)
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


def rules(run: Run) -> Section | None:
    """What each rule takes away, and ids in it that nobody knows."""
    if not (run.folder.path / run_files.RULES_CARD).exists():
        return None
    about = run.folder.read_json(run_files.RULES_CARD)
    rows = [[rule, f"{count:,}"] for rule, count in about["removed"].items()]
    warnings = [
        f"{rule}: ids that nobody knows ({len(ids):,}): {', '.join(map(str, ids[:5]))}{', …' if len(ids) > 5 else ''}."
        for rule, ids in about["unknown"].items()
    ]
    heads = ["rule", "items (deny_for: pairs) that it takes away"]
    tables = [Table("What each rule does by itself", heads, rows)] if rows else []
    told = ["Every list keeps them, whichever model made it. A quota takes no item away for good: it is not counted."]
    return Section("Rules", told, warnings=warnings, tables=tables)


def costs(run: Run) -> Section:
    """Seconds and peak memory of each hop."""
    manifest = run.manifest
    roles = [
        role for role in ("python", "jvm", "workers", "total") if any(role in h["peak_mb"] for h in manifest["hops"])
    ]
    rows = [
        [hop["name"], f"{hop['seconds']:.1f}", *(f"{hop['peak_mb'].get(role, 0):,.0f}" for role in roles)]
        for hop in manifest["hops"]
    ]
    rows.append(["all", f"{sum(hop['seconds'] for hop in manifest['hops']):.1f}", *([""] * len(roles))])
    heads = ["step", "seconds", *(f"{role}, peak MiB" for role in roles)]
    table = Table("Cost of each step", heads, rows)
    drawings = [
        Drawing(plots.bars({hop["name"]: hop["seconds"] for hop in manifest["hops"]}, "seconds"), table.caption),
        Drawing(
            plots.bars({hop["name"]: hop["peak_mb"].get("total", 0.0) for hop in manifest["hops"]}, "peak MiB"),
            "Peak memory of each step; the table below has the numbers.",
        ),
    ]
    return Section("Time and memory", [f"On {manifest['platform']}."], tables=[table], figures=drawings)


def reproduce(run: Run) -> Section:
    """Versions, command, seed, fingerprints, configuration."""
    manifest, config = run.manifest, (run.folder.path / run_files.CONFIG).read_text(encoding="utf-8")
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


def _span(part: dict[str, Any]) -> str:
    return f"{part['from']} to {part['to']}" if "from" in part else "–"


def _reasons(by_reason: dict[str, int]) -> str:
    return f" ({', '.join(f'{reason}: {count:,}' for reason, count in by_reason.items())})" if by_reason else ""
