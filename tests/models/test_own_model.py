"""A model of the user's own: from Python, by class path in a config, and only where that is allowed."""

import io
import re
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import recsys
from recsys.cli import run_verb
from recsys.data.synthetic import checkerboard
from recsys.errors import ConfigError, InputError, RunFolderError
from recsys.models.combining.cascade import Cascade
from recsys.recommender import Recommender

HEAD = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from recsys.recommender import Recommender
"""

LIKES = (
    HEAD
    + """
@dataclass
class Likes(Recommender):
    STATE: ClassVar = {"likes_": "float32[items]"}
    SCORES_EVERYONE: ClassVar = True
    sign: float = 1.0

    def fit(self, train, features=None):
        likes = np.zeros(len(train.items), np.float32)
        for item, value in zip(train.item, train.value):
            likes[item] += value > 0
        self.likes_ = likes

    def score(self, histories, users=None):
        return np.tile(np.float32(self.sign) * self.likes_, (len(histories), 1))

class Forgetful(Recommender):
    def fit(self, train, features=None):
        self.items = len(train.items)
        return self

    def score(self, histories, users=None):
        return np.zeros(histories.shape, np.float32)
"""
)

BASE = (
    HEAD
    + """
class Mine(Recommender):
    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return np.zeros(histories.shape, np.float32)
"""
)

BROKEN = {
    "no module": (None, r"no module mine is installed or in the folder"),
    "a syntax error": ("class Mine(:\n", r"importing mine failed, SyntaxError: .*mine\.py, line 1"),
    "a failing import": ("\nimport no_such_thing\n", r"no module no_such_thing"),
    "an exit": ("raise SystemExit(3)\n", r"importing mine failed, SystemExit: 3 \(mine\.py, line 1\)"),
    "no class": (BASE.replace("class Mine", "class Minee"), r"has no class Mine\. Did you mean 'Minee'\?"),
    "a function": (HEAD + "def Mine():\n    pass\n", r"has no class Mine\."),
    "another base": ("class Mine:\n    pass\n", r"is not a recsys\.recommender\.Recommender"),
    "no score": (BASE.replace("def score", "def scores"), r"has no score"),
    "__init__": (BASE + "    def __init__(self, power=1.0):\n        self.power = power\n", r"make it a dataclass"),
    "fit fails": (
        BASE.replace("return self", "return 1 / 0"),
        r"fit failed, ZeroDivisionError: .*\(mine\.py, line 9\)",
    ),
    "score fails": (
        BASE.replace("return np.zeros(", "return np.zero("),
        r"score failed, AttributeError: .*\(mine\.py, line 12\)",
    ),
    "a column too few": (
        BASE.replace("histories.shape", "(len(histories), histories.shape[1] - 1)"),
        r"mine:Mine\.score returned scores of shape \(\d+, 7\) for \d+ histories of 8 items",
    ),
    "one row": (BASE.replace("histories.shape", "histories.shape[1]"), r"scores of shape \(8,\)"),
    "another dtype": (BASE.replace(", np.float32)", ")"), r"mine:Mine\.score returned an array of float64"),
    "a list": (BASE.replace("np.float32)", "np.float32).tolist()"), r"mine:Mine\.score returned a list"),
    "no array": (BASE + "    STATE: ClassVar = {'means_': 'float32[items]'}\n", r"fit sets no array of this name"),
    "another array": (
        BASE.replace("return self", "self.means_ = np.zeros(3, np.float32)")
        + "    STATE: ClassVar = {'means_': 'float32[items]'}\n",
        r"fit and STATE disagree, means_ should be float32\[items\] with 8 items",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a log of twelve users, each with five of eight items."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"u{user:02}", f"i{(user * step) % 8}", 10 * step + user) for user in range(12) for step in range(1, 6)]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]).drop_duplicates(["user_id", "item_id"]).to_csv(
        "events.csv", index=False
    )
    yield tmp_path
    for name in ("mine", "liking"):
        sys.modules.pop(name, None)


def write_config(class_path, more=""):
    with open("run.toml", "w") as file:
        file.write(
            f'engine = "local"\nout = "run"\ndata.events = "events.csv"\nsplit = {{rule = "fraction", test = 0.3}}\n'
            f'recommend.min_history = 0\njudge = {{resamples = 100, metrics = ["ndcg@3"]}}\n'
            f'[models.mine]\nmodel = "{class_path}"\n{more}'
        )


def run_failing(capsys, *words, code=2):
    """Run a verb that fails, and return its one sentence."""
    assert run_verb([str(word) for word in words]) == code
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if line.startswith(("error", "Traceback", "This is"))]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("case", BROKEN)
def test_what_the_contract_does_not_allow_is_one_sentence(folder, capsys, case):
    source, message = BROKEN[case]
    if source:
        (folder / "mine.py").write_text(source)
    write_config("mine:Mine")
    assert re.search(message, run_failing(capsys, "run", "run.toml", "--own-models"))
    assert not (folder / "run").exists()


def test_an_unknown_parameter_and_a_malformed_path_are_named(folder, capsys):
    (folder / "liking.py").write_text(LIKES)
    write_config("liking:Likes", "sgin = 2.0\n")
    assert "unknown parameter 'sgin'. Did you mean 'sign'?" in run_failing(capsys, "run", "run.toml", "--own-models")
    write_config("liking/x:Likes")
    assert "write it as package.module:Class" in run_failing(capsys, "run", "run.toml", "--own-models")


def test_a_config_runs_no_code_unless_the_command_says_so(folder, capsys):
    (folder / "mine.py").write_text("open('executed', 'w').close()\n" + BASE)
    write_config("mine:Mine")
    assert "--own-models" in run_failing(capsys, "run", "run.toml")
    write_config("mine:Mine", "[models.b]\nmodel = 'blend'\n[models.b.parts.c]\nmodel = 'mine:Mine'\n")
    assert "--own-models" in run_failing(capsys, "run", "run.toml")
    with pytest.raises(ConfigError, match="allow_own_models"):
        recsys.build("mine:Mine", {})
    assert not (folder / "executed").exists()
    with recsys.allow_own_models():
        recsys.build("mine:Mine", {})
    assert (folder / "executed").exists()
    with pytest.raises(ConfigError, match="allow_own_models"):  # the permission ends with its block
        recsys.build("mine:Mine", {})


@pytest.mark.slow
def test_a_run_with_a_model_of_ones_own_is_used_like_any_other(folder, capsys):
    (folder / "liking.py").write_text(LIKES)
    write_config("liking:Likes", "[models.forgetful]\nmodel = 'liking:Forgetful'\n")
    assert run_verb(["run", "run.toml", "--own-models"]) == 0
    lists = {name: pd.read_parquet(f"run/topk/{name}.parquet") for name in ("mine", "popular")}
    columns = ["user_id", "item_id", "rank", "score"]
    pd.testing.assert_frame_equal(lists["mine"][columns], lists["popular"][columns])
    assert set(lists["mine"].source) == {"mine"}
    capsys.readouterr()

    # Results need no code; the model itself does.
    for words in (["report", "run"], ["compare", "run"]):
        assert run_verb(words) == 0
    choose = ["--model", "mine"]
    for words in (["recommend", "run", "--user", "u01"], ["similar", "run", "i1"], ["bundle", "run", "bundle"]):
        assert "--own-models" in run_failing(capsys, *words, *choose)
    assert not (folder / "bundle").exists()

    def listed(*words):
        capsys.readouterr()
        assert run_verb(["recommend", *words, "--user", "u01", "-k", "3"]) == 0
        return pd.read_csv(io.StringIO(capsys.readouterr().out)).item_id.tolist()

    expected = listed("run", "--model", "popular")
    assert listed("run", *choose, "--own-models") == expected
    assert run_verb(["bundle", "run", "bundle", *choose, "--own-models"]) == 0
    assert listed("bundle", "--own-models") == expected
    assert "--own-models" in run_failing(capsys, "recommend", "bundle", "--user", "u01")
    assert "has no STATE" in run_failing(
        capsys, "recommend", "run", "--user", "u01", "--model", "forgetful", "--own-models"
    )


def test_spark_refuses_a_model_of_ones_own():
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from recsys.spark.training.parameters import parse_parameters

    with pytest.raises(ConfigError, match="mine:Mine' is a class of your own, which runs on the local engine alone"):
        parse_parameters("mine:Mine", {})


@dataclass
class OneColumnShort(Recommender):
    """Scores that lack the last item."""

    dtype: type = np.float32

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        rows, items = histories.shape
        return np.zeros((rows, items - 1), self.dtype)

    def can_score(self, histories, users=None):
        return np.ones(len(histories), bool)


@dataclass
class Doubles(OneColumnShort):
    """Scores in double precision."""

    def score(self, histories, users=None):
        return np.zeros(histories.shape)


def in_a_cascade(model):
    return Cascade({"mine": model, "popular": recsys.build("popular", {})})


@pytest.mark.parametrize("wrap", [lambda model: model, in_a_cascade])
@pytest.mark.parametrize(
    ("model", "message"), [(OneColumnShort(), r"shape \(6, 5\).*\(6, 6\)"), (Doubles(), "array of float64")]
)
def test_python_names_the_shape_or_the_dtype(model, wrap, message):
    train = checkerboard(6)
    fitted = wrap(model).fit(train)
    with pytest.raises(InputError, match=message):
        recsys.recommend(fitted, train.histories(), 2)


def test_a_class_that_no_path_names_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match=r"recsys\.build\('.*:OneColumnShort'"):
        recsys.models.save(OneColumnShort(), tmp_path / "model")


def test_a_saved_model_runs_no_code_by_itself(folder):
    from recsys import models

    (folder / "liking.py").write_text(LIKES)
    train = checkerboard(6)
    with recsys.allow_own_models():
        models.save(recsys.build("liking:Likes", {"sign": -1.0}).fit(train), folder / "model")
        loaded = models.load(folder / "model")
    np.testing.assert_array_equal(loaded.score(train.histories()), np.full((6, 6), -2.0, np.float32))
    with pytest.raises(RunFolderError, match="--own-models"):
        models.load(folder / "model")
