"""Reports in a headless browser: no errors, nothing loaded, sane order of keys, names of parts, contrast AA."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from builders import run_spark_engine
from chromium import CHROMIUM, Chromium
from odd import odd_run, twelve

from recsys import report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

PROBE = Path(__file__).with_name("probe.js").read_text(encoding="utf-8")


@pytest.fixture(
    scope="module",
    params=["twelve models", "baselines alone", pytest.param("of Spark", marks=[pytest.mark.spark, pytest.mark.long])],
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


FRAME = """<body style="margin:0"><iframe src="probed.html" style="border:0;width:{width}px;height:900px"></iframe>
<pre id="probe"></pre><script>onmessage = (e) => document.getElementById("probe").textContent = e.data</script>"""
"""Windows of Chromium have at least 500 pixels, so the page is in a frame of any width."""


def browse(page, *, dark=False, width=1200):
    """Open a file; return the page as it is after its scripts, and what the browser logged."""
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    words += [f"--window-size={width},900", f"--user-data-dir={page.parent / '.chromium'}", "--dump-dom"]
    words += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run([CHROMIUM, *words, page.as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def look(page, *, dark=False, width=1200):
    """Open a copy of the page that ends in the probe; return what the probe found, and what the browser logged."""
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{PROBE}</script></body>")
    # The policy of the page would stop the probe.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page.with_name("probed.html").write_text(text, encoding="utf-8")
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    shown, console = browse(frame, dark=dark, width=width)
    found = re.search(r"<pre id=\"probe\">(\{.*?)</pre>", shown, re.S)
    assert found, console
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


@pytest.mark.parametrize("width", [1400, 1200, 390])
def test_nothing_sticks_out_and_what_is_wider_says_so(page, width):
    found, _ = look(page, width=width)
    assert found["width"] == width
    assert found["overflow"] <= 1
    assert found["unreachable"] == [], "text that is cut off and cannot be scrolled to"
    assert found["silent"] == [], "a part that scrolls and does not show it"
    assert found["small"] == [], "text of a figure that is too small to be read"


def test_a_figure_that_scrolls_says_so_on_a_narrow_screen(page):
    """The hint depends on how far the page has been drawn, so it is waited for."""
    hint = "getComputedStyle(e, '::before').content.includes('scroll sideways')"
    figures = "[...document.querySelectorAll('figure.wide')]"
    with Chromium(390) as browser:
        browser.open(page.as_uri())
        browser.wait_for(f"{figures}.some((e) => {hint})")
        shown = browser.evaluate(f"{figures}.map((e) => [e.scrollWidth > e.clientWidth, {hint}])")
    assert [scrolls for scrolls, _ in shown] == [says for _, says in shown]


def test_names_in_figures_do_not_overlap(page):
    found, _ = look(page)
    assert found["texts_in_figures"] > 20
    assert found["overlaps"] == []


def test_the_search_box_shows_the_users_and_items_that_have_the_text(page):
    found, _ = look(page)
    assert found["search"]["boxes"] == 1
    assert found["search"]["all_at_first"]
    assert found["search"]["user"] == {"shown": 1, "open": 1, "says": found["search"]["one"], "hit": True}
    assert found["search"]["nothing"]["shown"] == 0
    assert found["search"]["markup"] == {"shown": 0, "elements": 0}
    assert found["search"]["restored"]


def test_the_policy_of_the_page_allows_its_own_script_alone(page):
    shown, console = browse(page)
    assert console == []
    assert re.search(r'<div class="search" role="search">', shown), "the script did not run"
    copy = page.with_name("attacked.html")
    attack = "<script>document.title = 'attacked'</script><img src='https://example.org/x.png'></body>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", attack), encoding="utf-8")
    shown, console = browse(copy)
    assert "<title>attacked" not in shown
    assert sum("Content Security Policy" in line for line in console) == 2
