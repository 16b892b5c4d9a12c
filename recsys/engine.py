"""The steps of a run that every engine implements, and that ``recsys.flow.run`` calls in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from recsys.als.parameters import largest_rank
from recsys.config import Config
from recsys.errors import ConfigError
from recsys.meter import Meter
from recsys.parameters import is_class_path
from recsys.ranking.business_rules import Rules, load
from recsys.recommender import FitsFromSums, Recommender
from recsys.runfolder import RunFolder

Progress = Callable[[str, int, int], None]
"""A function that is called with (step, number done, total number) to report progress."""


RANK_IS_CAPPED = ("spectral",)
"""Kinds of model that use the largest possible rank if their rank is set to a larger number."""


def training_rows(kind: str, users: int, items: int) -> int:
    """Return the number of rows of the matrix that a kind of model is trained on.

    It is the number of users. For ``content_als`` it is larger, because this kind adds one
    artificial user for each item.

    Args:
        kind: the kind of the model.
        users, items: the numbers of users and items of train.
    """
    # Besides its users, it has an artificial user for each item with features.
    if kind == "content_als":
        return users + items
    return users


class Library(Protocol):
    """Builds and saves local models for an engine that must not import ``recsys.models``."""

    def build(self, kind: str, params: Mapping[str, Any]) -> FitsFromSums:
        """Return an unfitted model of this kind.

        Raises:
            ConfigError: a parameter is not valid.
        """
        ...

    def save(
        self,
        name: str,
        model: Recommender,
        fallback: tuple[str, np.ndarray] | None,
        min_history: int,
        folder: Path,
    ) -> None:
        """Write a fitted model, and the fallback that serves users whom the model does not score.

        Args:
            fallback: the kind and the scores of the fallback. None if there is no fallback.
            min_history: users with fewer liked items than this are served by the fallback.
            folder: the run folder.
        """
        ...


class Engine(ABC):
    """The abstract base of the two engines, each of which runs one config step by step.

    Each step stores its result in attributes, which later steps use.

    Attributes:
        config: the config.
        rules: the business rules, or None if the config has none.
        folder: where the steps write their files. Set by :meth:`open`.
        meter: measures the time and memory of each step. Set by :meth:`open`.
        report_progress: called with the name of a step, the number of units that are done, and the
            number of all units. Set by :meth:`open`.
        fold_starts: the time at which the test part of each fold of a rolling backtest starts, in
            seconds since 1970, earliest first. Set by the split. Empty without a backtest.
    """

    prediction_hop: ClassVar[str] = "recommend"
    """The name of the step :meth:`recommend` in the costs of a run."""

    config: Config
    folder: RunFolder
    meter: Meter
    rules: Rules | None
    fold_starts: list[float]
    report_progress: Progress

    def __init__(self, config: Config) -> None:
        """Read the business rules, if there are any.

        Raises:
            ConfigError: the file of rules cannot be read.
        """
        self.config = config
        self.rules = None
        self.fold_starts = []
        if config.recommend.rules:
            self.rules = load(config.recommend.rules)

    @contextmanager
    def open(self, folder: RunFolder, meter: Meter, progress: Progress | None = None) -> Iterator[None]:
        """Store the folder, the meter and the progress function that all steps of one run use.

        An engine that needs other resources during a run acquires them here, and releases them at
        the end of the block.
        """
        self.folder = folder
        self.meter = meter
        self.report_progress = progress or (lambda step, done, total: None)
        yield

    def check_ranks(self, users: int, items: int) -> None:
        """Check that the train part is large enough for the rank of each model of the config.

        Raises:
            ConfigError: a rank is larger than ``als.parameters.largest_rank`` permits. The message has
                a line for each such rank.
        """
        lines = []
        for name, settings in self.config.models.items():
            parts = {name: settings} | {f"{name}.parts.{part}": own for part, own in _parts_of(settings).items()}
            for label, part in parts.items():
                kind = part.get("model", label.rpartition(".")[2])
                rank = part.get("rank", 1)
                largest = largest_rank(training_rows(kind, users, items), items)
                # A rank that is no number is refused where the model is built.
                if is_class_path(kind):
                    continue
                if isinstance(rank, int) and rank > largest and kind not in RANK_IS_CAPPED:
                    lines.append(
                        f"model '{label}': rank = {rank:,}, but train has {users:,} users and {items:,} items, and more"
                        f" factors than that fit noise. Set rank to {largest:,} or less."
                    )
        if lines:
            raise ConfigError("\n".join(lines))

    @abstractmethod
    def read_events(self) -> None:
        """Read and check the tables, and write the refused rows and the data card."""

    @abstractmethod
    def split_events(self) -> None:
        """Split the events, write the parts, and prepare what all models use: truth, rules and
        catalogue."""

    @property
    @abstractmethod
    def model_names(self) -> list[str]:
        """The names of the baselines and of the configured models, in the order of the run.

        They are available after :meth:`split_events`.
        """

    @abstractmethod
    def fit(self, name: str) -> None:
        """Train one model and save it."""

    @abstractmethod
    def recommend(self, name: str) -> None:
        """Make and write the lists of one model."""

    @abstractmethod
    def judge(self, name: str) -> None:
        """Compute the metrics of one model's lists against the truth."""

    @property
    def has_cold_start_curve(self) -> bool:
        """Whether the run also evaluates each model on shortened histories."""
        return False

    def judge_cold_start(self, name: str) -> None:
        """Evaluate one model on histories that are cut to their first events.

        It is called only if :attr:`has_cold_start_curve` is true.
        """
        raise NotImplementedError

    @abstractmethod
    def summarise(self) -> dict[str, Any]:
        """Write the results per user and the metrics, and return the content of metrics.json."""

    @abstractmethod
    def pool_folds(self, folders: list[Path]) -> dict[str, Any]:
        """Write the mean of each user's values over the folds of a backtest, and return what it shows.

        The result is the entry ``backtest`` of metrics.json (:mod:`recsys.evaluation.pooling`).

        Args:
            folders: the folders of all folds, the last of which is that of the run itself. Each has
                its values per user.
        """


def _parts_of(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return part name -> settings of a blend. The result is empty for a model that is not a blend."""
    parts = settings.get("parts")
    if not isinstance(parts, dict):
        return {}
    return {name: part for name, part in parts.items() if isinstance(part, dict)}
