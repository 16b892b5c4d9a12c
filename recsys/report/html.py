"""Content -> report.html."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report import figures
from recsys.report.content import Content


def html(content: Content) -> str:
    """Return the page. Everything that comes from data is escaped; figures are SVG of our own making."""
    templates = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {"differences": Markup(figures.differences(content.metrics))}  # noqa: S704 - matplotlib escapes its text
    return templates.get_template("report.html").render(content=content, figures=drawn)
