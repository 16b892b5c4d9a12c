"""One TOML file says what a run does, on either engine; an unknown key is an error that names the nearest one.

The sections are the settings classes of the rooms that use them, so a key is described in one place only.
Relative paths are relative to the folder in which the command runs. ``--set a.b=c`` overrides a key; the value
is read as TOML, or as text when it is no TOML.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys.data.reading.read import ReadSettings
from recsys.data.splitting.strategies import AnyRule, ByTime, Fraction
from recsys.data.weigh import FilterSettings, WeightSettings
from recsys.errors import ConfigError, suggest_nearest
from recsys.evaluation.settings import EvaluationSettings


class DataSettings(ReadSettings):
    """Where the tables are, and how to read them."""

    events: str = Field(description="file or folder of events, or a MovieLens folder or zip")
    items: str | None = Field(None, description="file of items: `item_id`, `title`, attributes, text")
    users: str | None = Field(None, description="file of users: `user_id`, attributes")

    @property
    def reading(self) -> ReadSettings:
        """The settings of reading alone."""
        return ReadSettings(**{name: getattr(self, name) for name in ReadSettings.model_fields})


class RecommendSettings(BaseModel):
    """How lists are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(10, ge=1, description="length of each user's list")
    exclude_seen: bool = Field(True, description="leave out what the user's history holds")
    fallback: Literal["popular", "recent", "segment", "none"] = Field(
        "popular",
        description="who answers for a user on whom a model has no opinion; `segment`: what users of his segment like,"
        " else popular (recsys/features/segment_popularity.py); `none`: nobody",
    )
    segment: tuple[str, ...] = Field(
        (),
        description="columns of the users table that make the segments, from wide to narrow, such as"
        ' `["country", "age_group"]`; one may stand without brackets',
    )
    segment_prior: float = Field(
        20,
        ge=0,
        description="a segment's scores are drawn to those of the wider group as if that added so many users: a segment"
        " of 20 users is half itself",
    )
    everyone: bool = Field(
        False, description="the models also make lists for users with a history who are not tested; baselines never do"
    )
    rules: str | None = Field(
        None,
        description="a TOML file of rules (recsys/ranking/business_rules.py) that all lists keep, baselines too",
    )
    memory_mb: int = Field(512, ge=1, description="bound on one block of scores, and on those of all segments")

    @field_validator("segment", mode="before")
    @classmethod
    def _one_column(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _segment_of_what(self) -> RecommendSettings:
        if (self.fallback == "segment") != bool(self.segment):
            raise ValueError(
                "fallback = 'segment' and segment = 'COLUMN' go together: name the columns of the users table that make"
                " the segments"
                if not self.segment
                else "segment needs fallback = 'segment'"
            )
        return self


class SparkSettings(BaseModel):
    """The Spark session; what spark-submit or the cluster sets wins over these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    master: str | None = Field(None, description="master URL; unset: spark-submit's own, else local[*]")
    driver_memory: str = Field("4g", description="JVM heap of the driver, which does the work on a local master")
    shuffle_partitions: int | None = Field(
        None, ge=1, description="unset: 32 a core on a local master, else Spark's own"
    )
    checkpoint_dir: str | None = Field(
        None, description="of trainer = 'mllib', for its lineage; unset: inside the run folder"
    )
    conf: dict[str, str] = Field({}, description="any further Spark settings")


class TuneSettings(BaseModel):
    """What `recsys tune` searches, and how it judges what it tries: on folds of the run's train part alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, description="which of [models]; unset: the only one there")
    metric: str | None = Field(None, description="a ranking metric; unset: the first of [judge] metrics")
    trials: int = Field(
        25, ge=1, description="settings to try, those of the config first; a resumed study goes on to it"
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="learns from what was tried; draws blindly; or tries every combination of the listed values"
    )
    rule: Literal["time", "pairs"] | None = Field(
        None, description="folds: windows that roll through time, or (user, item) pairs by hash; unset: time if timed"
    )
    folds: int = Field(3, ge=2, description="each setting is judged on so many")
    share: float = Field(0.1, gt=0, le=0.3, description="of train events in each window of `rule = time`")
    prune: Literal["median", "halving", "none"] = Field(
        "median",
        description="give up on a setting: below the median of the others so far; or, after folds 1, 2, 4 …, outside"
        " their better half (successive halving); or never",
    )
    parallel: int = Field(
        1, ge=1, description="settings judged at a time, on Spark; on the local path start `recsys tune` so often"
    )
    space: dict[str, list[Any] | dict[str, Any]] = Field(
        {},
        description="parameter -> list of values, or {low, high, log}; unset: what the model thinks sensible",
    )


MODEL_NAME_BYTES = 100


def check_model_name(name: str) -> str:
    """Return a model's name if it can name a file and a folder inside the run folder.

    Raises:
        ValueError: empty, longer than ``MODEL_NAME_BYTES`` in UTF-8, with a slash, a backslash, a
            control character, a dot in front, or a blank at an end.
    """
    is_file_name = name.isprintable() and not set(name) & set("/\\")
    has_clean_ends = name == name.strip() and not name.startswith(".")
    if not name or not is_file_name or not has_clean_ends:
        raise ValueError(
            "a model's name is also a file name: leave out / and \\, control characters, a dot in"
            " front and blanks at the ends"
        )
    if len(name.encode()) > MODEL_NAME_BYTES:
        raise ValueError(f"a model's name has at most {MODEL_NAME_BYTES} bytes, this one has {len(name.encode())}")
    return name


ModelName = Annotated[str, AfterValidator(check_model_name)]


class Config(BaseModel):
    """A whole run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field("runs/run", description="the run folder; replaced as a whole when a new run ends well")
    engine: Literal["local", "spark"] = Field(
        "local", description="which path: this process, or Spark; unset: `recsys run` asks `recsys route`"
    )
    seed: int = Field(0, ge=0, description="seeds models, resampling and the split's hash unless they have their own")
    data: DataSettings
    split: AnyRule | None = Field(None, description="unset: by time when there are timestamps, else a fraction by hash")
    filter: FilterSettings = FilterSettings()
    weigh: WeightSettings = WeightSettings()
    models: dict[ModelName, dict[str, Any]] = Field(
        {"als": {}}, description="name -> parameters; `model` is the kind, by default the name itself"
    )
    recommend: RecommendSettings = RecommendSettings()
    judge: EvaluationSettings = EvaluationSettings()
    spark: SparkSettings = SparkSettings()
    tune: TuneSettings = TuneSettings()

    @model_validator(mode="before")
    @classmethod
    def _seed_the_split(cls, raw: Any) -> Any:
        """Hand the run's seed to a split that hashes and has none of its own."""
        split = raw.get("split")
        if isinstance(split, dict) and split.get("rule") in ("fraction", "users", "items") and "seed" in raw:
            return raw | {"split": {"seed": raw["seed"]} | split}
        return raw

    @field_validator("models")
    @classmethod
    def _check_part_names(cls, models: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Check the names of the parts of blends, which are saved as folders too."""
        unchecked = list(models.values())
        while unchecked:
            parts = unchecked.pop().get("parts")
            if isinstance(parts, dict):
                for name in parts:
                    check_model_name(str(name))
                unchecked += [part for part in parts.values() if isinstance(part, dict)]
        return models

    @property
    def sources(self) -> list[str]:
        """The files and folders that a run reads."""
        data = self.data
        return [path for path in (data.events, data.items, data.users, self.recommend.rules) if path]

    def rule(self, *, timed: bool) -> AnyRule:
        """Return the split rule: the one given, else by time where events are timed, else a fraction by hash."""
        return self.split or (ByTime() if timed else Fraction(seed=self.seed))

    def to_toml(self) -> str:
        """Return the config with every default spelled out, as a file that runs again."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read ``path``, apply ``key.sub=value`` overrides, check all of it.

    Raises:
        ConfigError: no such file, not TOML, an override without ``=``, or any number of unknown, missing or
            ill-typed keys, named all at once.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file. Examples are in configs/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _override(raw, override)
    return parse_config(raw, where=str(path))


def config_for_log(events: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Return the config of a log alone: every default, the run folder named after the log.

    Raises:
        ConfigError: as of :func:`load_config`.
    """
    path = Path(events)
    raw: dict[str, Any] = {"out": f"runs/{path.name.partition('.')[0] or 'run'}", "data": {"events": str(path)}}
    for override in overrides:
        _override(raw, override)
    return parse_config(raw, where="--set")


def parse_config(raw: dict[str, Any], where: str = "config") -> Config:
    """Check a mapping as :func:`load_config` does; ``where`` opens each line of the error."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = [_say(problem, where) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {override}: write it as key=value, for example recommend.k=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = (part.strip() for part in key.split("."))
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {override}: '{parent}' is a value, not a section")
    raw[last] = value


def _say(problem: Any, where: str) -> str:
    """Return one line for one of pydantic's errors."""
    *parents, key = problem["loc"] or ("",)
    if key == "[key]":  # how pydantic calls a mapping's key, here a model's name, which the message shows
        *parents, key = parents[:-1]
    models = _models(Config, tuple(map(str, parents)))
    section = ".".join(str(part) for part in parents if str(part) not in _tags())
    place = f"{where}: [{section}] {key}" if section else f"{where}: {key}"
    if problem["type"] == "extra_forbidden":
        known = {name for model in models for name in model.model_fields}
        return f"{place}: unknown key.{suggest_nearest(str(key), known)}"
    if problem["type"] == "missing":
        return f"{place}: missing; add it."
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {message} (it is {problem['input']!r})"


def _models(annotation: Any, path: tuple[str, ...]) -> list[type[BaseModel]]:
    """Return the settings classes that stand at ``path`` below an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return [annotation]
        field = annotation.model_fields.get(path[0])
        return _models(field.annotation, path[1:]) if field else []
    below = [part for part in get_args(annotation) if not isinstance(part, str)]
    if path and path[0] in _tags():
        below = [part for part in below if _tag(part) in (path[0], None)]
        if any(_tag(part) for part in below):
            path = path[1:]
    return [model for part in below for model in _models(part, path)]


def _tag(annotation: Any) -> str | None:
    """Return the value of ``rule`` that selects a split rule."""
    fields = getattr(annotation, "model_fields", {})
    return fields["rule"].default if "rule" in fields else None


def _tags() -> set[str]:
    return {"time", "last", "fraction", "users", "items"}
