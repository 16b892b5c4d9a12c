"""Reports of whole runs: every section renders, whatever the names; the page is one escaped, self-contained file."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from odd import LONG, ODD, odd_run, twelve

from recsys import config, flow, models
from recsys.report import exports, plots, write_report
from recsys.report.explanations import Explainer
from recsys.report.markdown import render_markdown
from recsys.report.parts import Report, ReportTable, Section
from recsys.report.run_reader import Run
from recsys.report.sections import lists
from recsys.report.sections.examples import _reason_rows, examples
from recsys.runfolder import RunFolder

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Every element, every id, and all text of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(Path(path, "report.html").read_text(encoding="utf-8"))
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def twelve_models(world, tmp_path_factory):
    return odd_run(world, tmp_path_factory.mktemp("twelve"), twelve())


@pytest.fixture(scope="module")
def one_model(world, tmp_path_factory):
    return odd_run(world, tmp_path_factory.mktemp("one"), {})


SECTIONS = [
    "Models",
    "Differences",
    "By group",
    "Cold start",
    "Beyond accuracy",
    "Accuracy against breadth",
    "Agreement between models",
]
SECTIONS += ["Is the order right: hits by rank", "Examples", "Training", "Item map", "Data", "Split", "Who was judged"]
SECTIONS += ["Time and memory", "Metric card", "Reproduce"]


def test_all_sections_with_twelve_models(twelve_models):
    text = Path(twelve_models, "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS
    assert len(json.loads(Path(twelve_models, "metrics.json").read_text())["models"]) == 12


def test_baselines_alone_have_no_item_map_and_no_training(one_model):
    text = Path(one_model, "report.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.M) == [name for name in SECTIONS if name not in ("Training", "Item map")]


def test_the_page_is_one_safe_file(twelve_models):
    path = Path(twelve_models, "report.html")
    page = Page(twelve_models)
    assert path.stat().st_size < 3_000_000
    tags = [tag for tag, _ in page.elements]
    assert not {"img", "link", "iframe", "b", "i"} & set(tags)
    assert tags.count("script") == 1
    loaded = [a for _, attrs in page.elements for key, a in attrs.items() if key in ("src", "href", "xlink:href")]
    assert all(target.startswith("#") for target in loaded)
    assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)


def test_ids_are_unique_and_every_reference_has_its_target(twelve_models):
    page = Page(twelve_models)
    assert len(page.ids) == len(set(page.ids))
    wanted = {a[1:] for _, attrs in page.elements for key, a in attrs.items() if key in ("href", "xlink:href")}
    wanted |= {attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs}
    wanted |= {
        name for _, attrs in page.elements for a in attrs.values() for name in re.findall(r"url\(#([^)]+)\)", a or "")
    }
    assert wanted <= set(page.ids)


def test_names_stay_what_they_are(twelve_models):
    text = " ".join("".join(Page(twelve_models).text).split())
    for title in ODD:
        assert " ".join(title.split())[:25] in text, title
    assert "<script>m3" in text


def test_a_thousand_characters_are_cut_in_lists_and_whole_in_groups(twelve_models):
    assert len(LONG) == 1000
    assert LONG in "".join(Page(twelve_models).text), "the group's name"
    examples = list(Path(twelve_models, "tables").glob("*-user-*.csv"))
    cells = [
        cell for path in examples for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))) for cell in row
    ]
    assert any("endless" in cell for cell in cells)
    assert max(map(len, cells)) < 150


def test_tables_stand_beside_the_report(twelve_models):
    rows = list(
        csv.reader(io.StringIO(Path(twelve_models, "tables/01-metric-by-model.csv").read_text(encoding="utf-8")))
    )
    assert rows[0] == ["model", "ndcg@5", "lead over the next", "recall@5"]
    means = json.loads(Path(twelve_models, "metrics.json").read_text(encoding="utf-8"))["models"]
    assert {row[0]: float(row[1].split()[0]) for row in rows[1:]} == {
        name: pytest.approx(cells["ndcg@5"]["mean"], abs=5e-5) for name, cells in means.items()
    }


def test_latex_is_escaped():
    content = Report(
        "t", "v", [Section("s", tables=[ReportTable("50 % & more", ["a_b", "n"], [["$x$ #1 {y} \\z ~^", "1"]])])]
    )
    text = exports.table_files(content)["01-50-more.tex"]
    assert r"\caption{50 \% \& more}" in text
    assert r"a\_b & n \\" in text
    assert r"\$x\$ \#1 \{y\} \textbackslash{}z \textasciitilde{}\textasciicircum{} & 1 \\" in text
    assert r"\begin{tabular}{lr}" in text


def test_examples_show_ten_places_with_ids_and_one_user_of_each_length_has_reasons(world, tmp_path):
    place = odd_run(world, tmp_path, {"als": {"rank": 4, "iterations": 3}}, recommend={"k": 12, "min_history": 0})
    run = Run(RunFolder.open(place))
    section = examples(run)
    lengths = np.searchsorted([1, 5, 20], run.users["n_history"], side="right")
    assert sum(fold.is_open for fold in section.details) == len(set(lengths))
    assert len(section.details) == sum(min(3, count) for count in np.bincount(lengths))
    for fold in section.details:
        shown, *why = fold.tables
        assert [row[0] for row in shown.rows] == [str(rank) for rank in range(1, 11)]
        assert shown.heads[1:] == run.models
        top = run.lists["als"]
        (user,) = [user for user in run.users["user_id"] if fold.summary.startswith(f"User {user}: ")]
        top = top.loc[top["user_id"] == user, "item_id"].to_list()
        column = shown.heads.index("als")
        assert all(row[column].endswith(f"({item})") for row, item in zip(shown.rows, top, strict=False))
        assert len(why) == fold.is_open


def test_neighbours_with_the_same_reason_share_a_row():
    assert _reason_rows(["a", "b", "c", "d"], ["x", "x", "y", "x"]) == [
        ["1 to 2", "a; b", "x"],
        ["3", "c", "y"],
        ["4", "d", "x"],
    ]


def test_nobody_judged_still_renders(world, tmp_path):
    place = odd_run(world, tmp_path, judge={"metrics": ["ndcg@5"], "relevant": 99.0, "resamples": 100})
    assert "No user could be judged" in Path(place, "report.md").read_text(encoding="utf-8")


def run_of(tmp_path, frames, metrics=None, k=2):
    """Return a Run over hand-written tables: name -> (user, item, rank) rows, and users, truth, history."""
    found = Run(RunFolder(tmp_path))
    found.__dict__ |= frames | {"metrics": metrics or {"models": {}, "about": {"primary": "ndcg@2"}}}
    found.__dict__["config"] = config.parse_config({"data": {"events": "e"}, "recommend": {"k": k}})
    return found


def test_hits_by_rank_by_hand():
    rows = [(1, 7, 1), (1, 8, 2), (2, 7, 1), (2, 9, 2), (3, 8, 1)]
    topk = pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])
    truth = pd.DataFrame([(1, 8), (2, 7), (2, 9), (3, 8)], columns=["user_id", "item_id"])
    found = lists._hits(topk, pd.Series([1, 2, 4]), truth, 3)  # 3 has no truth that counts, 4 has no list
    assert found.tolist() == [1 / 3, 2 / 3, 0]


def test_each_pair_of_models_agrees_in_one_row(tmp_path):
    table = {
        name: pd.DataFrame(
            [(1, item, rank) for rank, item in enumerate(items, start=1)], columns=["user_id", "item_id", "rank"]
        )
        for name, items in {"a": [1, 2], "b": [2, 1], "c": [1, 3], "nobody": []}.items()
    }
    means = {name: {"ndcg@2": {"mean": 0.1}} for name in table}
    metrics = {"models": means, "about": {"primary": "ndcg@2"}}
    section = lists.model_agreement(
        run_of(tmp_path, {"lists": table, "users": pd.DataFrame({"user_id": [1]})}, metrics)
    )
    rows = section.tables[0].rows
    assert sorted(map(sorted, (row[:2] for row in rows))) == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert [float(row[3]) for row in rows] == sorted((float(row[3]) for row in rows), reverse=True)
    assert section.figures == []


def test_a_dominated_model_is_named():
    panels = {
        "coverage": {"good": (0.5, 0.3), "poor": (0.4, 0.2), "broad": (0.9, 0.1)},
        "novelty": {"good": (3.0, 0.3), "poor": (3.0, 0.2), "broad": (5.0, 0.1)},
    }
    assert lists._dominated(panels) == "Dominated here: poor."


def test_reasons_are_those_that_the_model_gives(world, tmp_path):
    place = odd_run(world, tmp_path, {"ease": {}})
    run = Run(RunFolder.open(place))
    explainer = Explainer.for_run(run)
    user = run.users.loc[run.users["n_history"].idxmax(), "user_id"]
    top = run.lists["ease"].query("user_id == @user").iloc[0]
    text = explainer.explain(user, top["item_id"], "ease")
    shares = [int(share) for share in re.findall(r"(\d+)%", text)]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100
    cold = run.users.loc[run.users["n_history"] == 0, "user_id"]
    if len(cold):
        reason = explainer.explain(cold.iloc[0], top["item_id"], "popular")
        assert reason == "from the fallback, popular: not enough is known of this user"


def test_a_blend_tells_its_parts(world, tmp_path):
    place = odd_run(world, tmp_path, {"blend": {"parts": {"itemknn": {}, "content": {}}}})
    run = Run(RunFolder.open(place))
    user = run.users.loc[run.users["n_history"].idxmax(), "user_id"]
    item = run.lists["blend"].query("user_id == @user")["item_id"].iloc[0]
    reason = Explainer.for_run(run).explain(user, item, "blend")
    assert re.fullmatch(r"(itemknn|content) \d+%(; (itemknn|content) \d+%)?", reason)


def test_reasons_are_told_as_they_are(world, tmp_path):
    """A bias is everyone's; without anything of the user's in the score, or without a score, that is said."""
    place = odd_run(world, tmp_path, {"bpr": {"rank": 3, "iterations": 5}})
    run = Run(RunFolder.open(place))
    user = run.users.loc[run.users["n_history"].idxmax(), "user_id"]
    item = run.lists["bpr"].query("user_id == @user")["item_id"].iloc[0]
    explainer = Explainer.for_run(run)

    def told(name, **changes):
        model = models.load(RunFolder.open(place).path / "model" / name)
        own = next(iter(model.members.values()), model)
        for attribute, value in changes.items():
            setattr(own, attribute, value)
        return replace(explainer, model=model).explain(user, item, name)

    plenty = np.full(len(explainer.items), 50.0, dtype=np.float32)
    assert re.match(r"the same for everyone \d\d%", told("bpr", bias_=plenty))
    assert re.fullmatch(r"(liked .* \d+%(; )?)+(; shares [^;]+)?", told("bpr", bias_=0 * plenty))
    nothing = told("bpr", bias_=-plenty, item_factors_=np.zeros((len(plenty), 3), np.float32))
    assert nothing == "nothing in the history counts in favour of it"
    assert told("popular") == "The score is the same for everyone."
    assert told("random") == "The score is drawn at random."
    unknown = np.arange(len(plenty)) != explainer.items.rows([item])[0]
    assert told("bpr", known_=unknown) == "no opinion on it"


def test_drawings_survive_any_name():
    names = [*ODD, "$", "_"]
    points = {name: (float(place), 0.0) for place, name in enumerate(names)}
    drawn = [
        plots.scatter(points, "x", "y", names[0]),
        plots.lines({name: np.array([0.1, np.nan]) for name in names}, "x", "y", names[1]),
        plots.bars(dict.fromkeys(names, 1.0), "seconds"),
        plots.cloud(np.random.default_rng(0).normal(size=(20, 2)), dict(enumerate(names)), "x", "y"),
    ]
    for svg in drawn:
        assert svg.startswith("<svg")
        assert "<script" not in svg


def test_writing_again_leaves_no_old_table(world, tmp_path):
    place = odd_run(world, tmp_path, {})
    Path(place, "tables/99-old.csv").write_text("old")
    Path(place, "tables/mine.csv").write_text("mine")
    write_report(place)
    assert not Path(place, "tables/99-old.csv").exists()
    assert Path(place, "tables/mine.csv").read_text() == "mine"


def test_the_sample_is_the_users_alone(world, tmp_path):
    raw = {
        "out": str(tmp_path / "run"),
        "data": {"events": str(tmp_path / "events.parquet")},
        "models": {},
        "judge": {"resamples": 100},
    }
    world.events.to_parquet(tmp_path / "events.parquet", index=False)
    flow.run(config.parse_config(raw))
    small, whole = (Run(RunFolder.open(raw["out"]), max_users=size) for size in (10, 10_000))
    assert len(small.users) == 10 < len(whole.users)
    assert set(small.lists["popular"]["user_id"]) == set(small.users["user_id"])
    assert set(small.history["user_id"]) <= set(small.users["user_id"])


def test_heads_and_titles_of_markdown_are_escaped():
    table = ReportTable("a|b", ["model", "<b>|x"], [["als", "1"]])
    text = render_markdown(Report("run", "", [Section("a <b> *c*", tables=[table])]))
    assert r"## a \<b\> \*c\*" in text
    assert r"| model | \<b\>\|x |" in text
