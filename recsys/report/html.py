"""A report as one HTML page."""

from __future__ import annotations

import re
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report.parts import Drawing, Report


def render_html(report: Report, kind: str = "evaluation report") -> str:
    """Return the HTML page of a report. All text is escaped;
    the drawings are SVG made by this package.
    """
    templates = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # All figures share the page, and matplotlib may use the same ids in each of them.
    number = count(1)

    def render_svg(drawing: Drawing) -> Markup:
        return Markup(_prefix_ids(drawing.svg, f"f{next(number)}-"))  # noqa: S704 - matplotlib escapes text

    return templates.get_template("report.html").render(report=report, kind=kind, render_svg=render_svg)


def _prefix_ids(svg: str, prefix: str) -> str:
    """Return an SVG with a prefix before each id, so that two drawings of a page share no id."""
    return re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", svg)
