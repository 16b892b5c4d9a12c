"""Pages of the site that are not files of ``docs/``: those of the folder above it, and the API reference.

``mkdocs`` calls the functions here (``hooks`` in ``mkdocs.yml``). Links between the pages work in the repository and on
the site; a link to a file that is no page, such as a job, would be broken on the site, and ``make docs`` fails on it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

REPOSITORY_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/RESULTS.md": "results.md",
}
"""File of the repository -> page of the site; files of docs/ keep their names."""

LINK = re.compile(r"(\]\(|src=\")(?!https?:|#)([^)#\"\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference to the navigation: one page for each folder of the package."""
    pages: list[Any] = [{title: page} for page, (title, _) in reference_pages().items()]
    assert config.nav is not None
    config.nav.append({"API": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of ``docs/``."""
    for source, page in REPOSITORY_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_site_links(text, posixpath.dirname(source))))
    for picture in ("bench/scale.svg",):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    for page, (title, modules) in reference_pages().items():
        files.append(File.generated(config, page, content=_reference(title, modules)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page of ``docs/`` into links of the site."""
    return markdown if page.file.generated_by else _site_links(markdown, "docs")


def reference_pages() -> dict[str, tuple[str, list[str]]]:
    """Return page -> (title, modules): one page for the files of the package itself, and one for each folder."""
    pages: dict[str, tuple[str, list[str]]] = {}
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        module = package if path.name == "__init__.py" else f"{package}.{path.stem}"
        title, modules = pages.setdefault(f"reference/{package}.md", (package, []))
        modules.append(module)
    return {page: (title, sorted(modules)) for page, (title, modules) in sorted(pages.items())}


def _reference(title: str, modules: list[str]) -> str:
    """Return the page with the docstrings of some modules."""
    parts = [f"# {title}"]
    for module in modules:
        heading = "" if module == title else f"## {module.removeprefix(title + '.')}\n\n"
        parts.append(f"{heading}::: {module}")
    return "\n\n".join(parts) + "\n"


def _site_links(text: str, folder: str) -> str:
    """Return Markdown of ``folder`` with its relative links turned into links from the top of the site."""

    def site_link(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] + REPOSITORY_PAGES.get(target, target.removeprefix("docs/"))

    return LINK.sub(site_link, text)
