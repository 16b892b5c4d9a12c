"""No verb replaces a file of the user, and what cannot be written is refused before the work."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from interruptions import digest

from recsys.cli import exit_code_of, run_verb
from recsys.config import load_config, parse_config
from recsys.errors import ConfigError, MissingExtra
from recsys.flow import require_feasible, run
from recsys.replacing import MANIFEST_KEYS, require_replaceable_file
from recsys.runfolder import RunFolder

ROOT = Path(__file__).resolve().parent.parent.parent

EVENTS = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user * step) % 7},{user + 10 * step}\n" for user in range(12) for step in range(1, 6)
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a log, a config, a file of user ids, and a file that no verb knows."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "events.csv").write_text(EVENTS)
    (folder / "config.toml").write_text(
        "out = 'run'\n[data]\nevents = 'events.csv'\n[models.popular2]\nmodel = 'popular'\n[judge]\nresamples = 100\n"
    )
    (folder / "users.txt").write_text("u1\nu2\n")
    (folder / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, *words):
    """Return what a call prints that must end with exit code 2 and one message."""
    assert run_verb([str(word) for word in words]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in message
    return message


def never(*arguments, **options):
    raise AssertionError("the work has begun")


@pytest.mark.slow
def test_the_report_is_part_of_the_run(place):
    run(load_config("config.toml"))
    names = set(os.listdir("run"))
    assert {"report.html", "report.md", "tables", "_SUCCESS"} <= names
    assert "<title>run" in Path("run/report.html").read_text()
    assert "recsys-" not in Path("run/report.html").read_text()


@pytest.mark.slow
def test_a_report_that_cannot_be_written_leaves_the_older_run(place, monkeypatch):
    run(load_config("config.toml"))
    before = digest(place)
    monkeypatch.setattr("recsys.report.render_html", never)
    with pytest.raises(AssertionError):
        run(load_config("config.toml"))
    assert digest(place) == before


def test_a_missing_library_of_the_report_is_named_before_the_work(place, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("recsys.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("recsys.local_engine.read_tables", never)
    with pytest.raises(MissingExtra, match="pip install matplotlib"):
        run(load_config("config.toml"))
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models={ease={reg=inf}}", "models.ease.reg is inf, but a setting is a finite number"),
        ("models={ease={reg=nan}}", "models.ease.reg is nan"),
        ("recommend.segment_prior=inf", "recommend.segment_prior is inf"),
        ("engine=local models={ease={rge=1}}", "unknown parameter"),
        ("engine=local models={x={model='eas'}}", "unknown model 'eas'"),
        ("out=.", "not a folder that recsys wrote"),
        ("out=..", "not a folder that recsys wrote"),
        ("out=/", "not a folder that recsys wrote"),
        ("out=dangling", "a link to nowhere, which does not exist"),
        ("out=dangling/run", "a link to nowhere, which does not exist"),
        ("out=s3a://bucket/run", "this is a URI"),
        ("out=thesis.txt", "a file is where the run folder should go"),
        ("out=thesis.txt/run", "the run folder cannot be written"),
        ("out=/proc/nothing/run", "the run folder cannot be written"),
        ("out=" + "x" * 300, "longer than this file system allows"),
        ('out="a\\u0000b"', "NUL character"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_before_the_work(place, monkeypatch, capsys, setting, message):
    monkeypatch.setattr("recsys.local_engine.read_tables", never)
    monkeypatch.setattr("recsys.route.measure_log", never)
    os.symlink("nowhere", "dangling")
    before = digest(place.parent)
    words = [word for override in setting.split(" ") for word in ("--set", override)]
    assert message in refused(capsys, "run", "config.toml", *words)
    assert digest(place.parent) == before


def test_all_wrong_models_are_named_at_once(place, monkeypatch, capsys):
    monkeypatch.setattr("recsys.local_engine.read_tables", never)
    mix = "{model='blend', parts={a={model='alss'}, ease={reg=-1}}}"
    models = (
        "{x={model='eas'}, y={model='ease', rge=1, reg=-1}, als={rank='a', rnak=3}, popular={}, z={model=[1]}, "
        f"mix={mix}, hybrid={{parts=['asl', 'eas']}}}}"
    )
    message = refused(capsys, "run", "config.toml", "--set", "engine=local", "--set", f"models={models}")
    assert message.count("[models.") == 10
    assert "[models.mix] model 'blend': parts.a: unknown model 'alss'. Did you mean 'als'?" in message
    assert "[models.mix] model 'blend': parts.ease: model 'ease': reg: must be " in message
    assert "[models.hybrid] model 'hybrid': parts: it cannot use 'asl'. Did you mean 'als'?" in message
    assert "[models.hybrid] model 'hybrid': parts: it cannot use 'eas'. Did you mean 'ease'?" in message
    assert "[models.z] unknown model '[1]'" in message
    assert "[models.x] unknown model 'eas'. Did you mean 'ease'?" in message
    assert "[models.y] model 'ease': unknown parameter 'rge'. Did you mean 'reg'?" in message
    assert "[models.y] model 'ease': reg: must be " in message
    assert "[models.als] model 'als': unknown parameter 'rnak'. Did you mean 'rank'?" in message
    assert "[models.als] model 'als': rank: must be a whole number (it is 'a')" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "events.csv", "--refused", "x" * 300), "longer than this file system allows"),
        (("check", "events.csv", "--refused", "new/.."), "there is no folder new"),
        (("check", "events.csv", "--refused", "\udcff"), "must be UTF-8 text"),
        (("data", "make", "\udcff"), "must be UTF-8 text"),
        (("data", "make", "x" * 300), "longer than this file system allows"),
        (("bundle", "run", "\udcff"), "must be UTF-8 text"),
    ],
)
def test_names_that_no_output_can_have_are_refused_before_anything_is_made(place, capsys, words, message):
    before = digest(place.parent)
    assert message in refused(capsys, *words)
    assert digest(place.parent) == before


def test_an_empty_working_folder_is_not_replaced(place, monkeypatch, capsys):
    (place / "empty").mkdir()
    monkeypatch.chdir(place / "empty")
    message = refused(
        capsys, "run", place / "config.toml", "--set", f"data.events={place}/events.csv", "--set", "out=."
    )
    assert "the working folder" in message
    assert Path.cwd().samefile(place / "empty")


def test_settings_that_config_toml_cannot_hold_are_refused_in_python_too(place):
    config = parse_config({"data": {"events": "events.csv"}, "models": {"ease": {}}})
    for models in ({"ease": {"reg": float("inf")}}, {"ease": {"reg": [None]}}, {"ease": {"name": "\udcff"}}):
        with pytest.raises(ConfigError, match=r"cannot be written to config\.toml"):
            require_feasible(config.model_copy(update={"models": models}))


@pytest.mark.slow
def test_a_link_to_a_run_folder_stays_a_link(place):
    (place / "disk").mkdir()
    os.symlink(place / "disk", "run")
    for _ in range(2):
        run(load_config("config.toml"))
    assert (place / "run").is_symlink()
    assert (place / "disk" / "_SUCCESS").exists()
    assert not [name for name in os.listdir(place) if name.startswith(".")]


FILES = {
    "recommend": ["recommend", "run", "--users", "users.txt", "--out"],
    "ab assign": ["ab", "assign", "users.txt", "--name", "x", "--out"],
    "check": ["check", "events.csv", "--refused"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", FILES.values(), ids=FILES)
def test_a_verb_replaces_only_files_that_it_wrote(place, capsys, words):
    assert run_verb(["run", "config.toml"]) == 0
    os.symlink("nowhere", "dangling")
    os.symlink("thesis.txt", "link")
    os.mkdir("folder")
    (place / "mine.csv").write_text("user_id,item_id,rank\nu1,i1,1\n")
    before = digest(place)
    for out, message in (
        ("thesis.txt", "recsys did not write it"),
        ("link", "recsys did not write it"),
        ("mine.csv", "recsys did not write it"),
        ("events.csv", "not replaced|recsys did not write it"),
        ("dangling", "a link to nowhere"),
        ("folder", "a folder is where the file should go"),
        ("thesis.txt/lists.csv", "there is no folder thesis.txt|cannot be written"),
    ):
        said = refused(capsys, *words, out)
        assert any(part in said for part in message.split("|")), said
        assert digest(place) == before
    assert run_verb([*words, "new.csv"]) == 0
    first = (place / "new.csv").read_bytes()
    (place / "empty.csv").touch()
    for out in ("new.csv", "empty.csv"):
        assert run_verb([*words, out]) == 0
        assert (place / out).read_bytes() == first


def test_a_file_that_is_read_is_not_replaced(place):
    (place / "lists.csv").write_text("user_id,item_id,rank,score,source\nu1,i1,1,1,als\n")
    with pytest.raises(Exception, match="this file is read"):
        require_replaceable_file(Path("lists.csv"), lambda start: True, "--out", [None, place / "lists.csv"])


@pytest.mark.slow
def test_a_made_up_world_replaces_only_an_unchanged_world(place, capsys):
    make = ["data", "make", "world", "--users", "20", "--items", "8", "--events", "200"]
    for _ in range(2):
        assert run_verb(make) == 0
    assert sorted(os.listdir("world")) == ["events.csv", "items.csv", "users.csv", "world.json"]
    for folder in (".", "run"):
        (place / "run").mkdir(exist_ok=True)
        (place / "run" / "events.csv").write_text(EVENTS)
        before = digest(place)
        assert "left alone" in refused(capsys, "data", "make", folder)
        assert digest(place) == before
    with (place / "world" / "events.csv").open("a") as file:
        file.write("u1,i1,5,1\n")
    assert "events.csv was changed" in refused(capsys, *make)
    assert run_verb(["data", "make", "other", *make[3:]]) == 0
    (place / "other" / "notes.txt").write_text("mine")
    assert "notes.txt" in refused(capsys, "data", "make", "other")
    for card in ("[]", "{}", '{"kind": "world", "files": []}', '{"kind": "world", "files": {"../thesis.txt": "x"}}'):
        (place / "other" / "world.json").write_text(card)
        assert "left alone" in refused(capsys, "data", "make", "other")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("study.log", "a line\n"),
        ("study.log", '{"op_code": 0, "worker_id": "x", "study_name": "mine", "directions": [2]}\n'),
        ("study.log", "[]\n"),
        ("report.html", "<html>mine</html>"),
        ("best.toml", "x = 1\n"),
        ("tuning.json", "{}"),
    ],
)
def test_a_search_leaves_foreign_files_alone(place, capsys, name, text):
    pytest.importorskip("optuna")
    (place / "tune").mkdir()
    (place / "tune" / name).write_text(text)
    before = digest(place)
    assert "left alone" in refused(capsys, "tune", "config.toml", "--out", "tune")
    assert digest(place) == before


@pytest.mark.slow
def test_a_search_does_not_write_into_a_run(place, capsys):
    pytest.importorskip("optuna")
    assert run_verb(["run", "config.toml"]) == 0
    before = digest(place)
    assert "left alone" in refused(capsys, "tune", "config.toml", "--out", "run")
    assert digest(place) == before


OUTPUTS = {
    "run": ["run", "config.toml", "--set", "out=PLACE/x"],
    "check": ["check", "events.csv", "--refused", "PLACE/x.csv"],
    "tune": ["tune", "config.toml", "--out", "PLACE"],
    "tune below": ["tune", "config.toml", "--out", "PLACE/x"],
    "lab": ["lab", "events.csv", "--out", "PLACE"],
    "lab below": ["lab", "events.csv", "--out", "PLACE/x"],
    "ab assign": ["ab", "assign", "users.txt", "--name", "x", "--out", "PLACE/x.csv"],
    "data make": ["data", "make", "PLACE/x"],
}


@pytest.mark.parametrize("words", OUTPUTS.values(), ids=OUTPUTS)
def test_nothing_is_written_into_a_run_or_a_bundle_or_to_a_uri(place, capsys, words):
    """A bundle with a further file is refused by its readers, and a run with one is not replaced."""
    pytest.importorskip("optuna")
    for kind in ("run", "bundle"):
        (place / kind / "model").mkdir(parents=True)
        (place / kind / "manifest.json").write_text(json.dumps(dict.fromkeys(MANIFEST_KEYS) | {"kind": kind}))
        (place / kind / "_SUCCESS").touch()
    before = digest(place)
    for folder, message in (("run", "is a run, which"), ("bundle/model", "is a bundle, which"), ("s3a://b/c", "URI")):
        assert message in refused(capsys, *[word.replace("PLACE", folder) for word in words])
        assert digest(place) == before


def test_the_lab_replaces_only_its_own_files(place, capsys):
    (place / "lab").mkdir()
    for name in ("lab.json", "lab.html"):
        (place / "lab" / name).write_text('{"mine": 1}')
        before = digest(place)
        assert "left alone" in refused(capsys, "lab", "events.csv", "--out", "lab")
        assert digest(place) == before
        (place / "lab" / name).unlink()


NAMES = ["[ab]", "a*b", "r?n", "{x}", ".hidden", "-dash", "sp ace", "ü", "a.part", ".run.recsys-0123456789abcdef.x"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names_like_others(place, name):
    """Around it are folders that the name would match as a pattern."""
    for other in ("a", "b", "axb", "run", "x", ".a.recsys.part"):
        (place / other).mkdir()
        (place / other / "thesis.txt").write_text("years of work")
    before = digest(place)
    for _ in range(2):
        with RunFolder.writing(name) as folder:
            folder.write_manifest(seed=0, inputs={}, hops=[], started=datetime.now(UTC))
        assert sorted(os.listdir(name)) == ["_SUCCESS", "manifest.json"]
    for path in sorted((place / name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (place / name).rmdir()
    assert digest(place) == before


INTERRUPTED = """
import builtins, sys
from recsys.cli import main
real = builtins.__import__
def interrupt(name, *arguments):
    if name.startswith(sys.argv[1]):
        raise KeyboardInterrupt
    return real(name, *arguments)
builtins.__import__ = interrupt
main(["check", "events.csv"])
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("module", ["typer", "pandas", "recsys.data.reading"])
def test_an_interrupt_during_the_imports_is_one_line(place, module):
    options = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, module], **options)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1:] == ["interrupted: no result is half-written"]
    assert "Traceback" not in done.stderr


JOB = """
import runpy, sys
import recsys.cli
def interrupt(*arguments, **options):
    raise KeyboardInterrupt
sys.modules["recsys.config"] = type(sys)("recsys.config")
sys.modules["recsys.config"].__getattr__ = interrupt
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("job", [["recommend", "run", "--out", "lists"], ["evaluate", "recs.csv", "truth.csv"]])
def test_an_interrupt_of_a_job_is_one_line(place, job):
    options = {"capture_output": True, "text": True, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    code = JOB.replace("sys.argv[1]", repr(str(ROOT / "jobs" / f"{job[0]}.py")))
    done = subprocess.run([sys.executable, "-c", code, *job[1:]], **options)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["interrupted: no result is half-written"]


def interrupted_kernel(reason):
    """Python raises this if compiled code returns a result after an exception, such as Ctrl-C."""
    raise SystemError("CPUDispatcher(…) returned a result with an exception set") from reason


def failed_model(reason):
    try:
        interrupted_kernel(reason)
    except SystemError as error:
        raise ConfigError("model 'mine:Own': fit failed") from error


@pytest.mark.parametrize("work", [interrupted_kernel, failed_model])
def test_an_interrupt_of_a_kernel_is_one_line(work, capsys):
    assert exit_code_of(lambda: work(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted: no result is half-written\n"


def test_another_error_of_a_kernel_is_a_bug(capsys):
    assert exit_code_of(lambda: interrupted_kernel(ValueError("a wrong result"))) == 1
    assert "This is a bug in recsys" in capsys.readouterr().err


def failed_clean_up():
    try:
        raise KeyboardInterrupt
    finally:
        raise ConfigError("runs/new is left half-written: remove it")


def test_an_error_of_a_clean_up_after_an_interrupt_is_printed(capsys):
    assert exit_code_of(failed_clean_up) == 2
    assert capsys.readouterr().err == "error: runs/new is left half-written: remove it\n"


def test_world_card_names_every_file(place):
    assert run_verb(["data", "make", "world", "--users", "20", "--items", "8", "--events", "200"]) == 0
    card = json.loads((place / "world" / "world.json").read_text())
    assert card["kind"] == "world"
    assert sorted(card["files"]) == ["events.csv", "items.csv", "users.csv"]
