"""A run folder -> report.html, report.md and tables/. All show the same content."""

from __future__ import annotations

from pathlib import Path

from recsys import run_files
from recsys.report.exports import files, is_table_name
from recsys.report.html import page
from recsys.report.markdown import markdown
from recsys.report.outline import gather
from recsys.runfolder import RunFolder


def write(path: str | Path) -> Path:
    """Write both reports, and their tables as CSV and LaTeX, into a whole run folder; return the path of the HTML page.

    The page is one file: styles and figures inside, no scripts, nothing loaded from elsewhere.

    Raises:
        RunFolderError: the folder is not a whole run, or one of its files is damaged.
    """
    folder = RunFolder.open(path)
    content = gather(folder)
    folder.write_text(run_files.REPORT_MARKDOWN, markdown(content))
    folder.write_text(run_files.REPORT_HTML, page(content))
    tables = files(content)
    for path in (folder.path / run_files.REPORT_TABLES).glob("*"):
        # Tables of an earlier report go, files of other names are not ours.
        if is_table_name(path.name) and path.is_file() and path.name not in tables:
            path.unlink()
    for name, text in tables.items():
        folder.write_text(f"{run_files.REPORT_TABLES}/{name}", text)
    return folder.path / run_files.REPORT_HTML
