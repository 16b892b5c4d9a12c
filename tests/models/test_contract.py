"""Every kind of model, held to ``tests/contract.py``. A new kind is here the moment it is in KINDS."""

import contextlib
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import ModuleType

import contract
import pytest

from recsys import models
from recsys.data.synthetic import checkerboard
from recsys.errors import RunFolderError
from recsys.models.combining.cascade import Cascade

PARAMS = {"als": {"rank": 16}, "bpr": {"rank": 8}, "attributes": {"rank": 8}, "content_als": {"rank": 8}}
PARAMS["blend"] = {"parts": {"als": {"rank": 8}, "content": {}}, "weights": {"content": 0.5}}
PARAMS["hybrid"] = {"parts": ["popular", "content", "side_ease"], "placebo": False}
PARAMS["sasrec"] = {"rank": 8, "blocks": 1, "batch": 256, "learning_rate": 0.01, "iterations": 8}
"""Smaller than the defaults where that saves time."""

MORE = {
    "als, one penalty for all rows": ("als", {"rank": 8, "nu": 0, "reg": 0.5}),
    "als, one penalty for all rows, by Cholesky": ("als", {"rank": 8, "nu": 0, "reg": 0.5, "solver": "cholesky"}),
    "als, as Rendle et al.": ("als", {"rank": 8, "beta": 0.1}),
    "itemknn, tfidf": ("itemknn", {"weighting": "tfidf", "shrink": 5.0}),
    "itemknn, bm25, few neighbours": ("itemknn", {"weighting": "bm25", "neighbours": 3}),
    "userknn, bm25, shrunk": ("userknn", {"weighting": "bm25", "shrink": 5.0}),
    "userknn, tfidf, few neighbours": ("userknn", {"weighting": "tfidf", "neighbours": 3}),
    "rp3beta, few neighbours": ("rp3beta", {"alpha": 0.5, "beta": 0.5, "neighbours": 7}),
    "content, bm25 in two dimensions": ("content", {"scheme": "bm25", "dims": 2}),
    "content, raw, fields weighed": ("content", {"scheme": "raw", "fields": {"a": 2, "b": 0}}),
    "side_ease, over rows": ("side_ease", {"dims": 3}),
    "transitions, forward only": ("transitions", {"window": 2, "backward": 0, "decay": 1.0}),
    "next_item, three memories": ("next_item", {"decays": [0.3, 0.8, 0.98], "reg": 300.0}),
    "spectral, thin": ("spectral", {"rank": 4, "low": 0.5}),
}
"""Settings that take another way through the code."""


def cascade():
    return Cascade({"als": models.build("als", {"rank": 8}), "popular": models.build("popular", {})})


MAKERS = {kind: partial(models.build, kind, PARAMS.get(kind, {})) for kind in models.KINDS}
MAKERS |= {name: partial(models.build, *of) for name, of in MORE.items()} | {"cascade": cascade}


def kind_of(name):
    return MORE[name][0] if name in MORE else name


def promises(kind):
    """Return the further checks that follow from what a class claims of itself."""
    if kind == "cascade":
        return contract.EVERYONE + contract.WITHOUT_ORDER
    claims = models.kind_class(kind)
    order = contract.WITH_ORDER if claims.USES_ORDER else contract.WITHOUT_ORDER
    if kind in ("blend", "hybrid"):
        return order
    if claims.SCORES_EVERYONE:
        return contract.EVERYONE + order
    if claims.NEEDS_FEATURES:
        return contract.CONTENT + order
    # The log of the diagonal has no times.
    return contract.COLLABORATIVE + order + (() if claims.USES_ORDER else contract.DIAGONAL)


def markers(name):
    """Return the markers of the tests of a model: compiling the training of sasrec takes seconds."""
    return [pytest.mark.slow] if kind_of(name) == "sasrec" else []


def checks():
    for name in MAKERS:
        for check in contract.ALL + promises(kind_of(name)):
            yield pytest.param(check, MAKERS[name], id=f"{name}-{check.__name__}", marks=markers(name))


@pytest.mark.parametrize(("check", "make"), list(checks()))
def test_contract(check, make):
    check(make)


@pytest.mark.parametrize("name", [pytest.param(name, marks=markers(name)) for name in MAKERS])
def test_saving_and_loading_changes_nothing(name, tmp_path):
    contract.saving_and_loading_changes_nothing(MAKERS[name], tmp_path)


@pytest.mark.parametrize("name", ["model.json", "known_.npy", "weights_.npz"])
def test_a_damaged_file_is_no_whole_model(name, tmp_path):
    models.save(models.build("itemknn", {}).fit(checkerboard(6)), tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    with pytest.raises(RunFolderError, match="not a whole model"):
        models.load(tmp_path)
    for end in (0, 1, len(whole) // 2, len(whole) - 2):
        (tmp_path / name).write_bytes(whole[:end])
        with pytest.raises(RunFolderError, match="not a whole model"):
            models.load(tmp_path)
    for place in range(0, len(whole), 3):  # a changed byte may pass for another value; nothing else is raised
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(RunFolderError):
            models.load(tmp_path)


def test_the_example_of_contributing_is_a_model(monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"## Add a model\n.*?```python\n(.*?)```", page, re.S)[1]
    module = ModuleType("meanvalue")
    monkeypatch.setitem(sys.modules, "meanvalue", module)
    exec(compile(textwrap.dedent(code), "CONTRIBUTING.md", "exec"), vars(module))
    for check in contract.ALL + contract.EVERYONE:
        check(module.MeanValue)
    board = checkerboard(4)
    # Each item has two likes of 1 and the mean of all is 1, whatever is drawn in.
    assert module.MeanValue().fit(board).means_.tolist() == [1.0] * 4
