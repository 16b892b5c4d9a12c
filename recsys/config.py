"""Read and check the TOML file that configures a run, for both engines.

Each section is a settings class, which is defined in the package that uses it. So each key is
described in one place. An unknown key is an error, whose message names the most similar valid key.
Relative paths start at the folder in which the command runs.

``--set a.b=c`` overrides a key. The value ``c`` is read as TOML, or as text if it is not valid
TOML.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
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

from recsys.data.reading.read_settings import ReadSettings
from recsys.data.splitting.strategies import AnyRule, ByFiles, ByTime, Folds, Fraction, HeldOutUsers
from recsys.data.weigh import FilterSettings, WeightSettings
from recsys.errors import ConfigError, InputError, describe_invalid_value, suggest_nearest
from recsys.evaluation.settings import RunEvaluationSettings
from recsys.parameters import NestedErrors
from recsys.run_files import CONFIG
from recsys.storage import read_text

_UNION_MEMBER = re.compile(r"(literal|list|dict|tuple)\[.*\]|constrained-\w+|int|float|str|bool")
"""The name that pydantic gives to one of several types, as the last part of a location."""

MISSING_EVENTS = "[data] events: missing; add it."
"""The message for a config that names no events."""


class DataSettings(ReadSettings):
    """Where the tables are and how to read them."""

    events: str | None = Field(
        None,
        description=(
            "required, but for `[split] rule = 'files'`; "
            "file or folder of events, or a MovieLens folder or zip archive; a path or a URI (`file:`; on Spark any"
            " that it reads, such as `hdfs:` and `s3a:`), and so are the other tables"
        ),
    )
    items: str | None = Field(None, description="file of items: `item_id`, optionally `title`, attributes and text")
    users: str | None = Field(None, description="file of users: `user_id` and attributes")
    reviews: str | None = Field(
        None,
        description=(
            "file of what people wrote: `item_id`, `text`, optionally `user_id` and `score`, on the scale of the"
            " values; a path, on the local engine (docs/ratings.md)"
        ),
    )
    fill_ratings: bool = Field(
        False,
        description=(
            "for `task = 'ratings'`: a review that says who wrote it, but has no score, counts as a rating in train,"
            " with the score that its words say"
        ),
    )

    @property
    def reading(self) -> ReadSettings:
        """The settings of how to read the tables, without the locations of the tables."""
        return ReadSettings(**{name: getattr(self, name) for name in ReadSettings.model_fields})


class RecommendSettings(BaseModel):
    """How the top-N lists are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(10, ge=1, le=1_000_000, description="length of each user's list")
    exclude_seen: bool = Field(True, description="leave out the items in the user's history")
    fallback: Literal["popular", "recent", "segment", "none"] = Field(
        "popular",
        description=(
            "which model serves users that the main model cannot score; `segment`: the items that"
            " are popular in the user's segment, else overall; `none`: no model, the list stays"
            " empty"
        ),
    )
    min_history: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description=(
            "users with fewer liked items than this are served by the fallback; `0`: nobody who can"
            " be scored; `auto`: chosen per model by a trial on a part of train, where the fallback"
            " is shown to be better for short histories; on the local engine the trial is a second"
            " fit of the model, on Spark it costs little, but needs some 10,000 users"
        ),
    )
    segment: tuple[str, ...] = Field(
        (),
        description=(
            "columns of the users table that define the segments, from wide to narrow, such as"
            ' `["country", "age_group"]`; a single column needs no brackets'
        ),
    )
    segment_prior: float = Field(
        20,
        ge=0,
        description=(
            "pseudo-users added to each segment from the wider group (shrinkage); with 20, the"
            " scores of a segment of 20 users are half its own and half those of the wider group"
        ),
    )
    everyone: bool = Field(
        False,
        description=(
            "also make lists for users with a history who are not in the test; baselines serve tested users only"
        ),
    )
    rules: str | None = Field(
        None,
        description=(
            "TOML file of business rules (docs/rules.md); they hold in all lists, also those of the baselines"
        ),
    )
    memory_mb: int = Field(
        512,
        ge=1,
        description="largest size of one block of scores, and of the scores of all segments",
    )

    @field_validator("segment", mode="before")
    @classmethod
    def _one_column(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            return (raw,)
        return raw

    @model_validator(mode="after")
    def _segment_of_what(self) -> RecommendSettings:
        if self.fallback == "segment" and not self.segment:
            raise ValueError(
                "fallback = 'segment' needs segment = 'COLUMN': name the columns of the users table"
                " that define the segments"
            )
        if self.segment and self.fallback != "segment":
            raise ValueError("segment needs fallback = 'segment'")
        return self

    @property
    def fallback_model(self) -> Literal["popular", "recent", "none"]:
        """The model that is the fallback, or "none".

        For the fallback "segment" it is "popular", which serves users without a segment.
        """
        if self.fallback == "segment":
            return "popular"
        return self.fallback


ItemBlockMB = Literal["auto"] | Annotated[float, Field(gt=0)]
"""Type of the setting ``[spark] item_block_mb``."""


class SparkSettings(BaseModel):
    """The Spark session. Settings of spark-submit or of the cluster take precedence over these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    master: str | None = Field(None, description="master URL; unset: that of spark-submit, else `local[*]`")
    driver_memory: str = Field("4g", description="JVM heap of the driver; on a local master all work runs in it")
    shuffle_partitions: int | None = Field(
        None,
        ge=1,
        description="partitions of a shuffle; unset: 32 per core on a local master, else Spark's default",
    )
    checkpoint_dir: str | None = Field(
        None,
        description="folder for the checkpoints of `trainer = 'mllib'`; unset: inside the run folder",
    )
    item_block_mb: ItemBlockMB = Field(
        "auto",
        description=(
            "largest size in MiB of item factors that one task holds whole: larger ones are cut into blocks of this"
            " size (at most 256); `auto`: whole up to 1024, else blocks of 32"
        ),
    )
    conf: dict[str, str] = Field({}, description="further Spark settings, name -> value")


class TuneSettings(BaseModel):
    """What `recsys tune` searches and how it judges each setting, on folds of the train part
    alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = Field(None, description="name of the model in [models] to tune; unset: the only one")
    metric: str | None = Field(None, description="ranking metric to maximise; unset: the first of [judge] metrics")
    trials: int = Field(
        25,
        ge=1,
        description=(
            "number of settings to try, starting with those of the config; a resumed study continues up to it"
        ),
    )
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description=(
            "`tpe` learns from earlier trials, `random` draws at random, `grid` tries every combination of values"
        ),
    )
    rule: Literal["time", "pairs", "items"] | None = Field(
        None,
        description=(
            "how folds are made: `time`: windows that roll through time; `pairs`: (user, item) pairs by hash; `items`:"
            " items by hash, so that a fold tests on items that it does not train on; unset: `time` if there are"
            " timestamps, else `pairs`; but where lists rank new items alone, `items` if `[split] rule` is 'items' or"
            " there are no timestamps"
        ),
    )
    folds: int = Field(3, ge=2, description="number of folds on which each setting is judged")
    share: float = Field(0.1, gt=0, le=0.3, description="share of the train events in each window of `rule = 'time'`")
    prune: Literal["median", "halving", "none"] = Field(
        "median",
        description=(
            "when to stop a trial early: `median`: below the median of the other trials so far;"
            " `halving`: after folds 1, 2, 4 …, outside their better half (successive halving);"
            " `none`: never"
        ),
    )
    parallel: int = Field(
        1,
        ge=1,
        description=(
            "number of settings judged at the same time on Spark; on the local path, start that"
            " many processes of `recsys tune`"
        ),
    )
    space: dict[str, list[Any] | dict[str, Any]] = Field(
        {},
        description="parameter -> list of values, or {low, high, log}; unset: the default space of the model",
    )


class SettingsError(ConfigError):
    """Some settings of a config are not valid.

    Attributes:
        valid: a config of the sections that are valid, from which the models can be checked too.
            None if there is none.
    """

    def __init__(self, message: str, valid: Config | None = None) -> None:
        super().__init__(message)
        self.valid = valid


RATING_LINEUP = ("rating_als", "rating_knn", "bpmf", "stack")
"""The models of a run with ``[judge] task = "ratings"`` whose config names no models."""

OF_RATINGS = {
    "recommend": ("memory_mb",),
    "weigh": (),
    "judge": ("task", "metrics", "scale", "refits", "baseline"),
}
"""Section -> its keys that are allowed with ``[judge] task = "ratings"``."""

MODEL_NAME_BYTES = 100
"""The largest length of a model's name, in bytes of UTF-8."""


def check_model_name(name: str) -> str:
    """Return ``name`` unchanged if it can be the name of a file and of a folder.

    Raises:
        ValueError: the name is empty; is longer than :data:`MODEL_NAME_BYTES`; has a slash, a
            backslash or a control character; starts with a dot; or starts or ends with a blank.
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
"""A name of a model in a config, checked by :func:`check_model_name`."""


class Config(BaseModel):
    """The settings of a run, as the sections and keys of a config file (TOML) give them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field(
        "runs/run", description="run folder, on Spark also a URI; it is replaced as a whole when a new run succeeds"
    )
    hop_log: str | None = Field(
        None,
        description="file to which each step adds its time, memory and Spark's figures as a line of JSON; unset: none",
    )
    engine: Literal["local", "spark"] = Field(
        "local",
        description="where to run: in this process or on Spark; unset: `recsys run` decides as `recsys route` does",
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of models, resampling and the hash of the split, where these have no seed of their own",
    )
    data: DataSettings = DataSettings()
    split: AnyRule | None = Field(
        None,
        description="how events are split; unset: by time if there are timestamps, else a fraction by hash",
    )
    filter: FilterSettings = FilterSettings()
    weigh: WeightSettings = WeightSettings()
    models: dict[ModelName, dict[str, Any]] = Field(
        {"als": {}},
        description="model name -> parameters; the key `model` is the kind, by default the name itself",
    )
    recommend: RecommendSettings = RecommendSettings()
    judge: RunEvaluationSettings = RunEvaluationSettings()
    spark: SparkSettings = SparkSettings()
    tune: TuneSettings = TuneSettings()

    @model_validator(mode="before")
    @classmethod
    def _seed_the_split(cls, raw: Any) -> Any:
        """Use the seed of the run for a split that hashes and has no seed of its own."""
        split = raw.get("split")
        if isinstance(split, dict) and split.get("rule") in ("fraction", "users", "items", "folds") and "seed" in raw:
            return raw | {"split": {"seed": raw["seed"]} | split}
        return raw

    @model_validator(mode="before")
    @classmethod
    def _models_of_ratings(cls, raw: Any) -> Any:
        """Use models of ratings if these are the task, and the config names none."""
        judge = raw.get("judge")
        if isinstance(judge, dict) and judge.get("task") == "ratings":
            return {"engine": "local", "models": {name: {} for name in RATING_LINEUP}} | raw
        return raw

    @model_validator(mode="before")
    @classmethod
    def _engine_of_reviews(cls, raw: Any) -> Any:
        """Use the local engine for a run with reviews, however large its log is, if the config names none."""
        data = raw.get("data")
        if isinstance(data, dict) and data.get("reviews") is not None:
            return {"engine": "local"} | raw
        return raw

    @field_validator("models")
    @classmethod
    def _check_part_names(cls, models: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Check the names of the parts of blends, because each part is saved in a folder of that
        name."""
        unchecked = list(models.values())
        while unchecked:
            parts = unchecked.pop().get("parts")
            if isinstance(parts, dict):
                for name in parts:
                    check_model_name(str(name))
                unchecked += [part for part in parts.values() if isinstance(part, dict)]
        return models

    @model_validator(mode="after")
    def _check_sections_together(self) -> Config:
        """Refuse sections that contradict each other, in one error for all contradictions."""
        problems = [
            *self._number_problems(),
            *self._event_problems(),
            *self._review_problems(),
            *self._task_problems(),
        ]
        if problems:
            raise NestedErrors(problems)
        return self

    def _number_problems(self) -> Iterator[str]:
        """Yield what is wrong with infinite and NaN settings, because no setting has a meaning for
        these."""
        for key, value in _leaves(self.model_dump()):
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{key} is {value}, but a setting is a finite number"

    def _event_problems(self) -> Iterator[str]:
        if isinstance(self.split, ByFiles):
            if self.data.events is not None:
                yield (
                    "[data] events: remove it, for with [split] rule = 'files' the events are those of the files that"
                    " [split] names"
                )
        elif self.data.events is None:
            yield MISSING_EVENTS

    def _review_problems(self) -> Iterator[str]:
        """Yield the settings of reviews that have no effect on this engine or for this task."""
        if self.data.reviews is not None and self.engine == "spark":
            yield "[data] reviews is for the local engine: remove it, or engine = 'spark'"
        if self.data.fill_ratings and (self.data.reviews is None or self.judge.task == "lists"):
            yield "[data] fill_ratings needs [data] reviews and [judge] task = 'ratings': remove it"

    def _task_problems(self) -> Iterator[str]:
        """Yield what has no meaning for the task: no setting is ignored in silence."""
        if self.judge.task == "lists":
            if isinstance(self.split, Folds):
                yield (
                    "[split] rule = 'folds' is for [judge] task = 'ratings'; for lists use rule = 'time' with folds ="
                    " 3, or rule = 'fraction'"
                )
            return
        if self.engine == "spark":
            yield (
                "[judge] task = 'ratings' runs on the local engine: remove engine = 'spark'. On Spark,"
                " jobs/train_als.py with implicit = false trains on ratings, and jobs/evaluate.py -m rmse judges them"
            )
        if isinstance(self.split, HeldOutUsers) or (isinstance(self.split, ByTime) and self.split.folds > 1):
            yield (
                f"[split] rule = '{self.split.rule}' with these keys is for lists: for task = 'ratings' use rule ="
                " 'folds', 'fraction', 'time' with one fold, 'last', 'items' or 'files'"
            )
        of_lists = [
            f"[{name}] {key}"
            for name, allowed_keys in OF_RATINGS.items()
            for key in changed_keys(getattr(self, name))
            if key not in allowed_keys
        ]
        if of_lists:
            yield f"task = 'ratings' makes no lists and takes ratings as they are: remove {', '.join(of_lists)}"

    @property
    def events(self) -> str | dict[str, str]:
        """The location of the events, or, for ``[split] rule = "files"``, part name -> location."""
        if isinstance(self.split, ByFiles):
            return self.split.files
        return str(self.data.events)

    @property
    def event_files(self) -> list[str]:
        """The locations of all files and folders of events. There are several for ``[split] rule
        = "files"``.
        """
        if isinstance(self.events, str):
            return [self.events]
        return list(self.events.values())

    @property
    def tables(self) -> list[str]:
        """The locations of all tables that a run reads: of the events, and of items, users and
        reviews if it has them.
        """
        data = self.data
        return [*self.event_files, *(path for path in (data.items, data.users, data.reviews) if path)]

    @property
    def sources(self) -> list[str]:
        """The locations of everything that a run reads: its tables, and its business rules if it
        has them.
        """
        if self.recommend.rules:
            return [*self.tables, self.recommend.rules]
        return self.tables

    @property
    def kinds(self) -> list[str]:
        """The kinds of all configured models, those inside blends included.

        A kind may occur several times.
        """
        kinds = []
        unread = list(self.models.items())
        while unread:
            name, settings = unread.pop(0)
            kinds.append(str(settings.get("model", name)))
            parts = settings.get("parts")
            if isinstance(parts, dict):
                unread += [
                    (str(part), part_settings)
                    for part, part_settings in parts.items()
                    if isinstance(part_settings, dict)
                ]
        return kinds

    def rule(self, *, timed: bool) -> AnyRule:
        """Return the split rule of the config, or the default rule if the config has none.

        The default is by time if the events have timestamps. Otherwise a fraction of the events is
        the test, chosen by hash with the seed of the run.

        Args:
            timed: whether the events have timestamps.
        """
        if self.split:
            return self.split
        if timed:
            return ByTime()
        return Fraction(seed=self.seed)

    @property
    def candidates(self) -> Literal["train", "items", "cold"]:
        """Which items the lists of a run may name: "train", "items" or "cold".

        * "train": the items with an event in train;
        * "items": these, and all other items of the items table;
        * "cold": only the items of the items table without an event in train.

        It is ``[judge] candidates`` if that is set, else the default of the split rule.
        """
        return self.judge.candidates_for(self.rule(timed=True).rule)

    def fold_rule(self, *, timed: bool) -> Literal["time", "pairs", "items"]:
        """Return the rule that makes the folds of ``recsys tune``: "time", "pairs" or "items".

        It is ``[tune] rule`` if that is set. Otherwise:

        * "items" if :attr:`candidates` is "cold", and the split rule is "items" or there are no
          timestamps;
        * else "time" if the events have timestamps;
        * else "pairs".

        Args:
            timed: whether the events have timestamps.

        Raises:
            InputError: ``[tune] rule`` is "time", but the events have no timestamps.
            ConfigError: ``[tune] rule`` is "pairs" and :attr:`candidates` is "cold", or the rule is
                "items" and :attr:`candidates` is "train". Then no fold could have a relevant item.
        """
        rule = self.tune.rule
        if rule == "time" and not timed:
            raise InputError("[tune] rule = 'time' needs events with timestamps: use 'pairs'.")
        if rule == "pairs" and self.candidates == "cold":
            raise ConfigError(
                "[tune] rule = 'pairs' tests on items that it also trains on, but the lists of this run rank new items"
                " alone ([judge] candidates = 'cold'): use 'items' or 'time'."
            )
        if rule == "items" and self.candidates == "train":
            raise ConfigError(
                "[tune] rule = 'items' tests on items that it does not train on, but the lists of this run rank the"
                " items of train alone ([judge] candidates = 'train'): use 'pairs' or 'time'."
            )
        if rule is not None:
            return rule
        if self.candidates == "cold" and (not timed or self.rule(timed=timed).rule == "items"):
            return "items"
        if timed:
            return "time"
        return "pairs"

    def to_toml(self) -> str:
        """Return the config as TOML text, with all defaults written out, so that the run can be
        repeated.

        A setting that is None is left out.
        """
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def changed_keys(section: BaseModel) -> list[str]:
    """Return the keys of a section whose values differ from the defaults."""
    return [name for name, field in type(section).model_fields.items() if getattr(section, name) != field.get_default()]


def require_task_of_lists(config: Config, verb: str) -> None:
    """Check that the models of a config make lists, and do not predict ratings.

    Args:
        config: the config.
        verb: what the caller is about to do, for the error message.

    Raises:
        ConfigError: the config has ``[judge] task = "ratings"``.
    """
    if config.judge.task == "ratings":
        raise ConfigError(f"{verb} is for models that make lists, and this config has [judge] task = 'ratings'.")


def require_toml(config: Config) -> None:
    """Check that ``config.toml`` can hold every setting, so that the run can be repeated from it.

    Raises:
        ConfigError: TOML cannot hold a value, such as None in a list or text that is not valid
            Unicode.
    """
    try:
        text = config.to_toml()
        text.encode("utf-8")
        restored = Config.model_validate(tomllib.loads(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the settings cannot be written to {CONFIG}, because {error}. Change that value.") from None
    written = config.model_dump(mode="json")
    for key, value in restored.model_dump(mode="json").items():
        if value != written[key]:
            raise ConfigError(
                f"[{key}] cannot be written to {CONFIG}: it would be read back as {value!r}, but is {written[key]!r}."
            )


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a config file, apply overrides, and return the checked config.

    Args:
        path: the path or URI of the TOML file.
        overrides: texts such as ``recommend.k=20``, as for ``--set``. A later one wins.

    Raises:
        ConfigError: the file does not exist, cannot be read or is not TOML; an override is not
            valid; or keys are unknown, missing, or have values that are not allowed. The message
            names all such keys.
    """
    try:
        raw = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file. Examples are in configs/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, source=str(path))


def config_for_log(events: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Return the default config for an event log, with the run folder ``runs/NAME``.

    NAME is the name of the log up to its first dot, or "run" if that is empty.

    Args:
        events: the location of the log.
        overrides: as for :func:`load_config`.

    Raises:
        ConfigError: an override is not valid.
    """
    name = Path(events).name.partition(".")[0] or "run"
    raw: dict[str, Any] = {"out": f"runs/{name}", "data": {"events": str(events)}}
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, source="--set")


def override_config(config: Config, overrides: Iterable[str]) -> Config:
    """Return a config with some keys replaced.

    Args:
        config: the config, which is not changed.
        overrides: as for :func:`load_config`.

    Raises:
        ConfigError: an override is not valid.
    """
    raw = config.model_dump(mode="json", exclude_none=True)
    for override in overrides:
        _apply_override(raw, override)
    return parse_config(raw, source="--set")


def parse_config(raw: dict[str, Any], source: str = "config") -> Config:
    """Check raw settings and return them as a config.

    Args:
        raw: section -> key -> value, as ``tomllib`` reads a config file.
        source: the start of each line of an error message, for example the name of the file.

    Raises:
        ConfigError: keys are unknown or missing, or have values that are not allowed. The message
            has one line for each.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        lines = []
        for problems in _group_by_value(error.errors()):
            lines += _describe_problems(problems, source).splitlines()
        # Sections are compared with each other only where each of them is valid.
        missing = f"{source}: {MISSING_EVENTS}"
        if not _names_events(raw) and missing not in lines:
            lines.append(missing)
        raise SettingsError("\n".join(lines), _valid_sections(raw, error)) from None


def _valid_sections(raw: dict[str, Any], error: ValidationError) -> Config | None:
    """Return a config of those sections that are valid, or None if there is none.

    The other sections have their defaults. There is no such config if the engine, the task or the
    models are not valid, or if sections contradict each other.

    Args:
        raw: as for :func:`parse_config`.
        error: what pydantic says about ``raw``.
    """
    wrong = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
    if wrong & {"engine", "models"}:
        return None
    valid = {key: value for key, value in raw.items() if key not in wrong}
    judge = raw.get("judge")
    if "judge" in wrong and isinstance(judge, dict) and "task" in judge:
        valid["judge"] = {"task": judge["task"]}
    if not _names_events(valid):
        valid["data"] = {"events": "unknown"}
    try:
        return Config.model_validate(valid)
    except ValidationError:
        return None


def _names_events(raw: dict[str, Any]) -> bool:
    """Return whether a raw config names a log of events, or files for the parts of a split."""
    data = raw.get("data")
    split = raw.get("split")
    return (isinstance(data, dict) and "events" in data) or (isinstance(split, dict) and split.get("rule") == "files")


def _apply_override(raw: dict[str, Any], override: str) -> None:
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


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for each single value in nested mappings and lists."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _group_by_value(problems: Sequence[Any]) -> list[list[Any]]:
    """Return the errors of pydantic in groups, each about one value.

    A value that may have several types has one error for each. Their locations end with the type,
    which is removed. A list that is too short only because its entries are wrong is left out.
    """
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for problem in problems:
        location = problem["loc"]
        if location and _UNION_MEMBER.fullmatch(str(location[-1])):
            siblings = [sibling for sibling in problems if sibling["loc"][:-1] == location[:-1]]
            if len(siblings) > 1 and all(sibling["input"] is problem["input"] for sibling in siblings):
                location = location[:-1]
        has_wrong_entries = any(entry["loc"][:-1] == location for entry in problems)
        if problem["type"] == "too_short" and has_wrong_entries:
            continue
        groups.setdefault(location, []).append(problem | {"loc": location})
    return list(groups.values())


def _describe_problems(problems: list[Any], source: str) -> str:
    """Return a line that describes the errors that pydantic reports about one value.

    For errors about several sections together there is one line for each of them.
    """
    problem = problems[0]
    if not problem["loc"]:
        nested = problem.get("ctx", {}).get("error")
        if isinstance(nested, NestedErrors):
            return "\n".join(f"{source}: {line}" for line in nested.lines)
        return f"{source}: {problem['msg'].removeprefix('Value error, ')}"
    *parents, key = problem["loc"]
    # Pydantic writes "[key]" for a bad key of a mapping. Here it is a model, which the message
    # names.
    if key == "[key]":
        *parents, key = parents[:-1]
    if isinstance(key, int):
        *parents, list_key = parents
        key = f"{list_key}, entry {key + 1}"
    models = _settings_at(Config, tuple(map(str, parents)))
    section = ".".join(str(part) for part in parents if str(part) not in _rule_names())
    location = f"{source}: {key}"
    if section:
        location = f"{source}: [{section}] {key}"
    if problem["type"] == "extra_forbidden":
        key_names = {name for model in models for name in model.model_fields}
        return f"{location}: unknown key.{suggest_nearest(str(key), key_names)}"
    if problem["type"] == "missing":
        return f"{location}: missing; add it."
    if problem["type"] == "union_tag_invalid":
        location = f"{source}: [{key}] rule"
    return f"{location}: {describe_invalid_value(problems)}"


def _settings_at(annotation: Any, path: tuple[str, ...]) -> list[type[BaseModel]]:
    """Return the settings classes that the value at ``path`` may have, starting from an annotation.

    There are several where the annotation is a union, and none if the path does not exist.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not path:
            return [annotation]
        field = annotation.model_fields.get(path[0])
        if field is None:
            return []
        return _settings_at(field.annotation, path[1:])
    below = [part for part in get_args(annotation) if not isinstance(part, str)]
    if path and path[0] in _rule_names():
        below = [part for part in below if _rule_name(part) in (path[0], None)]
        if any(_rule_name(part) for part in below):
            path = path[1:]
    return [model for part in below for model in _settings_at(part, path)]


def _rule_name(annotation: Any) -> str | None:
    """Return the value of the key ``rule`` that selects this settings class, or None if it has no
    such key."""
    fields = getattr(annotation, "model_fields", {})
    if "rule" not in fields:
        return None
    return fields["rule"].default


def _rule_names() -> set[str]:
    """Return the names of all split rules, which are the values of the key ``rule``."""
    return {"time", "last", "fraction", "users", "items", "folds", "files"}
