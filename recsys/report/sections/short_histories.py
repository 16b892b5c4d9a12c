"""The section on users with short histories who get the fallback, although the model can score them."""

from __future__ import annotations

from typing import Any

from recsys.report.parts import Details, ReportTable, Section, format_interval
from recsys.report.run_reader import Run
from recsys.saved.open_model import read_min_history, saved_models


def short_histories(run: Run) -> Section | None:
    """Return the section "Short histories": which users get the list of the fallback, and why.

    A trial on train can show that the fallback is better than a model for users with few liked
    items. These users then get the list of the fallback (``evaluation.min_history``). The result is
    None if this holds for no model of the run.
    """
    records = {name: read_min_history(run.folder, name) for name in saved_models(run.folder)}
    records = {name: record for name, record in records.items() if record["min_history"]}
    if not records:
        return None
    fallback = run.config.recommend.fallback
    paragraphs = []
    tables = []
    small_tables = []
    for name, record in records.items():
        paragraphs.append(f"{name}: users with fewer than {record['min_history']} liked items get {fallback} items.")
        if "groups" in record:
            groups = record["groups"]
            tables.append(_trial_table(name, record, [group for group in groups if group["difference"] is not None]))
            small = [group for group in groups if group["difference"] is None and group["users"]]
            if small:
                small_tables.append(_trial_table(name, record, small))
    if tables:
        paragraphs.append(
            "Chosen on likes that were hidden from the train part, because the fallback was shown to be better there;"
            " the test part was not used."
        )
    details = []
    if small_tables:
        details = [Details("Histories of too few users to compare", small_tables)]
    return Section("Short histories", paragraphs, tables=tables, details=details)


def _trial_table(name: str, record: dict[str, Any], groups: list[dict[str, Any]]) -> ReportTable:
    """Return the table with the results of the trial for some groups of history lengths.

    Args:
        record: the result of the trial, see ``min_history.choose_min_history``.
        groups: the groups to show, from this record.
    """
    rows = []
    for group in groups:
        values = ["–", "–", "–"]
        difference = group["difference"]
        if difference is not None:
            interval = format_interval([difference["low"], difference["high"]], sign=True)
            values = [f"{group['model']:.4f}", f"{group['fallback']:.4f}", f"{difference['mean']:+.4f} {interval}"]
        rows.append([group["history"], f"{group['users']:,}", *values])
    return ReportTable(f"{name}: {record['metric']}", ["liked items", "users", "model", "fallback", "difference"], rows)
