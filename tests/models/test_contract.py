"""Every kind of model, held to ``tests/contract.py``. A new kind is here the moment it is in KINDS."""

from functools import partial

import contract
import pytest

from recsys import models
from recsys.models.cascade import Cascade

ANSWER_EVERYONE = {"random", "popular", "recent"}
"""Kinds with an opinion whatever the history; every other kind is personal and collaborative."""

CONTENT = {"content", "attributes", "content_als", "side_ease"}
"""Personal kinds that need item features, and place items that nobody liked."""

PARAMS = {"als": {"rank": 16}, "bpr": {"rank": 8}, "attributes": {"rank": 8}, "content_als": {"rank": 8}}
PARAMS["blend"] = {"parts": {"als": {"rank": 8}, "content": {}}, "weights": {"content": 0.5}}
PARAMS["hybrid"] = {"parts": ["popular", "content", "side_ease"], "placebo": False}
"""Smaller than the defaults where that saves time."""

MORE = {
    "als, implicit by conjugate gradient": ("als", {"rank": 8, "nu": 0, "reg": 0.5}),
    "als, implicit by Cholesky": ("als", {"rank": 8, "nu": 0, "reg": 0.5, "solver": "cholesky"}),
    "als, as Rendle et al.": ("als", {"rank": 8, "beta": 0.1}),
    "itemknn, tfidf": ("itemknn", {"weighting": "tfidf", "shrink": 5.0}),
    "itemknn, bm25, few neighbours": ("itemknn", {"weighting": "bm25", "neighbours": 3}),
    "userknn, bm25, shrunk": ("userknn", {"weighting": "bm25", "shrink": 5.0}),
    "userknn, tfidf, few neighbours": ("userknn", {"weighting": "tfidf", "neighbours": 3}),
    "rp3beta, few neighbours": ("rp3beta", {"alpha": 0.5, "beta": 0.5, "neighbours": 7}),
    "content, bm25 in two dimensions": ("content", {"scheme": "bm25", "dims": 2}),
    "content, raw, fields weighed": ("content", {"scheme": "raw", "fields": {"a": 2, "b": 0}}),
    "side_ease, over rows": ("side_ease", {"dims": 3}),
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
    if kind in ANSWER_EVERYONE | {"cascade"}:
        return contract.EVERYONE
    if kind in ("blend", "hybrid"):
        return ()
    return contract.CONTENT if kind in CONTENT else contract.COLLABORATIVE


def checks():
    for name in MAKERS:
        for check in contract.ALL + promises(kind_of(name)):
            yield pytest.param(check, MAKERS[name], id=f"{name}-{check.__name__}")


@pytest.mark.parametrize(("check", "make"), list(checks()))
def test_contract(check, make):
    check(make)


@pytest.mark.parametrize("name", MAKERS)
def test_saving_and_loading_changes_nothing(name, tmp_path):
    contract.saving_and_loading_changes_nothing(MAKERS[name], tmp_path)
