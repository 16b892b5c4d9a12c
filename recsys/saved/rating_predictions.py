"""Ratings predicted by a saved model of a run with ``[judge] task = "ratings"``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys import models, run_files
from recsys.errors import RunFolderError, suggest_nearest
from recsys.evaluation.settings import RATING_BASELINES
from recsys.evaluation.testing.pick import pick_model
from recsys.rating_model import predict_ratings
from recsys.runfolder import RunFolder
from recsys.saved.open_model import check_bundle
from recsys.schema import ITEM, SCORE, SOURCE, SPREAD, USER, canonical_int64
from recsys.types import IdMap


def predict_pairs(run: RunFolder, pairs: pd.DataFrame, name: str | None = None) -> pd.DataFrame:
    """Return the predicted rating of each (user, item) pair, in the order of the pairs.

    The columns are user_id, item_id, score, source, and ``spread`` of a model that has one. As in the
    run, its fallback (the biases, or with reviews ``text_score``) predicts where the model has no
    opinion, and predictions are clipped to the scale.
    A user or an item that the run does not know has no bias.

    Args:
        pairs: user_id and item_id.
        name: the model. None: that of the bundle, or the best one of the run.

    Raises:
        RunFolderError: the run makes lists and predicts no ratings, or it has no such model.
    """
    name = rating_model_name(run, name)
    metrics = run.read_object(run_files.METRICS, about=dict)
    users = _rows(IdMap.of(run.read_table(run_files.HISTORY, [USER])[USER]), pairs[USER])
    items = _rows(IdMap.of(run.read_table(run_files.ITEMS, [ITEM])[ITEM]), pairs[ITEM])
    model = models.load(run.local(run_files.model_folder(name)))
    fallback_name = fallback_of_run(run)
    fallback = models.load(run.local(run_files.model_folder(fallback_name)))
    predicted = predict_ratings(model, users, items)
    has_opinion = ~np.isnan(predicted)
    score = np.where(has_opinion, predicted, predict_ratings(fallback, users, items))
    table = pd.DataFrame(
        {
            USER: pairs[USER].to_numpy(),
            ITEM: pairs[ITEM].to_numpy(),
            SCORE: np.clip(score, *metrics["about"]["scale"]),
            SOURCE: np.where(has_opinion, name, fallback_name),
        }
    )
    if model.HAS_SPREAD:
        table[SPREAD] = model.spread(users, items)
    return table


def is_of_ratings(run: RunFolder) -> bool:
    """Return whether the models of a run or of a bundle predict ratings."""
    about = run.read_object(run_files.METRICS, about=dict)["about"]
    return bool(about.get("task") == "ratings")


def rating_model_name(run: RunFolder, name: str | None) -> str:
    """Return the name of a model of a run that predicts ratings, or of a bundle, whose files are checked.

    Args:
        name: the name that was asked for. None: the model of the bundle, or the best one of the run.

    Raises:
        RunFolderError: the run makes lists and predicts no ratings, it has no such model, or a file
            of the bundle has changed.
    """
    if not is_of_ratings(run):
        raise RunFolderError(
            f"{run.location}: its models make lists and predict no ratings: recsys recommend prints their lists, and"
            " [judge] task = 'ratings' makes a run that predicts."
        )
    if run.has(run_files.BUNDLE_CARD):
        bundled = check_bundle(run)
        if name not in (None, bundled):
            raise RunFolderError(f"{run.location}: this is a bundle of model {bundled}, not of {name}.")
        return bundled
    metrics = run.read_object(run_files.METRICS, models=dict, about=dict)
    name = name or pick_model(metrics).name or RATING_BASELINES[1]
    if name not in metrics["models"]:
        raise RunFolderError(f"{run.location}: no model '{name}'.{suggest_nearest(name, metrics['models'])}")
    return name


def fallback_of_run(run: RunFolder) -> str:
    """Return the name of the model that predicts where the others of a run have no opinion."""
    about = run.read_object(run_files.METRICS, about=dict)["about"]
    return str(about.get("fallback", RATING_BASELINES[1]))


def _rows(ids: IdMap, external_ids: Any) -> np.ndarray:
    """Return the row of each external id, -1 where the run does not have it."""
    texts = pd.Series(external_ids).astype(object).astype(str)
    if ids.dtype.kind not in "iu":
        return ids.rows(texts.to_numpy(dtype=object))
    numbers, is_canonical = canonical_int64(texts)
    return np.where(is_canonical, ids.rows(numbers), -1)
