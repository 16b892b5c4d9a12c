"""Content -> report.html."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recsys.report import figures
from recsys.report.content import Content


def html(content: Content) -> str:
    """Return a run's page."""
    return page(content, {"differences": figures.differences(content.metrics)})


def page(content: Content, drawn: dict[str, str], kind: str = "evaluation report") -> str:
    """Return a page of sections. Everything that comes from data is escaped; ``drawn`` are SVG of our own making."""
    templates = Environment(
        loader=PackageLoader("recsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    safe = {name: Markup(figure) for name, figure in drawn.items()}  # noqa: S704 - matplotlib escapes its text
    return templates.get_template("report.html").render(content=content, figures=safe, kind=kind)
