"""Write a report as one HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from recsys.report.parts import Drawing, Report

_TEMPLATES = Environment(
    loader=PackageLoader("recsys.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_html(report: Report, kind: str = "evaluation report") -> str:
    """Return the HTML page of a report.

    All text is escaped. The drawings are SVG that this package made. The page has a script only if
    a section has a search box. Its content security policy allows no other script and no other
    file.

    Args:
        report: the report.
        kind: the kind of report, which the page shows above its title.
    """
    # All figures share the page, and matplotlib may use the same ids in each of them.
    figure_number = count(1)
    table_number = count(1)

    def render_svg(drawing: Drawing) -> Markup:
        return Markup(_prefix_ids(drawing.svg, f"f{next(figure_number)}-"))  # noqa: S704 - matplotlib escapes text

    script = ""
    if any(section.search for section in report.sections):
        script = _TEMPLATES.get_template("search.js").render()
    return _TEMPLATES.get_template("report.html").render(
        report=report,
        kind=kind,
        script=Markup(script),  # noqa: S704 - a file of this package, without any text of a run
        script_source=_script_source(script),
        term_ids=_term_ids(report),
        render_code=_render_code,
        render_svg=render_svg,
        next_table=lambda: next(table_number),
        row_id=_row_id,
    )


def _render_code(text: str) -> Markup:
    """Return a text as HTML, escaped, with what is between two backticks as code."""
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(escaped)  # noqa: S704 - the text is escaped before


def _script_source(script: str) -> str:
    """Return the value of ``script-src`` in the content security policy of the page.

    It allows only ``script``, or no script at all if ``script`` is empty.
    """
    if not script:
        return "'none'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _term_ids(report: Report) -> dict[str, str]:
    """Return the id of the row that defines each term, as a dict: term -> id in the page.

    If several glossaries have a term, the first one counts.
    """
    ids: dict[str, str] = {}
    for number, table in enumerate(report.tables, start=1):
        if table.is_glossary:
            for row, (term, *_) in enumerate(table.rows):
                ids.setdefault(term, _row_id(number, row))
    return ids


def _row_id(table_number: int, row: int) -> str:
    """Return the id in the page of a row of a table."""
    return f"t{table_number}-{row}"


def _prefix_ids(svg: str, prefix: str) -> str:
    """Put a prefix before each id of an SVG, so that no two drawings of a page have the same id."""
    return re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", svg)
