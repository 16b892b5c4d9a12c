"""What a run asks of an engine: the steps that ``recsys.flow.run`` calls, the same for both
engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

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
"""Called with (step, done, total)."""


RANK_IS_CAPPED = ("spectral",)
"""Kinds of model that take the largest rank that there is where a larger one is asked for."""


def training_rows(kind: str, users: int, items: int) -> int:
    """Return the number of rows of the matrix that a kind of model is trained on."""
    # Besides its users, it has an artificial user for each item with features.
    if kind == "content_als":
        return users + items
    return users


class Library(Protocol):
    """Makes and saves models for an engine that must not import them."""

    def build(self, kind: str, params: Mapping[str, Any]) -> FitsFromSums:
        """Return an unfitted model; ConfigError for a parameter that is not valid."""
        ...

    def save(
        self,
        name: str,
        model: Recommender,
        fallback: tuple[str, np.ndarray] | None,
        min_history: int,
        folder: Path,
    ) -> None:
        """Write a fitted model with its fallback, the kind and the scores of one."""
        ...


class Engine(ABC):
    """One way to run a config. Each step keeps what it makes as attributes, for the steps after it.

    ``folder``: where the steps write their files. ``meter``: measures their cost. ``fold_starts``:
    set by the split, the start of the test of each fold of a rolling backtest; empty without one.
    """

    config: Config
    folder: RunFolder
    meter: Meter
    rules: Rules | None
    fold_starts: list[float]
    report_progress: Progress

    def __init__(self, config: Config) -> None:
        """Check what can be checked before any work: the rules can be read.

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
        """Make ready for the steps of one run."""
        self.folder = folder
        self.meter = meter
        self.report_progress = progress or (lambda step, done, total: None)
        yield

    def check_ranks(self, users: int, items: int) -> None:
        """Check that no model of the config asks for a rank that train cannot hold.

        Raises:
            ConfigError: a rank above ``als.parameters.largest_rank``.
        """
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
                    raise ConfigError(
                        f"model '{label}': rank = {rank:,}, but train has {users:,} users and {items:,} items, and more"
                        f" factors than that fit noise. Set rank to {largest:,} or less."
                    )

    @abstractmethod
    def read_events(self) -> None:
        """Read and check the tables; write the refused rows and the data card."""

    @abstractmethod
    def split_events(self) -> None:
        """Divide the events, write the parts, and make what all models share: truth, rules,
        segments, catalogue.
        """

    @property
    @abstractmethod
    def model_names(self) -> list[str]:
        """The baselines and the models of the config, in the order of the run; known after the
        split.
        """

    @abstractmethod
    def fit(self, name: str) -> None:
        """Train one model and write it."""

    @abstractmethod
    def recommend(self, name: str) -> None:
        """Make the lists of one model and write them."""

    @abstractmethod
    def judge(self, name: str) -> None:
        """Judge the lists of one model against the truth."""

    @property
    def has_cold_start_curve(self) -> bool:
        """Whether the run judges each model on shortened histories too."""
        return False

    def judge_cold_start(self, name: str) -> None:
        """Judge one model on histories cut to their first events; asked only of an engine that has
        the curve.
        """
        raise NotImplementedError

    @abstractmethod
    def summarise(self) -> dict[str, Any]:
        """Write the results per user and the metrics, and return the metrics."""


def _parts_of(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of the parts of a blend, empty for another model."""
    parts = settings.get("parts")
    if not isinstance(parts, dict):
        return {}
    return {name: part for name, part in parts.items() if isinstance(part, dict)}
