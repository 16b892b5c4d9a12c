"""Models of the user's own, named in a config as ``package.module:Class``.

Such a config runs code that its author chose. So a class is imported only inside of
:func:`allow_own_models`, which the option ``--own-models`` of the command line enters. A config or
a saved model alone never causes an import.

The class must be a :class:`recsys.recommender.Recommender`, or a
:class:`recsys.rating_model.RatingModel` in a run that predicts ratings. If it has parameters, it
must be a dataclass, and its fields are the parameters. If the class raises an error or returns what
its interface does not allow, the message is one sentence.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from scipy.sparse import issparse

from recsys.array_files import require_arrays
from recsys.errors import ConfigError, RecsysError, RunFolderError, suggest_nearest
from recsys.parameters import build_from_parameters
from recsys.rating_model import RatingModel
from recsys.recommender import Explanation, Recommender, require_scores
from recsys.types import Features, Histories, Interactions


class OwnModelClosed(RunFolderError):
    """The error that a saved model of the user's own class cannot be opened.

    The reason is one of three. Own models are not allowed (:func:`allow_own_models`), the class
    cannot be imported, or the class does not name its arrays in ``STATE``.
    """


OwnModel = Recommender | RatingModel

METHODS = {Recommender: "fit and score", RatingModel: "fit and predict"}
"""Base class -> the methods that a class of the user's own must have, for messages."""


class _Permission:
    """Counts the ``with allow_own_models()`` blocks that are active."""

    depth = 0


@contextmanager
def allow_own_models() -> Iterator[None]:
    """Allow, inside the ``with`` block, that configs and saved models name classes of the user's own.

    The code of these classes then runs. Modules are searched among the installed ones first, then
    in the current folder. The permission holds for all threads of the process.
    """
    # At the end of the path, so that no file of the folder replaces an installed module.
    folder = os.getcwd()
    sys.path.append(folder)
    _Permission.depth += 1
    try:
        yield
    finally:
        _Permission.depth -= 1
        sys.path.remove(folder)


def own_model_class(class_path: str, base: type[OwnModel] | None = None) -> type[OwnModel]:
    """Import a class of the user's own, and return a subclass that also checks what it returns.

    The subclass has the name and the parameters of the class. Its methods raise ConfigError if the
    user's code raises an error, or if ``fit`` does not set the arrays that ``STATE`` describes.
    They raise InputError if ``score`` or ``predict`` returns another shape or dtype than it must.

    Args:
        class_path: ``package.module:Class``, for example ``shop_models:Mine``.
        base: Recommender or RatingModel, of which the class must be a subclass. None: either.

    Raises:
        ConfigError: own models are not allowed, the class cannot be imported, or it is not a usable
            class of this kind.
    """
    if not _Permission.depth:
        raise ConfigError(
            f"model '{class_path}' is a class of your own, and to use it is to run its code: add --own-models to the"
            " command if you trust it (in Python: with recsys.allow_own_models())."
        )
    module_name, _, class_name = class_path.partition(":")
    if not all(name.isidentifier() for name in [*module_name.split("."), class_name]):
        raise ConfigError(f"model '{class_path}': write it as package.module:Class, for example shop_models:Mine.")
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model '{class_path}': no module {error.name} is installed or in the folder {os.getcwd()}: run the command"
            " in the folder of the module, or install it."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"model '{class_path}': importing {module_name} failed, {_describe(error)}.") from error
    names = [name for name, value in vars(module).items() if inspect.isclass(value)]
    if class_name not in names:
        file = getattr(module, "__file__", None) or module_name
        raise ConfigError(
            f"model '{class_path}': {file} has no class {class_name}.{suggest_nearest(class_name, names)}"
        )
    cls = vars(module)[class_name]
    _require_contract(cls, class_path, base)
    if issubclass(cls, RatingModel):
        return _checked_rating_model(cls, class_path)
    return _checked_subclass(cls, class_path)


def build_own_model(class_path: str, params: dict[str, Any], base: type[OwnModel] | None = None) -> Any:
    """Return an unfitted model of a class of the user's own.

    Args:
        class_path: ``package.module:Class``, for example ``shop_models:Mine``.
        params: parameter -> value. A parameter that is not given has its default.
        base: as for :func:`own_model_class`.

    Raises:
        ConfigError: the call is not inside ``with allow_own_models()``, the class cannot be used, a
            parameter is unknown, the class raises an error for a value, or a value cannot be written as JSON.
    """
    cls = own_model_class(class_path, base)
    with _failures_named(class_path, "making it"):
        model: OwnModel = build_from_parameters(cls, params, f"model '{class_path}'")
    for name, value in own_parameters(model).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ConfigError(
                f"model '{class_path}': the parameter {name} is of type {type(value).__name__}, which a run folder"
                " cannot hold: use numbers, text, lists and tables."
            ) from None
    return model


def class_path_of(model: OwnModel) -> str | None:
    """Return the class path ``package.module:Class`` of a model of the user's own class.

    The result is None for a model of any other class.
    """
    return getattr(model, "CLASS_PATH", None)


def own_parameters(model: OwnModel) -> dict[str, Any]:
    """Return the parameters of a model of the user's own class, as a dict: name -> value."""
    fields = dataclasses.fields(cast(Any, model))
    return {field.name: getattr(model, field.name) for field in fields if field.init}


def declares_state(cls: type[OwnModel]) -> bool:
    """Return whether a class, or a class that it inherits from, defines ``STATE``.

    ``STATE`` names the arrays that ``fit`` sets. It may be empty. The empty ``STATE`` that every
    model inherits does not count.
    """
    return any("STATE" in vars(base) for base in cls.__mro__ if base not in METHODS)


def _require_contract(cls: Any, class_path: str, base: type[OwnModel] | None) -> None:
    """Raise ConfigError if a class is not a subclass of ``base``, lacks a method, or is not a dataclass."""
    if not issubclass(cls, base or tuple(METHODS)):
        base = base or Recommender
        purpose = " with [judge] task = 'ratings'" if base is RatingModel else ""
        raise ConfigError(
            f"model '{class_path}' is not a {base.__module__}.{base.__name__}:{purpose} write class"
            f" {cls.__name__}({base.__name__}), with {METHODS[base]}."
        )
    if missing := sorted(cls.__abstractmethods__):
        methods = METHODS[RatingModel if issubclass(cls, RatingModel) else Recommender]
        raise ConfigError(f"model '{class_path}' has no {' and no '.join(missing)}: a model needs {methods}.")
    if not dataclasses.is_dataclass(cls) and cls.__init__ is not object.__init__:
        raise ConfigError(
            f"model '{class_path}' takes its parameters in __init__: make it a dataclass, with the parameters as"
            " fields, because a run saves them by name."
        )


@cache
def _checked_subclass(cls: Any, class_path: str) -> type[Recommender]:
    """Return a subclass of a user's class that checks its results and explains its errors."""

    class Checked(cls):  # type: ignore[misc]
        CLASS_PATH = class_path

        def fit(self, train: Interactions, features: Features | None = None) -> Self:
            with _failures_named(class_path, "fit"):
                super().fit(train, features)
            _require_state(self, class_path, {"items": len(train.items)})
            return self

        def score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
            with _failures_named(class_path, "score"):
                scores = super().score(histories, users)
            return require_scores(scores, histories, class_path)

        def can_score(self, histories: Histories, users: np.ndarray | None = None) -> np.ndarray:
            with _failures_named(class_path, "can_score"):
                return np.asarray(super().can_score(histories, users), dtype=bool).reshape(len(histories))

        def source(self, histories: Histories, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
            with _failures_named(class_path, "source"):
                return np.asarray(super().source(histories, items, users)).reshape(items.shape)

        def explain(self, history: Histories, item: int, user: int = 0) -> Explanation:
            with _failures_named(class_path, "explain"):
                return super().explain(history, item, user)  # type: ignore[no-any-return]

    return _named_like(Checked, cls)


@cache
def _checked_rating_model(cls: Any, class_path: str) -> type[RatingModel]:
    """Return a subclass of a user's model of ratings that checks its results and explains its errors."""

    class Checked(cls):  # type: ignore[misc]
        CLASS_PATH = class_path

        def fit(self, train: Interactions, features: Features | None = None) -> Self:
            with _failures_named(class_path, "fit"):
                super().fit(train, features)
            _require_state(self, class_path, {"items": len(train.items), "users": len(train.users)})
            return self

        def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
            with _failures_named(class_path, "predict"):
                return super().predict(users, items)  # type: ignore[no-any-return]

        def spread(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
            with _failures_named(class_path, "spread"):
                return np.asarray(super().spread(users, items), dtype=np.float64).reshape(len(users))

    return _named_like(Checked, cls)


def _named_like(checked: Any, cls: Any) -> Any:
    """Return the class ``checked`` with the names of ``cls``, made a dataclass if it is none."""
    # A class without parameters needs no decorator of its own; fields are what callers read.
    if not dataclasses.is_dataclass(checked):
        dataclasses.dataclass(checked)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(checked, name, getattr(cls, name))
    return checked


def _require_state(model: OwnModel, class_path: str, sizes: dict[str, int]) -> None:
    """Raise ConfigError if the arrays of a fitted model differ from what its ``STATE`` describes.

    Args:
        sizes: name of a dimension in ``STATE`` -> its size.
    """
    arrays = {}
    for name in model.STATE:
        arrays[name] = getattr(model, name, None)
        if not isinstance(arrays[name], np.ndarray) and not issparse(arrays[name]):
            raise ConfigError(f"model '{class_path}': STATE names {name}, but fit sets no array of this name.")
    try:
        require_arrays(arrays, model.STATE, sizes)
    except ValueError as error:
        raise ConfigError(f"model '{class_path}': fit and STATE disagree, {error}.") from error


@contextmanager
def _failures_named(class_path: str, step: str) -> Iterator[None]:
    """Convert an exception of the user's code into a ConfigError that names the model and the step."""
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        raise ConfigError(f"model '{class_path}': {step} failed, {_describe(error)}.") from error


def _describe(error: BaseException) -> str:
    """Return an error as text: its type, its message, and the line of the user's file that raised it.

    For example, ``ValueError: no (mine.py, line 7)``.
    """
    text = " ".join(str(error).split())
    described = f"{type(error).__name__}: {text}" if text else type(error).__name__
    # Of a syntax error the frames are those of the import, and the error has the line.
    if isinstance(error, SyntaxError):
        return described
    # The innermost line outside of recsys and of installed packages is the one to look at.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users_file(frame.filename)]
    if not frames:
        return described
    return f"{described} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _is_users_file(filename: str) -> bool:
    path = Path(filename)
    is_installed = bool({"site-packages", "dist-packages"} & set(path.parts)) or filename.startswith("<")
    is_standard = path.is_relative_to(Path(os.__file__).parent)
    return not is_installed and not is_standard and not path.is_relative_to(Path(__file__).parents[1])
