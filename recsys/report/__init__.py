"""The report of a run folder, as report.html, report.md and tables/, all with the same content."""

from __future__ import annotations

from pathlib import Path

from recsys import run_files
from recsys.report.exports import is_table_name, table_files
from recsys.report.html import render_html
from recsys.report.markdown import render_markdown
from recsys.report.outline import build_report
from recsys.runfolder import RunFolder


def write_report(path: str | Path) -> Path:
    """Write both reports, and their tables as CSV and LaTeX, into a run folder;
    return the path of the HTML page.

    The page is one file: its styles and figures are inside, it has no scripts and loads nothing.

    Raises:
        RunFolderError: the folder is not a complete run, or one of its files is damaged.
    """
    folder = RunFolder.open(path)
    report = build_report(folder)
    folder.write_text(run_files.REPORT_MARKDOWN, render_markdown(report))
    folder.write_text(run_files.REPORT_HTML, render_html(report))
    tables = table_files(report)
    for file in (folder.path / run_files.REPORT_TABLES).glob("*"):
        # Tables of an earlier report are removed; files with other names belong to the user.
        if is_table_name(file.name) and file.is_file() and file.name not in tables:
            file.unlink()
    for name, text in tables.items():
        folder.write_text(f"{run_files.REPORT_TABLES}/{name}", text)
    return folder.path / run_files.REPORT_HTML
