"""One TOML file, checked as a whole: every wrong key is named with the nearest right one."""

from pathlib import Path

import pytest

from recsys.cli import run_verb
from recsys.config import load_config, parse_config
from recsys.data.splitting.strategies import ByTime, Fraction
from recsys.errors import ConfigError
from recsys.models import build

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.toml"))
DATA = {"data": {"events": "events.csv"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_example_loads_and_survives_a_round_trip(path, tmp_path):
    config = load_config(path)
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "again.toml") == config


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"sead": 1}, r"config: sead: unknown key\. Did you mean 'seed'\?"),
        ({"recommend": {"kk": 3}}, r"\[recommend\] kk: unknown key\. Did you mean 'k'\?"),
        ({"split": {"rule": "time", "tset": 0.1}}, r"\[split\] tset: unknown key\. Did you mean 'test'\?"),
        (
            {"split": {"rule": "tim"}},
            r"\[split\] rule: must be one of 'time', .*\. Did you mean 'time'\?",
        ),
        ({"split": {"at": "foo"}}, r"\[split\] at: must be an ISO date, .* \(it is 'foo'\)"),
        ({"recommend": {"k": "abc"}}, r"\[recommend\] k: must be a whole number \(it is 'abc'\)$"),
        ({"recommend": {"k": 2.5}}, r"\[recommend\] k: must be a whole number \(it is 2\.5\)$"),
        ({"recommend": {"exclude_seen": "maybe"}}, r"exclude_seen: must be true or false \(it is 'maybe'\)$"),
        ({"recommend": {"min_history": -1}}, r"\[recommend\] min_history: must be 'auto' or at least 0 \(it is -1\)$"),
        ({"recommend": {"fallback": "populr"}}, r"fallback: must be 'popular', .*\. Did you mean 'popular'\?$"),
        ({"recommend": {"segment": ["a", 3]}}, r"\[recommend\] segment, entry 2: must be text \(it is 3\)$"),
        ({"judge": {"metrics": [3]}}, r"^config: \[judge\] metrics, entry 1: must be text \(it is 3\)$"),
        ({"tune": {"share": 0.9}}, r"\[tune\] share: must be at most 0\.3 \(it is 0\.9\)$"),
        ({"tune": {"space": {"rank": 3}}}, r"\[tune\.space\] rank: must be a list or a table of keys and values"),
        ({"models": {"als": 4}}, r"\[models\] als: must be a table of keys and values \(it is 4\)$"),
        ({"spark": 4}, r"config: spark: must be a table of keys and values \(it is 4\)$"),
        ({"split": {"rule": "time", "test": 1.5}}, r"\[split\] test: .*less than 1"),
        ({"judge": {"metrics": ["ndgc@10", "recal@5"]}}, r"'ndcg'(.|\n)*'recall'"),
        ({"weigh": {"half_life_days": -1}}, r"half_life_days: .*greater than 0"),
        ({"engine": "flink"}, r"engine: .*'local' or 'spark'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(raw, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(DATA | raw)


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/evil", "a/b", "a\\b", "..", ".", ".hidden", "", " ", "a ", "a\0", "a\nb", "m" * 300, "م" * 60],
)
def test_a_model_that_cannot_name_a_file_is_refused(name):
    for models in ({name: {"model": "popular"}}, {"blend": {"parts": {"blend": {"parts": {name: {}}}}}}):
        with pytest.raises(ConfigError, match=r"config: models: a model's name (is also a file|has at most)"):
            parse_config(DATA | {"models": models})


def test_model_names_of_any_script_are_taken():
    names = ["m $1$", "m_2^", "<script>m3", "ثلاثة", "四", "m" * 100, "als.v2"]
    assert list(parse_config(DATA | {"models": {name: {"model": "als"} for name in names}}).models) == names


def test_all_problems_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_config({"sead": 1, "recommend": {"k": 0}})
    said = str(caught.value)
    assert "sead" in said
    assert "[recommend] k" in said
    assert "[data] events: missing" in said


def write(tmp_path, text="[data]\nevents = 'e.csv'\n"):
    (tmp_path / "c.toml").write_text(text)
    return tmp_path / "c.toml"


def test_wrong_sections_and_wrong_models_are_named_together(tmp_path, capsys):
    (tmp_path / "c.toml").write_text(
        """
        engine = "local"
        data.events = "nowhere.csv"
        models.als.rank = 0
        models.itemknn.neighbors = 3
        recommend.k = 0
        judge.metrics = ["ndgc@10"]
        """
    )
    assert run_verb(["run", str(tmp_path / "c.toml")]) == 2
    error = capsys.readouterr().err
    for part in ("[recommend] k:", "[judge] metrics: metric 'ndgc@10'", "'als': rank:", "'itemknn': unknown parameter"):
        assert part in error


def test_a_wrong_engine_or_task_says_nothing_of_the_models(tmp_path, capsys):
    for line in ('engine = "sparc"', 'judge.task = "list"'):
        (tmp_path / "c.toml").write_text(f'{line}\ndata.events = "e.csv"\nmodels.biases.reg = 1\n')
        assert run_verb(["run", str(tmp_path / "c.toml")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_all_contradictions_between_sections_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config({"weigh": {"cap": float("inf")}, "split": {"rule": "folds"}})
    assert [line.split(": ", 1)[1][:12] for line in str(error.value).splitlines()] == [
        "weigh.cap is",
        "[data] event",
        "[split] rule",
    ]


def test_overrides_are_read_as_toml_or_as_text(tmp_path):
    config = load_config(
        write(tmp_path), ["recommend.k=20", "out=runs/x", "judge.metrics=['ndcg@5']", "models.als.rank=8"]
    )
    assert (config.recommend.k, config.out, config.judge.metrics) == (20, "runs/x", ("ndcg@5",))
    assert config.models == {"als": {"rank": 8}}


@pytest.mark.parametrize("override", ["k", "=3", "a..b=1", "out.x=1"])
def test_a_malformed_override_is_refused(tmp_path, override):
    with pytest.raises(ConfigError, match="--set"):
        load_config(write(tmp_path, "out = 'x'\n[data]\nevents = 'e.csv'\n"), [override])


def test_no_file_and_no_toml(tmp_path):
    with pytest.raises(ConfigError, match="no such config file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"c\.toml: not TOML"):
        load_config(write(tmp_path, "out = "))


def test_the_seed_reaches_a_split_without_its_own():
    seeded = parse_config(DATA | {"seed": 7, "split": {"rule": "fraction"}})
    assert seeded.split == Fraction(seed=7)
    own = parse_config(DATA | {"seed": 7, "split": {"rule": "fraction", "seed": 1}})
    assert own.split == Fraction(seed=1)
    assert parse_config(DATA | {"seed": 7}).rule(timed=False) == Fraction(seed=7)
    assert parse_config(DATA | {"seed": 7}).rule(timed=True) == ByTime()


def test_a_split_without_a_rule_is_by_time():
    config = parse_config({"data": {"events": "e.csv"}, "split": {"test": 0.3}})
    assert (config.split.rule, config.split.test) == ("time", 0.3)
    with pytest.raises(ConfigError, match=r"split\.time\.tset|tset"):
        parse_config({"data": {"events": "e.csv"}, "split": {"tset": 0.3}})


def test_a_parameter_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"^model 'blend': parts: missing; add it\.$"):
        build("blend", {})


def test_a_log_that_is_named_as_a_config_is_not_read_whole(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    with pytest.raises(ConfigError, match=r"log.csv: cannot be read: it has more than 256 MiB. Is it a log\?"):
        load_config(path)
