"""A run folder -> report.html, report.md and tables/. All show the same content."""

from __future__ import annotations

import shutil
from pathlib import Path

from recsys.report.exports import files
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
    folder.write_text("report.md", markdown(content))
    folder.write_text("report.html", page(content))
    shutil.rmtree(folder.path / "tables", ignore_errors=True)
    for name, text in files(content).items():
        folder.write_text(f"tables/{name}", text)
    return folder.path / "report.html"
