"""The renderers, from a report made by hand: links, folds, the search box, its script and the policy of the page."""

import base64
import hashlib
import re
from html import escape
from html.parser import HTMLParser

import pytest

from recsys.report import exports
from recsys.report.html import render_html
from recsys.report.markdown import render_markdown
from recsys.report.parts import Details, Report, ReportTable, Section

EVIL = "</script><script>alert(1)</script>"


class Elements(HTMLParser):
    """The start tags of a page, each with its attributes and the text until the next tag."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.found:
            self.found[-1][2] += data


def elements(page, tag):
    return [(attributes, text.strip()) for name, attributes, text in Elements(page).found if name == tag]


TABLE = ReportTable(
    "means",
    ["model", "ndcg@10", "other"],
    [["ease", "0.4 [0.3, 0.5]", "1"], ["popular", "0.2", "2"]],
    bold=frozenset({(0, 1)}),
    notes={"popular": "baseline"},
    has_terms=True,
)
GLOSSARY = ReportTable("card", ["metric", "definition"], [["recall@10", "a"], ["ndcg@10", "b"]], 2, is_glossary=True)
LISTS = ReportTable(f"lists of {EVIL}", ["rank", "als"], [["1", EVIL]], 2)


@pytest.fixture
def report():
    search = Section("Examples", details=[Details(EVIL, [LISTS], is_open=True), Details("two", [LISTS])], search="Find")
    return Report(EVIL, "verdict", [Section("Models", tables=[TABLE]), search, Section("Card", tables=[GLOSSARY])])


def test_heads_that_are_terms_link_to_their_definition(report):
    page = render_html(report)
    links = [attributes["href"] for attributes, text in elements(page, "a") if text == "ndcg@10"]
    assert len(links) == 1
    (target,) = re.findall(rf'<tr id="{links[0][1:]}">(.*?)</tr>', page, re.S)
    assert "ndcg@10" in target
    assert [text for _, text in elements(page, "a") if text == "other"] == []


def test_a_term_of_two_glossaries_has_two_ids_and_links_to_the_first():
    page = render_html(Report("t", "v", [Section("s", tables=[TABLE, GLOSSARY, GLOSSARY])]))
    ids = [attributes["id"] for attributes, _ in elements(page, "tr") if "id" in attributes]
    assert len(ids) == len(set(ids)) == 4
    assert [attributes["href"] for attributes, text in elements(page, "a") if text == "ndcg@10"] == [f"#{ids[1]}"]


def test_bold_cells_and_notes_in_every_format(report):
    page = render_html(report)
    assert [text for attributes, text in elements(page, "td") if "bold" in attributes["class"]] == ["0.4"]
    assert [text for attributes, text in elements(page, "span") if attributes.get("class") == "note"] == ["baseline"]
    text = render_markdown(report)
    assert r"| ease | **0.4 \[0.3, 0.5\]** | 1 |" in text
    assert "| popular (baseline) | 0.2 | 2 |" in text
    files = exports.table_files(report)
    assert r"ease & \textbf{0.4 [0.3, 0.5]} & 1 \\" in files["01-means.tex"]
    assert files["01-means.csv"].splitlines()[2] == "popular,0.2,2"


def test_folds_are_details_and_their_tables_are_exported(report):
    page = render_html(report)
    assert ["open" in attributes for attributes, _ in elements(page, "details")] == [True, False]
    names = [name for name in exports.table_files(report) if name.endswith(".csv")]
    assert [name[:8] for name in names] == ["01-means", "02-lists", "03-lists", "04-card."]
    assert render_markdown(report).count("lists of") == 2


def test_the_script_has_no_text_of_the_run_and_the_policy_allows_it_alone(report):
    page = render_html(report)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert "alert" not in script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attributes["content"] for attributes, _ in elements(page, "meta") if "http-equiv" in attributes]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert page.count(escape(EVIL)) >= 5


def test_the_search_box_is_hidden_until_its_script_runs(report):
    page = render_html(report)
    assert [
        ("hidden" in attributes) for attributes, _ in elements(page, "div") if attributes.get("role") == "search"
    ] == [True]
    labels = {attributes["for"] for attributes, _ in elements(page, "label")}
    assert labels == {attributes["id"] for attributes, _ in elements(page, "input")}


def test_a_page_without_a_search_box_has_no_script():
    page = render_html(Report("t", "v", [Section("s", tables=[TABLE])]))
    assert elements(page, "script") == []
    (policy,) = [attributes["content"] for attributes, _ in elements(page, "meta") if "http-equiv" in attributes]
    assert "script-src 'none'" in policy


def test_settings_in_sentences_are_code_and_stay_escaped():
    section = Section("choice", ["run `recsys tune`", "one ` alone"], warnings=["raise `<b>` of `a & b`"])
    page = render_html(Report("title", "a `verdict`", [section]))
    assert "<p>run <code>recsys tune</code></p>" in page
    assert "<p>one ` alone</p>" in page
    assert "raise <code>&lt;b&gt;</code> of <code>a &amp; b</code></p>" in page
    assert "a <code>verdict</code></p>" in page
