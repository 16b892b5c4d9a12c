"""The command line as a user meets it: help, wrong words, an interrupt, the second run over the first."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from recsys import flow
from recsys.cli import exit_code_of, load_command, run_verb


def verbs(command, words=()):
    if below := getattr(command, "commands", None):
        for name in below:
            yield from verbs(below[name], (*words, name))
    else:
        yield words


VERBS = sorted(verbs(load_command()))


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_explains_itself_with_an_example(words, capsys):
    assert run_verb([*words, "--help"]) == 0
    assert "Example" in capsys.readouterr().out


def test_help_has_the_verbs_in_the_order_of_their_use(capsys):
    assert run_verb(["--help"]) == 0
    listed = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│ ")]
    assert listed[:2] == ["--help", "demo"]
    used = ["demo", "run", "report", "check", "recommend", "evaluate", "compare", "bundle", "serve", "doctor"]
    assert [verb for verb in listed if verb in used] == used


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_help_breaks_a_line_only_where_the_next_word_does_not_fit(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run_verb([*words, "--help"]) == 0
    lines = capsys.readouterr().out.split("╭")[0].splitlines()
    for line, following in pairwise(line.strip() for line in lines):
        if line and following:
            assert len(line) + 1 + len(following.split()[0]) > 78, line


@pytest.mark.parametrize(
    "words", [["rnu"], ["run"], ["run", "config.toml", "--nope"], ["demo", "extra"], ["data", "make"]], ids=" ".join
)
def test_wrong_words_exit_with_2(words, capsys):
    assert run_verb(words) == 2
    assert "Error" in capsys.readouterr().err


def test_a_missing_config_is_named(capsys):
    assert run_verb(["run", "nowhere.toml"]) == 2
    assert "nowhere.toml: no such config file" in capsys.readouterr().err


def test_doctor_finds_this_installation_whole(capsys):
    assert run_verb(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "compiled" in said
    assert "broken" not in said


def test_check_prints_one_json_object(world_files, capsys):
    assert run_verb(["check", str(world_files["events"]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["refused"]["total"] == 0
    assert found["events"] == len(world_files["events"].read_text().splitlines()) - 1


@pytest.fixture
def config(tmp_path, world_files):
    path = tmp_path / "config.toml"
    path.write_text(
        f"out = '{tmp_path}/run'\n[data]\nevents = '{world_files['events']}'\n[models.als]\nrank = 4\niterations = 2\n"
    )
    return path


@pytest.mark.slow
def test_the_folder_of_a_run_can_be_named_and_what_comes_next_be_pasted(config, tmp_path, capsys):
    place = tmp_path / "Ann's runs" / "first"
    assert run_verb(["run", str(config), "--out", str(place)]) == 0
    assert sorted(os.listdir(tmp_path)) == ["Ann's runs", "config.toml"]
    proposed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    words = shlex.split(proposed.removeprefix("next: ").partition(",")[0])
    assert words == ["recsys", "recommend", str(place), "--user", "ID"]
    assert run_verb(["run", str(config), "--out", ""]) == 2


@pytest.mark.slow
def test_refused_rows_are_told_at_the_end(config, world_files, capsys):
    events = config.parent / "events.csv"
    head, *rows = Path(world_files["events"]).read_text().splitlines()
    events.write_text("\n".join([head, *rows, ",f01,4.0,1500000000", ",f02,4.0,1500000000"]) + "\n")
    assert run_verb(["run", str(config), "--set", f"data.events={events}"]) == 0
    place = config.parent / "run"
    expected = f"2 rows were refused (missing user id: 2); see {place / 'refused.csv'}"
    assert expected in capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_second_run_replaces_the_first_and_says_the_same(config, capsys):
    assert run_verb(["run", str(config)]) == 0
    place = config.parent / "run"
    first = {name: (place / name).read_bytes() for name in ("metrics.json", "per_user.parquet", "topk/als.parquet")}
    assert run_verb(["run", str(config)]) == 0
    assert first == {name: (place / name).read_bytes() for name in first}
    assert sorted(os.listdir(config.parent)) == ["config.toml", "run"]
    assert run_verb(["report", str(place)]) == 0
    assert "als" in capsys.readouterr().out


@pytest.mark.slow
def test_run_and_bundle_replace_only_their_own_kind(config, tmp_path, capsys):
    app, run, bundle = tmp_path / "app", tmp_path / "run", tmp_path / "bundle"
    app.mkdir()
    (app / "manifest.json").write_text("{}")
    (app / "thesis.txt").write_text("years of work")
    assert run_verb(["run", str(config), "--set", f"out={app}"]) == 2
    assert run_verb(["run", str(config)]) == 0
    assert run_verb(["bundle", str(run), str(app)]) == 2
    assert sorted(os.listdir(app)) == ["manifest.json", "thesis.txt"]
    for _ in range(2):
        assert run_verb(["bundle", str(run), str(bundle)]) == 0
    manifests = [json.loads((place / "manifest.json").read_text()) for place in (run, bundle)]
    assert [manifest.pop("kind") for manifest in manifests] == ["run", "bundle"]
    assert manifests[0] == manifests[1]
    whole = {place: sorted(place.rglob("*")) for place in (run, bundle)}
    capsys.readouterr()
    assert run_verb(["bundle", str(run), str(run)]) == 2
    assert "this is a run, and a bundle replaces only a bundle" in " ".join(capsys.readouterr().err.split())
    assert run_verb(["bundle", str(bundle), str(bundle)]) == 2
    assert run_verb(["run", str(config), "--set", f"out={bundle}"]) == 2
    assert run_verb(["run", str(config), "--set", f"data.events={run}/split/train.parquet"]) == 2
    assert "is read from this folder" in " ".join(capsys.readouterr().err.split())
    assert whole == {place: sorted(place.rglob("*")) for place in whole}


def test_a_model_is_not_written_outside_the_run_folder(config, tmp_path, capsys):
    out = f"out={tmp_path}/a/b/run"
    assert run_verb(["run", str(config), "--set", out, "--set", 'models={"../../evil"={model="popular"}}']) == 2
    assert "config.toml: models: a model's name is also a file name" in " ".join(capsys.readouterr().err.split())
    assert os.listdir(tmp_path) == ["config.toml"]


@pytest.mark.parametrize("fails", [False, True], ids=["and the work goes on", "and the work fails"])
def test_an_interrupt_that_python_ignores_in_a_callback_still_ends_the_verb(fails, capsys):
    class Callback:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work():
        callback = Callback()
        del callback
        if fails:
            raise RuntimeError("the callback did not do its work")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            pass

    assert exit_code_of(work) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.subprocess
def test_an_interrupt_leaves_nothing_behind(config):
    """Long enough to be met in the middle: the run's unfinished folder shows that it is under way."""
    words = ["-c", "from recsys.cli import main; main()", "run", str(config), "--set", "models.als.iterations=1000000"]
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True) as running:
        try:
            deadline = time.monotonic() + 60
            while not list(config.parent.glob(".run.*.part/split.json")) and time.monotonic() < deadline:
                assert running.poll() is None, running.stderr.read()
            running.send_signal(signal.SIGINT)
            said = running.communicate(timeout=60)[1]
        finally:
            running.kill()
    assert running.returncode == 130, said
    assert "interrupted" in said
    assert os.listdir(config.parent) == ["config.toml"]


@pytest.mark.slow
def test_run_takes_the_path_of_a_config_in_python_too(tmp_path):
    (tmp_path / "e.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{n % 9},i{n % 5},{n}\n" for n in range(90))
    )
    text = f"out = '{tmp_path}/run'\n[data]\nevents = '{tmp_path}/e.csv'\n[models.popular2]\nmodel = 'popular'\n"
    (tmp_path / "c.toml").write_text(text)
    assert "popular2" in flow.run(tmp_path / "c.toml")["models"]


@pytest.mark.parametrize("words", ["check {}", "lab {}", "report {}", "onboard {}", "evaluate {} {}"])
def test_a_name_that_is_too_long_is_refused(words, capsys):
    assert run_verb(words.replace("{}", "a" * 300).split()) == 2
    assert "error: " + "a" * 300 + ": File name too long." in capsys.readouterr().err.replace("\n", "")


def test_a_path_without_permission_is_refused_but_other_errors_of_the_system_are_bugs(capsys):
    def work(*arguments):
        raise OSError(*arguments)

    assert exit_code_of(lambda: work(errno.EACCES, "Permission denied", "secret/e.csv")) == 2
    assert capsys.readouterr().err == "error: secret/e.csv: Permission denied. Check the path and its permissions.\n"
    assert exit_code_of(lambda: work(errno.EACCES, "Permission denied")) == 1
    assert exit_code_of(lambda: work(errno.ENOENT, "No such file or directory", "e.csv")) == 1
