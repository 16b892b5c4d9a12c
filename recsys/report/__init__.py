"""A run folder -> report.html and report.md. Both show the same content; neither computes a metric."""

from __future__ import annotations

from pathlib import Path

from recsys.report.content import gather
from recsys.report.html import page
from recsys.report.markdown import markdown
from recsys.runfolder import RunFolder


def write(path: str | Path) -> Path:
    """Write both reports into a whole run folder; return the path of the HTML page.

    The page is one file: styles and figures inside, no scripts, nothing loaded from elsewhere.

    Raises:
        RunFolderError: the folder is not a whole run, or one of its files is damaged.
    """
    folder = RunFolder.open(path)
    content = gather(folder)
    folder.write_text("report.md", markdown(content))
    folder.write_text("report.html", page(content))
    return folder.path / "report.html"
