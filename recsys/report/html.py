"""Content -> report.html."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report.parts import Content


def page(content: Content, kind: str = "evaluation report") -> str:
    """Return a page of sections. Everything that comes from data is escaped; the drawings are SVG of our own making."""
    templates = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html").render(content=content, kind=kind, drawn=Markup)
