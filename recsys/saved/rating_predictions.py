"""A saved model of a run with ``[judge] task = "ratings"``: its predictions, and the parts of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys import models, run_files
from recsys.config import load_config
from recsys.data.reading.files import column_names
from recsys.data.reading.read_settings import ReadSettings
from recsys.data.reading.sources import Source
from recsys.errors import RunFolderError, suggest_nearest
from recsys.evaluation.settings import RATING_BASELINES
from recsys.evaluation.testing.pick import pick_model
from recsys.evaluation.topk_tables import read_truth
from recsys.locations import local_path
from recsys.rating_model import RatingExplanation, RatingModel, predict_ratings
from recsys.runfolder import RunFolder
from recsys.saved.open_model import check_bundle, read_history_and_items
from recsys.schema import ITEM, SCORE, SOURCE, SPREAD, USER
from recsys.types import IdMap, Interactions


@dataclass(frozen=True)
class SavedRatingModel:
    """A saved model that predicts ratings, with its fallback, the biases or ``text_score``.

    Attributes:
        name: the name of the model.
        model: the model, fitted on train.
        fallback_name: the name of the model that predicts where ``model`` has no opinion.
        fallback: that model.
        history: the ratings of train, whose users and items the models know.
        items: the items table, row i describes item i of the history.
        scale: the smallest and the largest prediction.
    """

    name: str
    model: RatingModel
    fallback_name: str
    fallback: RatingModel
    history: Interactions
    items: pd.DataFrame
    scale: tuple[float, float]

    def predict(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """Return the predicted rating of each (user, item) pair, in the order of the pairs.

        The columns are user_id, item_id, score, source, and ``spread`` of a model that has one. As in
        the run, the fallback predicts where the model has no opinion, and predictions are clipped to
        the scale. A user or an item that the run does not know has no bias.

        Args:
            pairs: user_id and item_id.

        Raises:
            InputError: the model returned something other than float64[m], or an infinite number.
        """
        users = _rows(self.history.users, pairs[USER])
        items = _rows(self.history.items, pairs[ITEM])
        predicted = predict_ratings(self.model, users, items)
        has_opinion = ~np.isnan(predicted)
        score = np.where(has_opinion, predicted, predict_ratings(self.fallback, users, items))
        table = pd.DataFrame(
            {
                USER: pairs[USER].to_numpy(),
                ITEM: pairs[ITEM].to_numpy(),
                SCORE: np.clip(score, *self.scale),
                SOURCE: np.where(has_opinion, self.name, self.fallback_name),
            }
        )
        if self.model.HAS_SPREAD:
            table[SPREAD] = self.model.spread(users, items)
        return table

    def count_unknown(self, pairs: pd.DataFrame) -> tuple[int, int, int]:
        """Return the number of pairs with an unknown user, with an unknown item, and with at least one of them.

        Args:
            pairs: user_id and item_id.
        """
        no_user = _rows(self.history.users, pairs[USER]) < 0
        no_item = _rows(self.history.items, pairs[ITEM]) < 0
        return int(no_user.sum()), int(no_item.sum()), int((no_user | no_item).sum())

    def has_rated(self, user: str, item_row: int) -> bool:
        """Return whether train has a rating of this user and item.

        Args:
            user: the id of a user, who may be unknown.
            item_row: the row of the item.
        """
        [user_row] = _rows(self.history.users, [user])
        return bool(((self.history.user == user_row) & (self.history.item == item_row)).any())

    def explain(self, user: str, item_row: int) -> tuple[str, float, RatingExplanation]:
        """Return the name of the model that predicts a pair, its prediction before it is clipped, and the parts of it.

        Args:
            user: the id of a user, who may be unknown.
            item_row: the row of the item.
        """
        users = _rows(self.history.users, [user])
        items = np.array([item_row])
        name, model = self.name, self.model
        [predicted] = predict_ratings(model, users, items)
        if np.isnan(predicted):
            name, model = self.fallback_name, self.fallback
            [predicted] = predict_ratings(model, users, items)
        return name, float(predicted), model.explain(int(users[0]), item_row)


def open_rating_model(run: RunFolder, name: str | None = None) -> SavedRatingModel:
    """Open and return a saved model that predicts ratings.

    Args:
        run: a run with ``[judge] task = "ratings"``, or a bundle of one.
        name: the model. None: that of the bundle, or the best one of the run.

    Raises:
        RunFolderError: the run makes lists and predicts no ratings, or it has no such model.
    """
    name = rating_model_name(run, name)
    fallback_name = fallback_of_run(run)
    history, items = read_history_and_items(run)
    return SavedRatingModel(
        name=name,
        model=models.load(run.local(run_files.model_folder(name))),
        fallback_name=fallback_name,
        fallback=models.load(run.local(run_files.model_folder(fallback_name))),
        history=history,
        items=items,
        scale=tuple(run.read_object(run_files.METRICS, about=dict)["about"]["scale"]),
    )


def read_pairs(path: str, reading: ReadSettings, run: RunFolder) -> pd.DataFrame:
    """Read a table of pairs to predict, and return it with the columns user_id and item_id.

    A file without a column ``user_id`` or ``item_id`` is read with the names of columns that the
    log of the run had (``[data.columns]``).

    Args:
        path: the path of a file in any format of a log.
        reading: the format of the file, and names of columns that go before those of the run.
        run: the run or the bundle.

    Raises:
        InputError: as for :func:`recsys.evaluation.topk_tables.read_truth`.
    """
    columns_of_run = load_config(run.local(run_files.CONFIG)).data.columns
    source = Source(local_path(path))
    # Parquet files always have names, and those of recsys count there beside the mapped ones.
    if source.format(reading) != "parquet":
        names = column_names(source.parts[0], reading)
        if {USER, ITEM} <= set(names):
            columns_of_run = {}
        elif not reading.columns and columns_of_run and all(name.isdigit() for name in columns_of_run.values()):
            # The log of the run has no header, so the pairs have none either: names are positions.
            reading = reading.model_copy(update={"header": False})
            names = []
        # Pairs need not have the other columns of the log.
        columns_of_run = {
            column: name for column, name in columns_of_run.items() if column in (USER, ITEM) or name in names
        }
    return read_truth(path, reading.model_copy(update={"columns": columns_of_run | reading.columns}))


def is_of_ratings(run: RunFolder) -> bool:
    """Return whether the models of a run or of a bundle predict ratings.

    Raises:
        RunFolderError: metrics.json is missing or damaged.
    """
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
    """Return the name of the model that predicts where the others of a run have no opinion.

    Raises:
        RunFolderError: metrics.json is missing or damaged.
    """
    about = run.read_object(run_files.METRICS, about=dict)["about"]
    return str(about.get("fallback", RATING_BASELINES[1]))


def _rows(ids: IdMap, external_ids: Any) -> np.ndarray:
    """Return the row of each external id, -1 where the run does not have it."""
    return ids.rows(pd.Series(external_ids).astype(object).astype(str).to_numpy(dtype=object))
