"""``recsys lab`` on files: JSON, page, and what is refused."""

import json
from html.parser import HTMLParser

import pandas as pd
import pytest

from recsys.cli import run_verb


class Text(HTMLParser):
    """Collects what a reader sees, and every tag."""

    def __init__(self):
        super().__init__()
        self.seen, self.tags = [], []

    def handle_data(self, data):
        self.seen.append(data)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)


@pytest.mark.slow
def test_page_and_json(world_files, tmp_path, capsys):
    folder = tmp_path / "lab"
    log = pd.read_csv(world_files["events"]).rename(columns={"user_id": "viewer"})
    log.to_csv(tmp_path / "log.txt", sep=";", index=False)
    reading = ["--delimiter", ";", "--column", "user_id=viewer"]
    arguments = ["lab", str(tmp_path / "log.txt"), *reading, "-m", "tau_b", "-m", "overlap@10", "--pairs", "200"]
    assert run_verb([*arguments, "--out", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "lab.json").read_text()) == found
    assert set(found["measures"]) == {"tau_b", "overlap@10"}
    assert len(found["mallows"]) == 10
    assert 0 <= found["labelled"]["measures"]["tau_b"]["auc"] <= 1
    page = Text()
    page.feed((folder / "lab.html").read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 3
    assert "script" not in page.tags
    assert "Is this ranking from my model or from another user's?" in page.seen


def test_a_folder_that_cannot_be_is_said_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run_verb(["lab", "/nothing/there.csv", "-m", "rbo", "--out", str(tmp_path / "file" / "lab")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_options_on_files_need_a_file(tmp_path, capsys):
    assert run_verb(["lab", "--delimiter", ";", "--out", str(tmp_path / "lab")]) == 2
    assert "need a file of events" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_events_without_ratings_and_misspelt_measures_are_refused(tmp_path, capsys):
    (tmp_path / "clicks.csv").write_text("user_id,item_id\nu,x\n")
    assert run_verb(["lab", str(tmp_path / "clicks.csv"), "-m", "tua_b", "-m", "rbbo"]) == 2
    error = capsys.readouterr().err
    assert "'tau_b'" in error
    assert "'rbo'" in error
