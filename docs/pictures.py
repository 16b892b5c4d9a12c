"""Make the pictures of README and docs:  python docs/pictures.py [--report runs/demo/report.html]

``flow.svg`` and ``floors.svg`` are drawn here; the floors are those that ``tests/test_architecture.py`` keeps.
``report.png`` is a photograph of a report, taken by a headless Chromium.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import subprocess
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2933 }
.title { font-weight: 600; font-size: 15px } .small { font-size: 12px; fill: #52606d }
.box { fill: #ffffff; stroke: #9aa5b1 } .local { fill: #e3f0fb } .spark { fill: #fdeedd } .both { fill: #eaf5ea }
.frame { fill: none; stroke: #9aa5b1; stroke-dasharray: 5 4 }
.arrow { fill: none; stroke: #52606d; stroke-width: 1.5 } .head { fill: #52606d }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e7eb } .small { fill: #b0bac5 } .box { fill: #1f2933; stroke: #7b8794 }
  .local { fill: #1c3a57 } .spark { fill: #57391a } .both { fill: #23452b }
  .frame { stroke: #7b8794 } .arrow { stroke: #b0bac5 } .head { fill: #b0bac5 }
}
"""

HOPS = {
    "read": ("data/reading", "spark/data"),
    "split": ("data/splitting", "spark/data"),
    "fit": ("models", "spark/training"),
    "recommend": ("ranking", "spark/ranking"),
    "judge": ("evaluation", "spark/evaluation"),
    "summarise": ("evaluation", "spark/evaluation"),
}
"""Hop -> the folders of `recsys/` that do its work on the local engine and on Spark."""


class Canvas:
    """An SVG picture: boxes, text and arrows, in the colours of a light or a dark page."""

    def __init__(self, width: int, height: int, description: str) -> None:
        self.width = width
        self.height = height
        self.description = description
        self.elements: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str = "") -> None:
        """Draw a rectangle; ``kind`` is a class of the style."""
        self.elements.append(
            f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
        )

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """Draw a dashed rectangle."""
        self.elements.append(f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Write one line whose anchor is at (x, y)."""
        self.elements.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw a line through ``points`` with a head at the last one."""
        path = " ".join(f"{'M' if i == 0 else 'L'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
        self.elements.append(f'<path class="arrow" d="{path}" marker-end="url(#head)"/>')

    def to_svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}"'
                f' width="{self.width}" height="{self.height}" role="img">',
                f"<title>{escape(self.description)}</title>",
                f"<style>{STYLE}</style>",
                f'<defs>{head}<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
                *self.elements,
                "</svg>\n",
            ]
        )


def draw_flow() -> str:
    """Return the picture of a run: files in, the hops of ``recsys/flow.py``, the run folder and what reads it."""
    canvas = Canvas(960, 392, "The flow of a run: tables and a config, six hops on one of two engines, a run folder")
    for x, title, words in (
        (70, "tables", "events, and optionally items, users"),
        (550, "config.toml", "one file for both engines"),
    ):
        canvas.box(x, 12, 340, 48)
        canvas.text(x + 170, 32, title, "title")
        canvas.text(x + 170, 50, words, "small")
    canvas.frame(10, 92, 940, 170)
    canvas.text(24, 112, "recsys/flow.py runs the hops in this order", "small", anchor="start")
    canvas.arrow((240, 60), (240, 90))
    canvas.arrow((720, 60), (720, 90))

    # The hops, each with the folders that do its work; three of them are repeated for every model.
    width, gap, left = 128, 26, 32
    canvas.frame(left + 2 * (width + gap) - 11, 122, 3 * width + 2 * gap + 22, 132)
    canvas.text(left + 3.5 * (width + gap) - gap / 2, 118, "for each model", "small")
    for place, (hop, (local_folder, spark_folder)) in enumerate(HOPS.items()):
        x = left + place * (width + gap)
        canvas.text(x + width / 2, 148, hop, "title")
        canvas.box(x, 158, width, 36, "local")
        canvas.text(x + width / 2, 180, local_folder)
        canvas.box(x, 206, width, 36, "spark")
        canvas.text(x + width / 2, 228, spark_folder)
        if place:
            canvas.arrow((x - gap + 3, 200), (x - 3, 200))

    canvas.arrow((480, 262), (480, 282))
    canvas.box(230, 284, 500, 48, "both")
    canvas.text(480, 304, "run folder", "title")
    canvas.text(480, 322, "split, models, lists, metrics, manifest: whole, or not there", "small")
    for x, words in ((120, "report"), (360, "compare, gates"), (600, "recommend, explain"), (840, "bundle, update")):
        canvas.arrow((480, 332), (480, 346), (x, 346), (x, 362))
        canvas.text(x, 380, words)
    canvas.box(24, 296, 16, 16, "local")
    canvas.text(48, 309, "local engine", "small", anchor="start")
    canvas.box(24, 320, 16, 16, "spark")
    canvas.text(48, 333, "Spark engine", "small", anchor="start")
    return canvas.to_svg()


def draw_floors() -> str:
    """Return the picture of the floors: rooms that may import from their own floor and from those below."""
    floor_of = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["FLOOR"]
    floors: dict[int, list[str]] = {}
    for room, floor in floor_of.items():
        floors.setdefault(floor, []).append(room)
    width, room_width, row_height = 960, 112, 30
    per_row = (width - 120) // (room_width + 8)
    rows = {floor: -(-len(rooms) // per_row) for floor, rooms in floors.items()}
    height = sum(24 + row_height * count + 10 for count in rows.values()) + 10
    canvas = Canvas(width, height, "The floors: a room imports from its own floor and from the floors below")
    y = 8.0
    for floor in sorted(floors, reverse=True):
        tall = 24 + row_height * rows[floor]
        canvas.frame(8, y, width - 16, tall)
        canvas.text(24, y + tall / 2 + 5, f"floor {floor}", "title", anchor="start")
        for place, room in enumerate(sorted(floors[floor])):
            x = 104 + (place % per_row) * (room_width + 8)
            top = y + 14 + (place // per_row) * row_height
            kind = {"models": "local", "spark": "spark"}.get(room, "")
            canvas.box(x, top, room_width, row_height - 6, kind)
            canvas.text(x + room_width / 2, top + 17, room)
        y += tall + 10
    return canvas.to_svg()


def photograph(page: Path, picture: Path) -> None:
    """Write a PNG of the top of an HTML page as Chromium draws it, 1,000 by 1,165 pixels."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        raise SystemExit(f"no Chromium on PATH (looked for {', '.join(names)}): install one, or leave out --report")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
        options += ["--disable-background-networking", f"--user-data-dir={profile}", "--window-size=1000,1165"]
        options += ["--blink-settings=preferredColorScheme=1", f"--screenshot={picture}"]
        subprocess.run([chromium, *options, page.resolve().as_uri()], check=True, capture_output=True)


def main() -> None:
    """Write the pictures into docs/images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="also photograph this report.html")
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "flow.svg").write_text(draw_flow(), encoding="utf-8")
    (IMAGES / "floors.svg").write_text(draw_floors(), encoding="utf-8")
    if arguments.report:
        photograph(arguments.report, IMAGES / "report.png")


if __name__ == "__main__":
    main()
