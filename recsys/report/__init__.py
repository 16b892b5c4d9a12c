"""The report of a run: the files report.html and report.md, and the folder tables/.

The two files have the same text and tables. Only the HTML page has figures.
"""

from __future__ import annotations

from recsys import run_files
from recsys.errors import RunFolderError
from recsys.locations import Location
from recsys.report.exports import is_table_name, table_files
from recsys.report.html import render_html
from recsys.report.markdown import render_markdown
from recsys.report.outline import build_report
from recsys.runfolder import RunFolder, damage_explained


def write_report(run: str | Location | RunFolder) -> Location:
    """Write the report of a run into its folder, and return the path or URI of the HTML page.

    The report is written as HTML, as Markdown, and its tables as CSV and LaTeX. The HTML page is one
    file that loads no other: its styles, its figures and the script of its search box are part of it.
    If the browser runs no scripts, only the search box is missing. The files of an older report are
    replaced or removed, but only after all files of the new report have been written.

    Args:
        run: the path or URI of a complete run, or a run folder that is being written.

    Raises:
        RunFolderError: the folder is not a complete run, one of its files is damaged, or the report
            cannot be written.
    """
    if isinstance(run, RunFolder):
        folder = run
        texts = _render(folder)
    else:
        folder = RunFolder.open(run)
        if folder.has(run_files.BUNDLE_CARD):
            raise RunFolderError(f"{run}: this is a bundle, which has no results per user. Name the run it is made of.")
        with damage_explained(run):
            texts = _render(folder)
    # Tables of an earlier report are removed; files with other names belong to the user.
    older_tables = folder.local(run_files.REPORT_TABLES).glob("*")
    obsolete = [file for file in older_tables if is_table_name(file.name) and file.is_file()]
    folder.write_texts(texts, [f"{run_files.REPORT_TABLES}/{file.name}" for file in obsolete])
    return folder.location / run_files.REPORT_HTML


def _render(folder: RunFolder) -> dict[str, str]:
    """Return the name and the content of each file of the report."""
    report = build_report(folder)
    return {
        run_files.REPORT_MARKDOWN: render_markdown(report),
        run_files.REPORT_HTML: render_html(report),
        **{f"{run_files.REPORT_TABLES}/{name}": text for name, text in table_files(report).items()},
    }
