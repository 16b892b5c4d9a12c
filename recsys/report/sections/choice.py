"""The section on what a hybrid chose, why, and whether the features of items help."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from recsys import run_files
from recsys.models.combining.blend import LENGTHS
from recsys.report.parts import ReportTable, Section, format_interval
from recsys.report.run_reader import Run
from recsys.runfolder import RunFolder


def choice(run: Run) -> Section | None:
    """Return the section "What the hybrid chose": the weights of each hybrid, and why it has them.

    A table (the ablation) compares the hybrid with its best members, and with a hybrid of shuffled
    item features. The result is None for a run without a hybrid.
    """
    records = {name: record for name in run.models if (record := _read_record(run.folder, name))}
    if not records:
        return None
    paragraphs: list[str] = []
    warnings: list[str] = []
    tables: list[ReportTable] = []
    for name, record in records.items():
        weights = " + ".join(f"{weight:g} {kind}" for kind, weight in record["weights"].items())
        paragraphs.append(f"{name} is {weights}. Why: {record['why']}.")
        paragraphs += [f"For {case}: {reason}." for case, reason in _exceptions(record).items()]
        if "ablation" in record:
            tables.append(_ablation_table(name, record))
            warnings += _ablation_warnings(name, record["ablation"])
        if record["parts"]:
            tables.append(_parts_table(name, record))
        warnings += [f"{name} left {kind} out: {reason}" for kind, reason in record["left_out"].items()]
    paragraphs.append(
        "All of this was chosen and measured on likes that were hidden from the train part; the test part was not used."
    )
    return Section("What the hybrid chose", paragraphs, warnings=warnings, tables=tables)


def _read_record(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """Return the record of how a hybrid was chosen, or None if the model is not a hybrid.

    The hybrid may also be the first member of a cascade.
    """
    own_card = run_files.model_card(name)
    in_cascade = f"{run_files.model_folder(name)}/{name}/{run_files.MODEL_CARD}"
    for card in (own_card, in_cascade):
        if folder.has(card) and (record := folder.read_json(card).get("record")) and "why" in record:
            return dict(record)
    return None


def _exceptions(record: dict[str, Any]) -> dict[str, str]:
    """Return the users and items for which the hybrid uses other weights, as a dict: case -> reason."""
    groups = [
        f"under {LENGTHS[0]}",
        *(f"{low} to {high - 1}" for low, high in pairwise(LENGTHS)),
        f"{LENGTHS[-1]} and more",
    ]
    exceptions = {
        f"users with {groups[int(group)]} likes": entry["why"] for group, entry in record.get("by_history", {}).items()
    }
    if "new_items" in record:
        exceptions["new items among themselves"] = record["new_items"]["why"]
    if "fields" in record:
        weights = record["fields"]["weights"].items()
        exceptions["the fields of items, weights"] = ", ".join(f"{field} {weight:g}" for field, weight in weights)
    return exceptions


def _ablation_table(name: str, record: dict[str, Any]) -> ReportTable:
    """Return the table that compares a hybrid with its best members, and with shuffled features."""
    ablation = record["ablation"]
    rows = [["hybrid", f"{ablation['hybrid']:.4f}", ""]]
    for key in ("collaborative", "content"):
        if key in ablation:
            gain = _format_gain(ablation[key]["hybrid_minus_it"])
            rows.append([f"{key}: {ablation[key]['part']}", f"{ablation[key]['mean']:.4f}", gain])
    if "shuffled" in ablation:
        rows.append(["hybrid, features shuffled", f"{ablation['shuffled']['mean']:.4f}", ""])
    return ReportTable(f"{name}: ablation, {record['metric']}", ["model", "mean", "hybrid minus it"], rows)


def _ablation_warnings(name: str, ablation: dict[str, Any]) -> list[str]:
    """Return a warning if the blend is not shown to help, and one if shuffled features help too."""
    warnings = []
    parts = [ablation[key] for key in ("collaborative", "content") if key in ablation]
    if parts and not all(part["hybrid_minus_it"]["low"] > 0 for part in parts):
        warnings.append(f"{name} is not shown to be better than its best part.")
    # Shuffled features say nothing about the items: a gain with them is not a gain from features.
    placebo = ablation.get("shuffled", {}).get("minus_collaborative")
    if placebo and placebo["low"] > 0:
        warnings.append(f"{name} also gains from shuffled features, so its gain does not come from what they say.")
    return warnings


def _parts_table(name: str, record: dict[str, Any]) -> ReportTable:
    """Return the table with the settings of each member that a hybrid could choose, best member first."""
    rows = [
        [
            part_name,
            ", ".join(f"{key} {_format_setting(value)}" for key, value in part["params"].items()),
            f"{part['ndcg@100']:.4f}",
        ]
        for part_name, part in sorted(record["parts"].items(), key=lambda part: -part[1]["ndcg@100"])
    ]
    return ReportTable(f"{name}: its parts and their settings", ["part", "settings", "mean"], rows, numbers=2)


def _format_setting(value: Any) -> str:
    """Return the value of a parameter as text, a number with at most six significant digits."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _format_gain(gain: dict[str, float]) -> str:
    """Return a mean difference and its interval as text."""
    return f"{gain['mean']:+.4f} {format_interval([gain['low'], gain['high']], sign=True)}"
