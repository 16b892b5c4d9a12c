"""Damaged and hostile runs and bundles: each is refused in one sentence, before its content is used."""

import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array, load_npz, save_npz

from recsys.array_files import read_array, require_arrays
from recsys.cli import run_verb
from recsys.errors import ConfigError, InputError, RunFolderError
from recsys.fingerprint import fingerprint
from recsys.saved.open_model import open_model

EVENTS = "user_id,item_id,timestamp\n" + "".join(
    f"u{user},i{(user * step) % 7},{user + 10 * step}\n" for user in range(12) for step in range(1, 6)
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of ALS and item neighbours, and the bundles of both."""
    place = tmp_path_factory.mktemp("whole")
    (place / "events.csv").write_text(EVENTS)
    (place / "config.toml").write_text(
        f"out = '{place}/run'\n[data]\nevents = '{place}/events.csv'\n[judge]\nresamples = 100\n"
        "[recommend]\nmin_history = 0\n[models.als]\nrank = 2\niterations = 2\n[models.itemknn]\n"
    )
    assert run_verb(["run", str(place / "config.toml")]) == 0
    for model in ("als", "itemknn"):
        assert run_verb(["bundle", str(place / "run"), str(place / model), "--model", model]) == 0
    return place


@pytest.fixture
def place(whole, tmp_path):
    """A copy of all of them that may be damaged."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def list_files(bundle):
    """Write the list of a bundle's files again, as somebody does who wants to deceive its reader."""
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file()]
    names = {path.relative_to(bundle).as_posix(): path for path in files}
    card = json.loads((bundle / "bundle.json").read_text())
    card["files"] = {name: fingerprint(path) for name, path in names.items() if name not in ("bundle.json", "_SUCCESS")}
    (bundle / "bundle.json").write_text(json.dumps(card))


def edit_json(path, **changes):
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | changes))


@pytest.mark.parametrize("model", ["als", "itemknn"])
def test_whole_bundles_are_read(whole, model):
    saved = open_model(whole / model)
    assert saved.name == model
    assert np.isfinite(saved.model.score(saved.history.histories())).any()


def add_user_factors(bundle):
    np.save(bundle / "user_factors.npy", np.ones((12, 2), np.float32))


def add_sparse_beside_dense(bundle):
    save_npz(bundle / "model/als/als/item_factors_.npz", csr_array(np.ones((7, 2), np.float32)))


def add_hidden_file(bundle):
    (bundle / "split" / ".hidden").touch()


def link_to_file(bundle):
    shutil.move(bundle / "config.toml", bundle.parent / "elsewhere.toml")
    os.symlink(bundle.parent / "elsewhere.toml", bundle / "config.toml")


def link_to_folder(bundle):
    shutil.move(bundle / "model", bundle.parent / "model")
    os.symlink(bundle.parent / "model", bundle / "model")


def remove_file(bundle):
    (bundle / "config.toml").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (add_user_factors, "user_factors.npy, which is not on the list"),
        (add_sparse_beside_dense, "item_factors_.npz, which is not on the list"),
        (add_hidden_file, "split/.hidden, which is not on the list"),
        (link_to_file, "config.toml is a link"),
        (link_to_folder, "model, which is not on the list"),
        (remove_file, "config.toml is missing"),
    ],
)
def test_the_files_of_a_bundle_are_those_on_its_list(place, damage, message):
    damage(place / "als")
    with pytest.raises(RunFolderError, match=message):
        open_model(place / "als")


CARDS = {
    "no object": "[]",
    "text": '"bundle"',
    "empty": "{}",
    "no list": '{"format": 1, "model": "als"}',
    "list of another type": '{"format": 1, "model": "als", "files": []}',
    "model of another type": '{"format": 1, "model": 3, "files": {}}',
    "format of another type": '{"format": [], "model": "als", "files": {}}',
    "model outside": '{"format": 1, "model": "../als", "files": {}}',
    "file outside": '{"format": 1, "model": "als", "files": {"../run/config.toml": "sha256:0"}}',
    "cut short": '{"format": 1, "mo',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("verb", [["recommend", "--user", "u1"], ["similar", "i1"], ["explain", "--user", "u1"]])
def test_a_bundle_card_of_another_shape_is_refused(place, capsys, text, verb):
    (place / "als" / "bundle.json").write_text(text)
    words = [verb[0], str(place / "als"), *verb[1:]]
    if verb[0] == "explain":
        words = ["explain", str(place / "als"), "u1", "i1"]
    assert run_verb(words) == 2
    assert "Traceback" not in capsys.readouterr().err


MODEL_CARDS = [
    {"members": ["../als"]},
    {"members": [3]},
    {"members": 3},
    {"members": []},
    {"members": ["als", "../../../run/model/als/als"]},
    {"kind": "spectral"},
    {"kind": 3},
    {"kind": ["als"]},
    {"format": 99},
    {"min_history": "many"},
    {"record": []},
]


@pytest.mark.parametrize("changes", MODEL_CARDS, ids=str)
@pytest.mark.parametrize("kind", ["run", "als"])
def test_a_model_card_of_another_shape_is_refused(place, changes, kind):
    edit_json(place / kind / "model/als/model.json", **changes)
    if kind == "als":
        list_files(place / "als")
    with pytest.raises(RunFolderError):
        open_model(place / kind, "als")


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": ["fit"]},
        {"arrays": []},
        {"arrays": ["../../als/als/known_"]},
        {"arrays": None},
        {"params": {"rank": -1}},
        {"params": {"rnak": 1}},
        {"params": []},
    ],
    ids=str,
)
def test_a_member_card_of_another_shape_is_refused(place, changes):
    edit_json(place / "als" / "model/als/als/model.json", **changes)
    list_files(place / "als")
    with pytest.raises(RunFolderError):
        open_model(place / "als")


def change(name, function):
    def damage(folder):
        path = folder / name
        np.save(path, function(np.load(path)))

    return damage


def with_nan(values):
    values[0] = np.nan
    return values


def declare(shape):
    """Write the header of an array that is not there."""

    def damage(folder):
        with (folder / "item_factors_.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(b"\0" * 64)

    return damage


def write(content):
    return lambda folder: (folder / "item_factors_.npy").write_bytes(content)


def remove_array(folder):
    (folder / "known_.npy").unlink()


def both_kinds(folder):
    save_npz(folder / "item_factors_.npz", csr_array(np.load(folder / "item_factors_.npy")))


def pickled(folder):
    np.save(folder / "item_factors_.npy", np.array([{}, []], dtype=object), allow_pickle=True)


ARRAYS = {
    "fewer items": change("item_factors_.npy", lambda values: values[:-1]),
    "more items": change("item_factors_.npy", lambda values: np.vstack([values, values])),
    "another rank": change("item_factors_.npy", lambda values: values[:, :1]),
    "one axis": change("item_factors_.npy", lambda values: values.ravel()),
    "no axis": change("item_factors_.npy", lambda values: np.float32(1)),
    "float64": change("item_factors_.npy", lambda values: values.astype(np.float64)),
    "integers": change("item_factors_.npy", lambda values: values.astype(np.int32)),
    "text": change("item_factors_.npy", lambda values: values.astype(str)),
    "NaN": change("item_factors_.npy", with_nan),
    "flags as numbers": change("known_.npy", lambda values: values.astype(np.int64)),
    "petabytes": declare((10**8, 10**7)),
    "negative": declare((-1, 4)),
    "overflow": declare((2**40, 2**40)),
    "empty": write(b""),
    "no array": write(b"hello"),
    "pickle": write(pickle.dumps([1])),
    "pickled array": pickled,
    "missing": remove_array,
    "both kinds": both_kinds,
}


@pytest.mark.parametrize("damage", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("kind", ["run", "als"])
def test_arrays_are_checked_before_they_are_used(place, damage, kind, capsys):
    damage(place / kind / "model/als/als")
    if kind == "als":
        list_files(place / "als")
    with pytest.raises(RunFolderError, match="not a whole model"):
        open_model(place / kind, "als")


def damage_sparse(**parts):
    def damage(path):
        matrix = load_npz(path)
        arrays = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}
        arrays |= {name: function(np.asarray(arrays[name])) for name, function in parts.items()}
        np.savez(path, format=b"csr", _is_array=True, **arrays)

    return damage


SPARSE = {
    "an index too large": damage_sparse(indices=lambda values: values + 1_000_000),
    "a negative index": damage_sparse(indices=lambda values: values - 1_000_000),
    "ends too far": damage_sparse(indptr=lambda values: values * 1000),
    "ends backwards": damage_sparse(indptr=lambda values: values[::-1]),
    "fewer ends": damage_sparse(indptr=lambda values: values[:-1]),
    "fewer values": damage_sparse(data=lambda values: values[:-1]),
    "more items": damage_sparse(shape=lambda values: values * 1000),
    "NaN": damage_sparse(data=lambda values: values * np.nan),
    "compressed": lambda path: save_npz(path, load_npz(path), compressed=True),
    "no archive": lambda path: path.write_bytes(b"hello"),
    "half an archive": lambda path: path.write_bytes(path.read_bytes()[:-40]),
}


@pytest.mark.parametrize("damage", SPARSE.values(), ids=SPARSE)
def test_sparse_matrices_are_checked_before_they_are_used(place, damage):
    damage(place / "itemknn" / "model/itemknn/itemknn/weights_.npz")
    list_files(place / "itemknn")
    with pytest.raises(RunFolderError, match="not a whole model"):
        open_model(place / "itemknn")


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (np.ones((12, 3), np.float32), "with 2 rank"),
        (np.ones((11, 2), np.float32), "with 12 users"),
        (np.ones((12, 2), np.float64), "but it is float64"),
    ],
)
def test_user_factors_of_another_shape_are_refused(place, factors, message):
    np.save(place / "als" / "user_factors.npy", factors)
    list_files(place / "als")
    with pytest.raises(RunFolderError, match=message):
        open_model(place / "als")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


TABLES = ["per_user.parquet", "split/train.parquet", "split/history.parquet", "split/test.parquet"]
TABLES += ["split/items.parquet", "topk/als.parquet"]
OBJECTS = ["metrics.json", "manifest.json", "data.json", "split.json", "coldstart.json"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TABLES, *OBJECTS, "config.toml"])
def test_a_damaged_file_of_a_run_is_one_message(place, name, capsys):
    run = place / "run"
    if not (run / name).exists():
        pytest.skip(f"this run has no {name}")
    half = (run / name).read_bytes()[: (run / name).stat().st_size // 2]
    contents = [half] if name in TABLES else [half, b"[]", b"{}"]
    for content in contents:
        (run / name).write_bytes(content)
        for words in (
            ["report", run],
            ["compare", run],
            ["recommend", run, "--user", "u1"],
            ["bundle", run, place / "new"],
            ["onboard", run, "--questions", "0"],
            ["ab", "plan", "--mean", "0.1", "--run", run],
        ):
            code = run_verb(list(map(str, words)))
            said = capsys.readouterr().err
            assert code in (0, 2), said
            assert "Traceback" not in said


@pytest.mark.slow
def test_a_value_of_another_type_that_only_a_table_shows_is_damage(place, capsys):
    manifest = place / "run" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"commit": [[]]}))
    before = (place / "run" / "report.html").read_bytes()
    assert run_verb(["report", str(place / "run")]) == 2
    assert "one of its files is damaged" in capsys.readouterr().err
    assert (place / "run" / "report.html").read_bytes() == before


def test_a_report_of_a_bundle_is_refused(place, capsys):
    assert run_verb(["report", str(place / "als")]) == 2
    assert "this is a bundle" in capsys.readouterr().err


def test_a_name_of_a_model_does_not_lead_out_of_the_run(place):
    metrics = place / "run" / "metrics.json"
    record = json.loads(metrics.read_text())
    record["models"] = {"../../als/model/als": record["models"]["als"]}
    metrics.write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match="file name"):
        open_model(place / "run")


@pytest.mark.slow
def test_mutated_bundles_never_crash(place):
    """Bytes of any file of a bundle changed at random, and the list made to fit."""
    rng = np.random.default_rng(7)
    paths = [path for path in (place / "itemknn").rglob("*") if path.is_file() and path.name != "_SUCCESS"]
    for _ in range(150):
        path = paths[rng.integers(len(paths))]
        content = path.read_bytes()
        changed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        path.write_bytes(changed)
        if path.name != "bundle.json":
            list_files(place / "itemknn")
        with suppress(InputError, ConfigError, RunFolderError):
            saved = open_model(place / "itemknn")
            saved.model.score(saved.history.histories())
        path.write_bytes(content)
        if path.name != "bundle.json":
            list_files(place / "itemknn")


def test_descriptions_of_arrays():
    matrix = csr_array(np.eye(3, dtype=np.float32))
    require_arrays(
        {"a": np.zeros((2, 3)), "b": matrix, "c": np.array(["x", "y"]), "d": np.array([np.nan])},
        {"a": "float[users, items]", "b": "float32[k, j] | csr float32[items, items]", "c": "str[2]"}
        | {"d": "float64[1] or NaN"},
        {"users": 2},
    )
    for array, description in (
        (np.zeros(3), "float[users]"),
        (np.zeros((2, 2)), "float[items]"),
        (np.zeros(2), "csr float[users]"),
        (np.zeros(2, bool), "float[users]"),
        (np.array([np.inf, 0]), "float[users]"),
        (np.zeros(3), "float[2]"),
    ):
        with pytest.raises(ValueError, match=r"a should be|a has values"):
            require_arrays({"a": array}, {"a": description}, {"users": 2})


def test_a_read_array_is_never_mapped_or_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read_array(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_array(Path(tmp_path / "b"))
