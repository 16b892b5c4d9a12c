"""Ten kinds of broken input: exit code 2, a message that names file, place and remedy, and nothing that looks whole."""

import os
import zipfile

import numpy as np
import pandas as pd
import pytest

from recsys.cli import run_verb

GOOD = "".join(f"u{n % 20},i{n % 13},{1 + n % 5},{1_000_000 + n}\n" for n in range(200))
HEADER = "user_id,item_id,value,timestamp\n"


def csv(text):
    def make(folder):
        path = folder / "events.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def truncated_parquet(folder):
    path = folder / "events.parquet"
    pd.DataFrame({"user_id": range(1000), "item_id": range(1000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    return path


MANY = b"Zo\xeb,x,1,5\n"
BROKEN = {
    "empty file": (csv(""), [], ["no rows", "the file is empty"]),
    "header only": (csv(HEADER), [], ["no rows", "nothing but a header"]),
    "wrong delimiter": (csv((HEADER + GOOD).replace(",", ";")), [], ["one column only", "';'", "[data] delimiter"]),
    "missing column": (csv("user,item_id\na,b\n"), [], ["No column 'user_id'", "'user'", "[data.columns]"]),
    "all rows bad": (csv(HEADER + ",x,1,5\n" * 30), [], ["30 of 30 rows", "missing user id: 30", "line 2"]),
    "nan and inf": (
        csv(HEADER + GOOD + "a,b,nan,5\na,b,inf,5\n" * 10),
        [],
        ["20 of 220 rows", "non-finite value: 20", "line 202", "max_refused_share"],
    ),
    "mixed encodings": (
        csv((HEADER + GOOD + "Zoë,x,1,5\n").encode() + MANY * 20),
        [],
        ["20 of 221 rows", "undecodable bytes: 20", "line 203"],
    ),
    "truncated parquet": (truncated_parquet, [], ["not a readable Parquet"]),
    "unknown config key": (csv(HEADER + GOOD), ["--set", "data.delimeter=;"], ["[data] delimeter", "'delimiter'"]),
    "unwritable output": (csv(HEADER + GOOD), ["--set", "out=wall/run"], ["wall/run", "Choose another folder"]),
}
OTHERWISE_NAMED = {"unknown config key": "run.toml", "unwritable output": "wall/run"}
ENGINES = ["local", pytest.param("spark", marks=pytest.mark.spark)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_input(kind, engine, tmp_path, monkeypatch, capsys, request):
    if engine == "spark":
        request.getfixturevalue("spark")
    monkeypatch.chdir(tmp_path)
    make, arguments, says = BROKEN[kind]
    events = make(tmp_path)
    (tmp_path / "wall").write_text("a file where a folder should be")
    config = tmp_path / "run.toml"
    config.write_text(f'out = "runs/one"\nengine = "{engine}"\n[data]\nevents = "{events}"\n[models.als]\n')
    before = {path for path in tmp_path.rglob("*") if "_SUCCESS" in path.name}

    assert run_verb(["run", "run.toml", *arguments]) == 2

    said = capsys.readouterr().err
    for part in [OTHERWISE_NAMED.get(kind, events.name), *says]:
        if not (engine == "spark" and part.startswith("line ")):  # there a row is shown by its text alone
            assert part in said
    assert "Traceback" not in said
    assert {path for path in tmp_path.rglob("*") if "_SUCCESS" in path.name} == before
    left = list((tmp_path / "runs").iterdir()) if (tmp_path / "runs").exists() else []
    assert left == [], f"something was left behind: {left}"


@pytest.mark.slow
def test_a_failed_run_leaves_the_previous_one_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    csv(HEADER + GOOD)(tmp_path)
    settings = '[data]\nevents = "events.csv"\n[models.popular]\n[judge]\nresamples = 100\n'
    (tmp_path / "run.toml").write_text('out = "runs/one"\n' + settings)
    assert run_verb(["run", "run.toml"]) == 0, capsys.readouterr().err
    metrics = (tmp_path / "runs/one/metrics.json").read_bytes()
    (tmp_path / "events.csv").write_text("")
    assert run_verb(["run", "run.toml"]) == 2
    assert (tmp_path / "runs/one/metrics.json").read_bytes() == metrics
    assert os.listdir(tmp_path / "runs") == ["one"]


def encrypted_archive(path):
    """Write an archive of MovieLens whose members say that they are encrypted."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml/ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n")
        archive.writestr("ml/movies.csv", "movieId,title,genres\n2,x,y\n")
    whole = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = whole.find(signature)
        while position >= 0:
            whole[position + flags] |= 1
            position = whole.find(signature, position + 1)
    path.write_bytes(whole)


@pytest.mark.parametrize("verb", ["check", "route", "run"])
def test_an_encrypted_archive_is_named(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encrypted_archive(tmp_path / "ml.zip")
    assert run_verb([verb, "ml.zip"]) == 2
    message = capsys.readouterr().err
    assert "ml.zip: ml/ratings.csv cannot be unpacked" in message
    assert "encrypted" in message


ABSURD = {
    "recommend.k=10000000000": "k: must be at most 1000000",
    "judge.resamples=10000000000": "resamples: must be at most 1000000",
    "models.als.rank=100000000": "rank = 100,000,000, but train has",
    "data.events=/": "/: the root of the file system is not a table",
    "data.items=/": "/: the root of the file system is not a table",
    "out=" + 300 * "x": "Choose another folder",
}


@pytest.mark.parametrize("setting", ABSURD, ids=lambda setting: setting[:30])
def test_absurd_settings_are_refused_with_their_limit(setting, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.csv").write_text(HEADER + GOOD)
    assert run_verb(["run", "events.csv", "--set", "engine=local", "--set", "models.als.rank=4", "--set", setting]) == 2
    assert ABSURD[setting] in capsys.readouterr().err


def test_more_neighbours_than_items_are_all_items():
    from recsys.data.synthetic import checkerboard
    from recsys.models import build

    train = checkerboard(6)
    for kind in ("itemknn", "userknn", "rp3beta"):
        scores = [build(kind, {"neighbours": n}).fit(train).score(train.histories()) for n in (10**14, 6)]
        np.testing.assert_array_equal(*scores)


def test_a_lack_of_memory_is_the_machines_and_no_bug(capsys):
    from recsys.cli import exit_code_of

    def work():
        raise MemoryError("Unable to allocate 89.4 GiB for an array")

    assert exit_code_of(work) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: not enough memory: Unable to allocate 89.4 GiB")
    assert "Traceback" not in message
