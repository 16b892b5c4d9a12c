"""Compare models that predict ratings, of one run or several, on the same (user, item) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from recsys import run_files
from recsys.errors import InputError
from recsys.evaluation.rating_summary import error_and_influence, paired_difference
from recsys.evaluation.settings import RATING_METRICS
from recsys.evaluation.testing.compare import Comparison
from recsys.evaluation.testing.significance import holm_adjust
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, SCORE, USER, VALUE


def read_predictions(run: RunFolder, model: str) -> pd.DataFrame:
    """Return the predictions of a model as a table of user_id, item_id, score and value.

    ``score`` is the predicted rating, and ``value`` the rating that the user gave.

    Args:
        run: the folder of a run with ``[judge] task = "ratings"``.
        model: the name of the model.
    """
    predictions = run.read_table(run_files.predictions(model), [USER, ITEM, SCORE])
    return predictions.merge(run.read_table(run_files.TEST, [USER, ITEM, VALUE]), on=[USER, ITEM], how="left")


def compare_predictions(
    tables: dict[str, pd.DataFrame],
    metrics: Sequence[str] = RATING_METRICS,
    *,
    against: str | None = None,
) -> Comparison:
    """Compare the errors of predictions of the same pairs, with intervals over users.

    ``differences`` of the result has the columns ``model``, ``against``, ``metric``, ``difference``
    (the error of ``model`` minus that of ``against``, so below 0 if ``model`` is better), ``low``
    and ``high`` (its 95 % interval over users), ``low_pairs`` and ``high_pairs`` (its 95 % interval
    over pairs), ``p`` (of the paired t-test over users), ``users``, ``pairs``, and ``p_holm``.

    Args:
        tables: name of a model -> its table of :func:`read_predictions`; at least two.
        metrics: "rmse", "mae" or both.
        against: the model with which the others are compared. None: every two models are compared.

    Raises:
        InputError: the tables do not have the same pairs with the same given ratings.
    """
    first, *_ = tables
    reference = tables[first].set_index([USER, ITEM]).sort_index()
    errors = {}
    for name, table in tables.items():
        aligned = table.set_index([USER, ITEM]).sort_index()
        if not aligned.index.equals(reference.index) or not np.array_equal(aligned[VALUE], reference[VALUE]):
            raise InputError(
                f"{name} and {first} predict other pairs or other ratings: compare runs of one log with the same"
                " [split] and [filter]."
            )
        errors[name] = (aligned[SCORE] - aligned[VALUE]).to_numpy()
    user = pd.factorize(reference.index.get_level_values(USER))[0]
    means = {
        name: {metric: error_and_influence(metric, of_model)[0] for metric in metrics}
        for name, of_model in errors.items()
    }
    couples = [(against, name) for name in errors if name != against] if against else list(combinations(errors, 2))
    rows = []
    for subtracted, name in couples:
        for metric in metrics:
            cell = paired_difference(metric, errors[name], errors[subtracted], user)
            rows.append(
                {
                    "model": name,
                    "against": subtracted,
                    "metric": metric,
                    "difference": cell["mean"],
                    "low": cell["ci95"][0],
                    "high": cell["ci95"][1],
                    "low_pairs": cell["ci95_pairs"][0],
                    "high_pairs": cell["ci95_pairs"][1],
                    "p": cell["p"],
                    "users": cell["users"],
                    "pairs": cell["pairs"],
                }
            )
    differences = pd.DataFrame(rows)
    differences["p_holm"] = holm_adjust(differences["p"].to_numpy())
    return Comparison(pd.DataFrame(means).T, differences, 0.05)
