"""Build models from a name and parameters, and save and load fitted models.

    random     a random score                       popular    the most liked items
    recent     the most liked items lately          als        matrix factorization
    itemknn    items that share users               userknn    what similar users like
    rp3beta    walks over shared users              ease       linear autoencoder, closed form
    spectral   graph filter over singular vectors   content    attributes and words alone
    attributes new items get factors from features  content_als content inside the factorization
    side_ease  autoencoder over likes and content   blend      parts and weights that you name
    hybrid     chooses parts and weights itself     bpr        pairwise ranking
    repeat     what the user had before             transitions what followed what
    next_item  what comes next, closed form         sasrec     what comes next, a Transformer
    package.module:Class           a class of the user's own (recsys.models.own_model)

Models of ratings, for ``[judge] task = "ratings"`` (:mod:`recsys.rating_model`):

    mean       the mean of all ratings              biases     plus those of users and items
    rating_als factors by least squares             rating_knn what the user gave to similar items
    bpmf       factors by Gibbs sampling            stack      a weighted average of several
    text_score biases drawn to what reviews say

A model is a dataclass of its parameters. ``fit`` sets the arrays, dense or sparse, that ``STATE``
of the class names. ``members`` has the models that a combined model is made of. ``record`` is a
JSON object that says how the model chose its settings, if it chose any.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

import numpy as np

from recsys import run_files
from recsys.als.parameters import SPARK_ONLY
from recsys.array_files import read_array, require_arrays, write_array
from recsys.config import check_model_name
from recsys.errors import ConfigError, RunFolderError, suggest_nearest
from recsys.models.combining.cascade import Cascade
from recsys.models.own_model import (
    OwnModelClosed,
    build_own_model,
    class_path_of,
    declares_state,
    own_model_class,
    own_parameters,
)
from recsys.parameters import build_from_parameters, is_class_path
from recsys.rating_model import RatingModel
from recsys.recommender import Recommender

KINDS = {
    "random": ("collaborative.popular", "Random"),
    "popular": ("collaborative.popular", "Popular"),
    "recent": ("collaborative.popular", "Recent"),
    "repeat": ("collaborative.repeat", "Repeat"),
    "als": ("collaborative.als", "ALS"),
    "bpr": ("collaborative.bpr", "BPR"),
    "itemknn": ("collaborative.neighbours", "ItemKNN"),
    "userknn": ("collaborative.neighbours", "UserKNN"),
    "rp3beta": ("collaborative.neighbours", "RP3beta"),
    "ease": ("collaborative.ease", "EASE"),
    "spectral": ("collaborative.spectral", "Spectral"),
    "transitions": ("sequential.transitions", "Transitions"),
    "next_item": ("sequential.next_item", "NextItem"),
    "sasrec": ("sequential.sasrec", "SASRec"),
    "content": ("content", "Content"),
    "attributes": ("content_collaborative", "Attributes"),
    "content_als": ("content_collaborative", "ContentALS"),
    "side_ease": ("content_collaborative", "SideEASE"),
    "blend": ("combining.blend", "Blend"),
    "hybrid": ("combining.hybrid", "Hybrid"),
}
"""Kind -> (module below ``recsys.models``, name of the class).

A module is imported only when a model of its kind is built or loaded.
"""

RATING_KINDS = {
    "mean": ("ratings.biases", "Mean"),
    "biases": ("ratings.biases", "Biases"),
    "rating_als": ("ratings.als", "RatingALS"),
    "rating_knn": ("ratings.neighbours", "RatingKNN"),
    "bpmf": ("ratings.bpmf", "BPMF"),
    "stack": ("ratings.stack", "Stack"),
    "text_score": ("ratings.text_score", "TextScore"),
}
"""Kind -> (module below ``recsys.models``, class) of each model that predicts ratings.

A run uses these models if its config has ``[judge] task = "ratings"``.
"""

FORMAT = 1
"""Version of the files that :func:`save` writes."""

_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, RecursionError, TokenError, ConfigError)
"""Exceptions that reading a damaged model may raise: from JSON, .npy, .npz, or a wrong kind or
parameter."""


def build(kind: str, params: dict[str, Any]) -> Recommender:
    """Return an unfitted model of a kind with the given parameters.

    Args:
        kind: a key of :data:`KINDS`, or the path ``package.module:Class`` of a class of the user's
            own.
        params: parameter -> value. A parameter that is not given has its default.

    Raises:
        ConfigError: the kind or a parameter is unknown, or a parameter is missing or belongs to the
            Spark engine. Or a value is out of range or of a wrong type. For a class of the user's
            own: it cannot be imported or used, or own models are not allowed
            (:mod:`recsys.models.own_model`).

    >>> build("als", {"rnak": 8})
    Traceback (most recent call last):
    recsys.errors.ConfigError: model 'als': unknown parameter 'rnak'. Did you mean 'rank'?
    """
    if is_class_path(kind):
        return build_own_model(kind, params, Recommender)  # type: ignore[no-any-return]
    if isinstance(kind, str) and kind in RATING_KINDS:
        raise ConfigError(f"model '{kind}' predicts ratings and makes no lists: set [judge] task = 'ratings'.")
    elsewhere = SPARK_ONLY if kind in ("als", "attributes") else ()
    return build_from_parameters(kind_class(kind), params, f"model '{kind}'", elsewhere, "spark")


def build_rating_model(kind: str, params: dict[str, Any]) -> RatingModel:
    """Return an unfitted model of ratings with the given parameters.

    Args:
        kind: a key of :data:`RATING_KINDS`, or the path ``package.module:Class`` of a class of the
            user's own.
        params: parameter -> value. A parameter that is not given has its default.

    Raises:
        ConfigError: the kind or a parameter is unknown, a value is out of range, or the kind is one
            that makes lists. For a class of the user's own: as for :func:`build`.

    >>> build_rating_model("biases", {"user_shrink": 5}).user_shrink
    5.0
    """
    if is_class_path(kind):
        return build_own_model(kind, params, RatingModel)  # type: ignore[no-any-return]
    if isinstance(kind, str) and kind in KINDS:
        raise ConfigError(
            f"model '{kind}' ranks items and predicts no ratings: with [judge] task = 'ratings' the models are"
            f" {', '.join(RATING_KINDS)}."
        )
    return build_from_parameters(kind_class(kind), params, f"model '{kind}'")  # type: ignore[no-any-return]


def parameters(kind: str) -> list[str]:
    """Return the names of the parameters of a kind of model, in the order of their definition.

    Args:
        kind: as for :func:`build` or :func:`build_rating_model`.

    Raises:
        ConfigError: the kind is unknown, or a class of the user's own cannot or may not be used.

    >>> parameters("recent")
    ['share']
    """
    return [field.name for field in dataclasses.fields(kind_class(kind))]


def save(model: Recommender | RatingModel, folder: Path) -> None:
    """Write a fitted model into ``folder``: a ``model.json``, and one file per array.

    The folder is created if it does not exist, and files of the same names are overwritten. A dense
    array is written as ``.npy``, a sparse one as ``.npz``. Each member of a combined model is
    written in the same way into a subfolder that has the name of the member.

    Args:
        model: a fitted model that :func:`build` or :func:`build_rating_model` made, or a cascade of
            such models.

    Raises:
        ConfigError: the model was not made in this way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, member in model.members.items():
        save(member, folder / name)
    about: dict[str, Any]
    if isinstance(model, Cascade):
        about = {"kind": "cascade", "min_history": model.min_history}
    else:
        about = {"arrays": list(model.STATE)} | _kind_and_params(model)
        for name in model.STATE:
            write_array(folder / name, getattr(model, name))
    about |= {"members": list(model.members), "record": model.record}
    (folder / run_files.MODEL_CARD).write_text(
        json.dumps({"format": FORMAT} | about, indent=1) + "\n", encoding="utf-8"
    )


def _kind_and_params(model: Recommender | RatingModel) -> dict[str, Any]:
    """Return the ``kind`` and the ``params`` with which :func:`build` makes the same unfitted
    model.

    Raises:
        ConfigError: the model is not of a known kind, and its class was not given by its path.
    """
    if (class_path := class_path_of(model)) is not None:
        return {"kind": class_path, "params": own_parameters(model)}
    for kind, (module, name) in (KINDS | RATING_KINDS).items():
        if (type(model).__module__, type(model).__name__) == (f"recsys.models.{module}", name):
            return {"kind": kind, "params": dataclasses.asdict(cast(Any, model))}
    raise ConfigError(
        f"{type(model).__name__} cannot be saved, because it was not made by recsys.build: make it by its class path,"
        f" recsys.build('{type(model).__module__}:{type(model).__name__}', …)."
    )


def load(folder: Path, items: int | None = None) -> Any:
    """Return the fitted model that :func:`save` wrote: a Recommender or a RatingModel.

    The loaded model gives exactly the same scores or predictions as the saved one.

    Args:
        folder: the folder with ``model.json``.
        items: the number of items that the model must score. None: any number.

    Raises:
        RunFolderError: a file is missing, damaged, or of another format version, or an array does
            not have the dtype, shape or values that the model needs.
        OwnModelClosed: the model is a class of the user's own, and it is not allowed, cannot be
            imported, or does not name its arrays in ``STATE``.
    """
    try:
        return _load(folder, items)
    except _DAMAGED as error:
        raise RunFolderError(f"{folder}: not a whole model: {error}. Train it again.") from error


def _load(folder: Path, items: int | None) -> Any:
    """Return the fitted model of a folder, as :func:`load` does.

    If a file is damaged, any of the exceptions in ``_DAMAGED`` is raised.
    """
    about = json.loads((folder / run_files.MODEL_CARD).read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        raise ValueError(f"{run_files.MODEL_CARD} is no JSON object")
    if about["format"] != FORMAT:
        raise RunFolderError(
            f"{folder}: model format {about['format']}, but this recsys reads {FORMAT}. Train it again."
        )
    # Members are folders: a name such as "../x" would lead out of this one.
    members = {check_model_name(name): load(folder / name, items) for name in about["members"]}
    record = about["record"]
    if not isinstance(record, dict | None):
        raise ValueError("record is no JSON object")
    if about["kind"] == "cascade":
        # Cascades of 0.1.0 say nothing about short histories: their first member scored all that
        # it could.
        min_history = about.get("min_history", 0)
        if not isinstance(min_history, int) or len(members) < 2:
            raise ValueError("a cascade needs a whole number min_history, and at least two members")
        return Cascade(members, min_history, record)
    model: Any = _rebuild(about["kind"], about["params"], folder)
    if about["arrays"] != list(model.STATE):
        raise ValueError(f"the arrays of {about['kind']} are {', '.join(model.STATE)}, not {about['arrays']}")
    arrays = {name: read_array(folder / name) for name in model.STATE}
    sizes = {"members": len(members)}
    if items is not None:
        sizes["items"] = items
    if "known_" in arrays:
        sizes["liked"] = int(np.count_nonzero(arrays["known_"]))
    require_arrays(arrays, model.STATE, sizes)
    for name, array in arrays.items():
        setattr(model, name, array)
    if members:
        model.members = members
    if record is not None:
        model.record = record
    return model


def _rebuild(kind: str, params: dict[str, Any], folder: Path) -> Recommender | RatingModel:
    """Return the unfitted model that a ``model.json`` describes."""
    if isinstance(kind, str) and kind in RATING_KINDS:
        return build_rating_model(kind, params)
    if not is_class_path(kind):
        return build(kind, params)
    try:
        model: Recommender | RatingModel = build_own_model(kind, params)
    except ConfigError as error:
        raise OwnModelClosed(f"{folder}: {error}") from error
    if not declares_state(type(model)):
        raise OwnModelClosed(
            f"{folder}: model '{kind}' has no STATE, so the run has its lists and results, but not what fit learned:"
            " name the arrays in STATE and run again, or take another --model."
        )
    return model


def kind_class(kind: str) -> Any:
    """Return the class of a kind of model, for example ``ALS`` for "als".

    Args:
        kind: as for :func:`build`.

    Raises:
        ConfigError: the kind is unknown, or a class of the user's own cannot or may not be used.
    """
    if is_class_path(kind):
        return own_model_class(kind)
    # A config may name anything as the kind, also a list.
    kinds = KINDS | RATING_KINDS
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"unknown model '{kind}'.{suggest_nearest(str(kind), kinds)}")
    module, name = kinds[kind]
    return getattr(importlib.import_module(f"recsys.models.{module}"), name)
