"""What a hybrid chose, why, and whether its features do any good."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from recsys import run_files
from recsys.models.combining.blend import LENGTHS
from recsys.report.parts import Section, Table, interval
from recsys.report.run_reader import Run
from recsys.runfolder import RunFolder


def choice(run: Run) -> Section | None:
    """Return the choices of the run's hybrids, with the ablation; None for a run without one."""
    records = {name: found for name in run.models if (found := _record(run.folder, name))}
    if not records:
        return None
    text, warnings, tables = [], [], []
    for name, record in records.items():
        weights = " + ".join(f"{weight:g} {kind}" for kind, weight in record["weights"].items())
        text.append(f"{name} is {weights}. Why: {record['why']}.")
        text += [f"For {what}: {told}." for what, told in _exceptions(record).items()]
        if "ablation" in record:
            tables.append(_ablation(name, record))
            warnings += _harm(name, record["ablation"])
        if record["parts"]:
            tables.append(_parts(name, record))
        for kind, why in record["left_out"].items():
            warnings.append(f"{name} left {kind} out: {why}")
    text.append("All of it was chosen and measured on likes hidden from the train part; the test part played no role.")
    return Section("What the hybrid chose", text, warnings=warnings, tables=tables)


def _record(folder: RunFolder, name: str) -> dict[str, Any] | None:
    """Return the record of a hybrid, which may stand before a fallback."""
    for place in (run_files.model_card(name), f"{run_files.model_folder(name)}/{name}/{run_files.MODEL_CARD}"):
        if (folder.path / place).exists() and (record := folder.read_json(place).get("record")) and "why" in record:
            return dict(record)
    return None


def _exceptions(record: dict[str, Any]) -> dict[str, str]:
    levels = [f"under {LENGTHS[0]}", *(f"{a} to {b - 1}" for a, b in pairwise(LENGTHS)), f"{LENGTHS[-1]} and more"]
    found = {f"users with {levels[int(g)]} likes": own["why"] for g, own in record.get("by_history", {}).items()}
    if "new_items" in record:
        found["new items among themselves"] = record["new_items"]["why"]
    if "fields" in record:
        weights = record["fields"]["weights"].items()
        found["the fields of items, weights"] = ", ".join(f"{field} {weight:g}" for field, weight in weights)
    return found


def _ablation(name: str, record: dict[str, Any]) -> Table:
    found = record["ablation"]
    rows = [["hybrid", f"{found['hybrid']:.4f}", ""]]
    for key in ("collaborative", "content"):
        if key in found:
            gained = found[key]["hybrid_minus_it"]
            rows.append([f"{key}: {found[key]['part']}", f"{found[key]['mean']:.4f}", _gain(gained)])
    if "shuffled" in found:
        rows.append(["hybrid, features shuffled", f"{found['shuffled']['mean']:.4f}", ""])
    return Table(f"{name}: ablation, {record['metric']}", ["model", "mean", "hybrid minus it"], rows)


def _harm(name: str, ablation: dict[str, Any]) -> list[str]:
    """Return a warning where the features, or the blend, are not shown to help."""
    found = []
    best = [ablation[key] for key in ("collaborative", "content") if key in ablation]
    if best and not all(part["hybrid_minus_it"]["low"] > 0 for part in best):
        found.append(f"{name} is not shown to be better than its best part.")
    placebo = ablation.get("shuffled", {}).get("minus_collaborative")
    if placebo and placebo["low"] > 0:
        found.append(f"{name} gains from shuffled features too: what it gains is not what the features say.")
    return found


def _parts(name: str, record: dict[str, Any]) -> Table:
    rows = [
        [kind, f"{part['ndcg@100']:.4f}", ", ".join(f"{key} {value}" for key, value in part["params"].items())]
        for kind, part in sorted(record["parts"].items(), key=lambda pair: -pair[1]["ndcg@100"])
    ]
    return Table(f"{name}: its parts, each at its best setting", ["part", "mean", "settings"], rows)


def _gain(gained: dict[str, float]) -> str:
    return f"{gained['mean']:+.4f} {interval([gained['low'], gained['high']], sign=True)}"
