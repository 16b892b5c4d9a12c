"""Reports in a headless browser: no errors, nothing loaded, sane order of keys, names of parts, contrast AA."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builders import run_spark_engine
from odd import odd_run, twelve

from recsys import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

PROBE = Path(__file__).with_name("probe.js").read_text(encoding="utf-8")


@pytest.fixture(
    scope="module",
    params=["twelve models", "baselines alone", pytest.param("of Spark", marks=pytest.mark.spark)],
)
def page(request, world, world_files, tmp_path_factory):
    place = tmp_path_factory.mktemp("browser")
    if request.param == "of Spark":
        request.getfixturevalue("spark")

        data = {"events": str(world_files["events"]), "items": str(world_files["items"])}
        models = {"als": {"rank": 4, "iterations": 2, "blocks": 2}}
        run_spark_engine({"out": str(place / "run"), "engine": "spark", "data": data, "models": models})
        return report.write_report(place / "run")
    return Path(odd_run(world, place, twelve() if request.param == "twelve models" else {}), "report.html")


def look(page, *, dark=False, width=1200):
    """Open a copy of the page that ends in the probe; return what the probe found, and what the browser logged."""
    copy = page.with_name("probed.html")
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{PROBE}</script></body>")
    copy.write_text(text, encoding="utf-8")
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    words += [f"--window-size={width},900", f"--user-data-dir={page.parent / '.chromium'}", "--dump-dom"]
    words += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run([CHROMIUM, *words, copy.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r"<pre id=\"probe\">(\{.*?)</pre>", done.stdout, re.S)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_report_in_the_browser(page, dark):
    found, console = look(page, dark=dark)
    assert console == []
    assert found["resources"] == []
    assert found["dark"] is dark
    assert found["faint"] == [], "text below contrast AA"
    assert found["unnamed"] == [], "a focusable or graphic part without a name"
    assert found["headings"][0] == 1
    assert all(next_ - level <= 1 for level, next_ in zip(found["headings"], found["headings"][1:], strict=False))
    assert found["focus"] == sorted(found["focus"]), "the keyboard jumps about the page"
    assert found["positive_tabindex"] == 0
    assert found["doubled_ids"] == []
    assert found["language"] == "en"
    assert found["tables_without_heads"] == 0
    assert found["landmarks"] == {"main": 1, "nav": 1, "header": 1}


def test_nothing_sticks_out_of_a_narrow_window(page):
    found, _ = look(page, width=500)
    assert found["overflow"] <= 1
