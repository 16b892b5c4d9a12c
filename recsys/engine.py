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
from recsys.ranking.business_rules import Rules, load_rules
from recsys.recommender import FitsFromSums, Recommender
from recsys.runfolder import RunFolder

Progress = Callable[[str, int, int], None]
"""A function that reports progress. It is called with (name of the step, units done, total units).
"""


RANK_IS_CAPPED = ("spectral",)
"""Kinds of model that accept any rank: if the rank is larger than possible, they use the largest
possible one.
"""


def training_rows(kind: str, users: int, items: int) -> int:
    """Return the number of rows of the matrix that a kind of model is trained on.

    For most kinds it is the number of users. For ``content_als`` it is users + items, because this
    kind adds one artificial user per item.

    Args:
        kind: the kind of the model.
        users, items: the numbers of users and items of train.
    """
    # Besides its users, it has an artificial user for each item with features.
    if kind == "content_als":
        return users + items
    return users


class Library(Protocol):
    """An interface to build and save local models, for an engine that must not import
    ``recsys.models``.
    """

    def build(self, kind: str, params: Mapping[str, Any]) -> FitsFromSums:
        """Return an unfitted model of this kind.

        Args:
            kind: the kind of the model, for example ``ease``.
            params: parameter -> value. Parameters that are not given have their defaults.

        Raises:
            ConfigError: a parameter is not valid.
            TypeError: models of this kind cannot be fitted from sums.
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
        """Write a fitted model to a folder, together with its fallback.

        Args:
            name: the name of the model in the config.
            model: the fitted model.
            fallback: (kind, scores) of the model that serves users whom ``model`` does not serve.
                The scores are float[items]. None if there is no fallback.
            min_history: users with fewer liked items than this are served by the fallback.
            folder: the folder of the model, which is inside the run folder.
        """
        ...


class Engine(ABC):
    """The abstract base of all engines. An engine runs one config, step by step.

    Each step stores its result in attributes, which later steps use.

    Attributes:
        config: the config.
        rules: the business rules, or None if the config has none.
        folder: the run folder, where the steps write their files. Set by :meth:`open`.
        meter: measures the time and memory of each step. Set by :meth:`open`.
        report_progress: a function of type :data:`Progress`. Set by :meth:`open`.
        fold_starts: the start of the test part of each fold of a rolling backtest, in seconds since
            1970, earliest first. Set by :meth:`split_events`. Empty without a backtest.
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
            self.rules = load_rules(config.recommend.rules)

    @contextmanager
    def started(self, meter: Meter) -> Iterator[None]:
        """Start what must run before the run folder is made.

        By default nothing is started. The Spark engine starts its session here.

        Args:
            meter: measures the time and memory of the start.
        """
        yield

    @contextmanager
    def open(self, folder: RunFolder, meter: Meter, progress: Progress | None = None) -> Iterator[None]:
        """Store the folder, the meter and the progress function that all steps of one run use.

        An engine that needs other resources during a run acquires them here, and releases them at
        the end of the block.

        Args:
            folder: the run folder to write to.
            meter: measures the time and memory of each step.
            progress: is called to report progress. None: progress is not reported.
        """
        self.folder = folder
        self.meter = meter
        self.report_progress = progress or (lambda step, done, total: None)
        yield

    def check_ranks(self, users: int, items: int) -> None:
        """Check that the rank of each configured model is not too large for train.

        The rank is the number of latent factors.

        Args:
            users, items: the numbers of users and items of train.

        Raises:
            ConfigError: a rank is larger than :func:`recsys.als.parameters.largest_rank` allows.
                The message has one line for each such rank.
        """
        lines = []
        for name, settings in self.config.models.items():
            parts = {name: settings} | {
                f"{name}.parts.{part}": part_settings for part, part_settings in _parts_of(settings).items()
            }
            for label, part in parts.items():
                kind = part.get("model", label.rpartition(".")[2])
                rank = part.get("rank", 1)
                largest = largest_rank(training_rows(kind, users, items), items)
                # A rank that is not a number is refused where the model is built.
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
        """Split the events, write the parts, and prepare what all models use.

        That is the truth by which lists are judged, the business rules, and the catalogue.
        """

    @property
    @abstractmethod
    def model_names(self) -> list[str]:
        """The names of the baselines, then those of the configured models. This is the order of the
        run.

        They are available after :meth:`split_events`.
        """

    @abstractmethod
    def fit(self, name: str) -> None:
        """Train the model ``name`` and save it in the run folder."""

    @abstractmethod
    def recommend(self, name: str) -> None:
        """Make the lists of the model ``name`` and write them. The model must be fitted."""

    @abstractmethod
    def judge(self, name: str) -> None:
        """Compute the metrics of the lists of the model ``name`` against the truth, and store them.

        :meth:`recommend` must have been called for this model just before.
        """

    @property
    def has_cold_start_curve(self) -> bool:
        """Whether the run also evaluates each model on shortened histories. False by default."""
        return False

    def judge_cold_start(self, name: str) -> None:
        """Evaluate the model ``name`` on histories that are cut to their first events.

        It is called only if :attr:`has_cold_start_curve` is True.
        """
        raise NotImplementedError

    @abstractmethod
    def summarise(self) -> dict[str, Any]:
        """Write the values per user and the mean metrics, and return the content of metrics.json.

        :func:`recsys.evaluation.summary.summarise` describes this content.
        """

    @abstractmethod
    def pool_folds(self, folders: list[RunFolder]) -> dict[str, Any]:
        """Average the values of each user over the folds of a backtest, and summarise them.

        A rolling backtest tests on several windows of time; each window is a fold. The averages are
        written to backtest_per_user.parquet. The result is the entry ``backtest`` of metrics.json
        (:func:`recsys.evaluation.pooling.describe_pooled`).

        Args:
            folders: the run folders of all folds. The last one is that of the run itself. Each has
                the values per user.
        """


def _parts_of(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return part name -> settings of a blend. The result is empty for a model that is not a blend."""
    parts = settings.get("parts")
    if not isinstance(parts, dict):
        return {}
    return {name: part for name, part in parts.items() if isinstance(part, dict)}
