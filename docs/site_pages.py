"""Pages of the site that are not files of ``docs/``: those of the folder above it, and the API reference.

``mkdocs`` calls the functions here (``hooks`` in ``mkdocs.yml``). Links between the pages work in the repository and on
the site; a link to a file that is no page, such as a job, would be broken on the site, and ``make docs`` fails on it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

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

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference to the navigation: one page for each folder of the package."""
    pages = [{package: _page_of(package)} for package in packages()]
    config.nav = [*(config.nav or []), {"API": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of ``docs/``."""
    for source, page in REPOSITORY_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_site_links(text, posixpath.dirname(source))))
    for picture in ("bench/scale.svg",):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    for package, modules in packages().items():
        files.append(File.generated(config, _page_of(package), content=_reference(package, modules)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page of ``docs/`` into links of the site."""
    return markdown if page.file.generated_by else _site_links(markdown, "docs")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the roles of Sphinx from docstrings: the site has no such links, and the name is enough."""
    return ROLE.sub("", html)


def packages() -> dict[str, list[str]]:
    """Return package -> its modules: the package ``recsys`` itself, then each folder in it."""
    modules_of: dict[str, list[str]] = {}
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        module = package if path.name == "__init__.py" else f"{package}.{path.stem}"
        modules_of.setdefault(package, []).append(module)
    return {package: sorted(modules_of[package]) for package in sorted(modules_of)}


def _page_of(package: str) -> str:
    return f"reference/{package}.md"


def _reference(package: str, modules: list[str]) -> str:
    """Return the page with the docstrings of a package and of its modules."""
    parts = [f"# {package}"]
    for module in modules:
        heading = "" if module == package else f"## {module.removeprefix(package + '.')}\n\n"
        parts.append(f"{heading}::: {module}")
    return "\n\n".join(parts) + "\n"


def _site_links(text: str, folder: str) -> str:
    """Return Markdown of ``folder`` with its relative links turned into links from the top of the site."""

    def site_link(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] + REPOSITORY_PAGES.get(target, target.removeprefix("docs/"))

    return LINK.sub(site_link, text)
