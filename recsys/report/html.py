"""Content -> report.html."""

from __future__ import annotations

import re
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report.parts import Content, Drawing


def page(content: Content, kind: str = "evaluation report") -> str:
    """Return a page of sections. Everything that comes from data is escaped; the drawings are SVG of our own making."""
    templates = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    number = count(1)

    def drawn(drawing: Drawing) -> Markup:
        return Markup(_apart(drawing.svg, f"f{next(number)}-"))  # noqa: S704 - matplotlib escapes its text

    return templates.get_template("report.html").render(content=content, kind=kind, drawn=drawn)


def _apart(svg: str, prefix: str) -> str:
    """Return a drawing whose ids no other drawing of the page has."""
    return re.sub(r'( id="|href="#|url\(#)', rf"\1{prefix}", svg)
