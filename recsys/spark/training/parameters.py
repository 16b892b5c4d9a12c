"""Parameters of the models that Spark trains. Most are those of the local models."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from pydantic.dataclasses import dataclass
from pyspark.sql import DataFrame

from recsys.als.parameters import LOCAL_ONLY, ALSParameters, AttributesParameters
from recsys.als.solvers import Axes, explicit_rows, implicit_equations, implicit_rows
from recsys.config import Config, ItemBlockMB
from recsys.errors import ConfigError
from recsys.evaluation.settings import BASELINES
from recsys.linalg import CSR
from recsys.locations import Location
from recsys.parameters import STRICT, build_each, build_from_parameters, is_class_path


@dataclass(config=STRICT)
class SparkALSParameters(ALSParameters):
    """Parameters of ALS on Spark. A parameter that the local ``als`` has too means the same there."""

    kind: ClassVar[str] = "als"

    implicit: Annotated[
        bool,
        Field(description="true: likes and confidences; false: predict the values themselves (ratings)"),
    ] = True
    trainer: Annotated[
        Literal["recsys", "mllib"],
        Field(description="'mllib' is for nonnegative, and supports only nu = 1 and beta = 0"),
    ] = "recsys"
    nonnegative: Annotated[bool, Field(description="factors ≥ 0; trainer = 'mllib' only")] = False
    blocks: Annotated[
        int | None,
        Field(ge=1, description="user and item blocks of MLlib; unset: one per core, at least 10"),
    ] = None
    driver_pairs: Annotated[
        int,
        Field(ge=0, description="a log of at most this number of pairs is trained by the driver alone; 0: never"),
    ] = 2**22
    checkpoint_every: Annotated[
        int,
        Field(ge=1, description="iterations of MLlib, or with item factors in blocks, between checkpoints"),
    ] = 10

    def penalty(self, pair_counts: np.ndarray, opposite_rows: int) -> np.ndarray:
        """Return the weight of each row's squared norm in the objective, float64[rows].

        A row is a user or an item. The weight is reg · (n + beta · m)^nu, where n is the number of
        training pairs of the row and m is ``opposite_rows``.

        Args:
            pair_counts: int[rows], the number of training pairs of each row.
            opposite_rows: the number of users if rows are items, and of items if rows are users.
        """
        return self.reg * (pair_counts + self.beta * opposite_rows) ** self.nu

    def is_training_pair(self, values: np.ndarray) -> np.ndarray:
        """Return bool[n]: whether the pair of each of n values is a training pair.

        With implicit feedback, training pairs are the pairs with a value above 0. With explicit
        feedback, all stored pairs are. The penalty counts training pairs only. A user or an item
        without a training pair gets no factor.

        Args:
            values: float[n], the values of the pairs.
        """
        if self.implicit:
            return values > 0
        return np.ones(len(values), dtype=bool)

    def count_training_pairs(self, indptr: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the number of training pairs of each row of a CSR matrix, int64[rows].

        Args:
            indptr: int64[rows + 1], where the entries of each row begin and end.
            values: float[n], the values of all entries.
        """
        cumulative = np.append(0, np.cumsum(self.is_training_pair(values)))
        return np.diff(cumulative[indptr])

    def solve_rows(self, matrix: CSR, fixed: np.ndarray, axes: Axes | None, n_columns: int | None = None) -> np.ndarray:
        """Compute the factor of each row that minimises the loss for fixed factors of the columns.

        Rows are users and columns are items, or the reverse. The result is [rows, rank] in the
        dtype of ``fixed``. Each row is solved exactly.

        Args:
            matrix: indptr, columns and values of a CSR matrix with all pairs of each row.
            fixed: [columns, rank], the factors of the columns. A column without factors has zeros.
            axes: the principal axes of all columns for implicit feedback, else None.
            n_columns: the number of all columns, if ``fixed`` has only those of the pairs.
        """
        penalty = self.penalty(self.count_training_pairs(matrix[0], matrix[2]), n_columns or len(fixed))
        if self.implicit:
            return implicit_rows(implicit_equations(matrix, self.alpha, penalty, fixed.dtype), fixed, axes)
        return explicit_rows(matrix, fixed, penalty)


@dataclass(config=STRICT)
class SparkAttributesParameters(SparkALSParameters, AttributesParameters):
    """Parameters of ``attributes`` on Spark: those of ALS on Spark, and those of the regression."""

    kind: ClassVar[str] = "attributes"


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingData:
    """The tables from which a model is trained.

    Attributes:
        train: columns (user, item, value), one row per pair. ``user`` and ``item`` are row numbers.
        candidates: the number of items that can be recommended.
        items: the candidates in the order of their rows, with the columns of the items table.
        liked_by: int[candidates], the number of users who like each item.
        work: a folder for tables of this model. Executors see it under the same path.
        item_block_mb: the setting ``[spark] item_block_mb``.
        trained: parameters of ALS -> the factors trained with them. All models of a run share it,
            so that no factors are trained twice.
    """

    train: DataFrame
    candidates: int
    items: pd.DataFrame
    liked_by: np.ndarray
    work: Location
    item_block_mb: ItemBlockMB = "auto"
    trained: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)


KINDS = {"als": "training.als", "attributes": "features.attributes"}
"""Kind of model -> its module in ``recsys.spark``, which is imported when it is first needed.

The module has ``PARAMETERS``, a class of parameters based on :class:`SparkALSParameters`, and
``fit_model(parameters, data)``, which takes a :class:`TrainingData` and returns a
:class:`~recsys.spark.training.trainer.FittedALS`.
"""


SUMMED_KINDS = ("transitions", "next_item", "itemknn", "ease")
"""Kinds of models that are fitted from sums over users (:mod:`recsys.spark.training.sums`).

They have the parameters of the local engine. To add a kind whose class is a
:class:`recsys.recommender.FitsFromSums`, add its name here.
"""


def kind_module(kind: str) -> Any:
    """Import the module that trains a kind of model on Spark, and return it.

    Args:
        kind: a key of :data:`KINDS`.

    Raises:
        ConfigError: Spark does not train factors of this kind.
    """
    if is_class_path(kind):
        raise ConfigError(
            f"model '{kind}' is a class of your own, which runs on the local engine alone: set engine = 'local'."
        )
    # A config may name anything as the kind, also a list.
    if not isinstance(kind, str) or kind not in KINDS:
        *kinds, last_kind = [f"'{name}'" for name in (*KINDS, *SUMMED_KINDS)]
        raise ConfigError(
            f"model '{kind}' does not run on Spark: use {', '.join(kinds)} or {last_kind}, or engine = 'local'."
        )
    return importlib.import_module(f"recsys.spark.{KINDS[kind]}")


def parse_parameters(kind: str, params: Mapping[str, Any]) -> SparkALSParameters:
    """Check the parameters of a model that Spark trains, and return them as an object.

    Args:
        kind: a key of :data:`KINDS`.
        params: parameter -> value. A parameter that is not given has its default.

    Raises:
        ConfigError: Spark does not train this kind, a parameter is unknown, a value is out of
            range, or two parameters contradict each other.
    """
    parameters_class = kind_module(kind).PARAMETERS
    label = f"model '{kind}' on Spark"
    parameters: SparkALSParameters = build_from_parameters(parameters_class, params, label, LOCAL_ONLY, "local")
    if parameters.trainer == "mllib" and (parameters.nu, parameters.beta) != (1, 0):
        raise ConfigError(f"{label}: trainer = 'mllib' supports only nu = 1 and beta = 0.")
    if parameters.trainer != "mllib" and parameters.nonnegative:
        raise ConfigError(f"{label}: nonnegative needs trainer = 'mllib'.")
    return parameters


def model_parameters(config: Config) -> dict[str, SparkALSParameters]:
    """Return a dict: name -> parameters of each model of a config whose factors Spark trains.

    Baselines and the kinds :data:`SUMMED_KINDS` are left out. A model without a seed gets that of
    the config.

    Raises:
        ConfigError: the errors of :func:`parse_parameters`, or a baseline that has parameters or
            another name than its own.
    """
    parameters = build_each(lambda name: _parameters_of(name, config), config.models)
    return {name: checked for name, checked in parameters.items() if checked is not None}


def _parameters_of(name: str, config: Config) -> SparkALSParameters | None:
    """Return the parameters of a configured model, or None if it is not a factor model."""
    own_settings = dict(config.models[name])
    kind = own_settings.pop("model", name)
    if kind in SUMMED_KINDS:
        return None
    if kind not in BASELINES:
        return parse_parameters(kind, {"seed": config.seed} | own_settings)
    if own_settings or name != kind:
        raise ConfigError(
            f"model '{name}': on Spark the baseline '{kind}' has no parameters and no other name: leave it out of"
            " [models], because every run has it, or set engine = 'local'."
        )
    return None


def summed_models(config: Config) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a dict: name -> (kind, parameters) of each model in ``[models]`` of :data:`SUMMED_KINDS`.

    The parameters are those of the config, unchecked.
    """
    kinds = {name: settings.get("model", name) for name, settings in config.models.items()}
    return {
        name: (kinds[name], {key: value for key, value in settings.items() if key != "model"})
        for name, settings in config.models.items()
        if kinds[name] in SUMMED_KINDS
    }
