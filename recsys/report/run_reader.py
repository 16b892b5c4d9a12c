"""Read a run folder for its report.

Each file is read when a section first needs it. Lists are read for a sample of the users.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from recsys import run_files
from recsys.config import Config, load_config
from recsys.data.hashing import hash_words, id_bits
from recsys.evaluation.testing.pick import baseline_differences, lower_is_better, models_by_quality, pick_model
from recsys.report.reasons import Reasons
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, RANK, USER, VALUE

MAX_USERS = 5_000
"""Largest number of users whose lists are read. It is large enough to estimate a share of users within
±1.5 %, and small enough for a run of any size."""


class Run:
    """The contents of a run folder of either engine, as the sections of a report need them.

    All properties raise RunFolderError if a file that they read is missing or damaged.

    Args:
        folder: the run folder.
        max_users: the largest number of sampled users, whose lists and histories are read.
    """

    def __init__(self, folder: RunFolder, max_users: int = MAX_USERS) -> None:
        self.folder = folder
        self._max_users = max_users

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return the contents of metrics.json."""
        return self.folder.read_object(run_files.METRICS, models=dict, about=dict)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return the contents of manifest.json."""
        return self.folder.read_object(run_files.MANIFEST)

    @cached_property
    def config(self) -> Config:
        """Return the config of the run, with all defaults."""
        return load_config(self.folder.local(run_files.CONFIG))

    @property
    def about(self) -> dict[str, Any]:
        """Return the entry ``about`` of metrics.json: the primary metric, counts and more."""
        return self.metrics["about"]

    @property
    def models(self) -> list[str]:
        """Return the names of the models by their mean of the first metric, best first.

        Models without a mean are last.
        """
        primary = self.about["primary"]
        means = {name: cells[primary]["mean"] for name, cells in self.metrics["models"].items()}
        return models_by_quality(means, is_error=lower_is_better(self.metrics))

    @property
    def notes(self) -> dict[str, str]:
        """Return the notes that tables show beside the names of models.

        The result is a dict: name of each baseline -> "baseline".
        """
        return dict.fromkeys(baseline_differences(self.metrics), "baseline")

    @property
    def best_model(self) -> str | None:
        """Return the name of the best model that is not a baseline, or else of the best baseline.

        The mean of the first metric decides. The result is None if no model has a mean.
        """
        pick = pick_model(self.metrics)
        return pick.model or pick.baseline

    @cached_property
    def users(self) -> pd.DataFrame:
        """Return a table of the sampled users: ``user_id``, ``n_relevant`` and ``n_history``.

        ``n_relevant`` is the number of relevant items of a user, ``n_history`` the number of items
        in the history. The sample has all tested users, or the ``max_users`` with the lowest hashes
        of their ids. It is sorted by user id.
        """
        # Every model is judged on the same users, so the rows of one model are enough.
        columns = [USER, "n_relevant", "n_history"]
        table = self.folder.read_table(run_files.PER_USER, columns, ds.field("model") == self.models[0])
        if len(table) > self._max_users:
            table = table.iloc[
                np.argsort(hash_words(0, id_bits(pd.Index(table[USER]))), kind="stable")[: self._max_users]
            ]
        return table.sort_values(USER, ignore_index=True)

    @cached_property
    def lists(self) -> dict[str, pd.DataFrame]:
        """Return the lists of the sampled users, as a dict: model -> table.

        A table has the columns user_id, item_id, rank, score and source. Its rows are in the order
        of user and rank.
        """
        tables = {name: self._of_users(run_files.topk(name)) for name in self.models}
        return {name: table.sort_values([USER, RANK], ignore_index=True) for name, table in tables.items()}

    @cached_property
    def truth(self) -> pd.DataFrame:
        """Return the relevant (user_id, item_id) pairs of the sampled users in the test part."""
        test = self._of_users(run_files.TEST)
        return test.loc[self.config.judge.is_relevant(test[VALUE].astype(np.float32)), [USER, ITEM]]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Return the histories of the sampled users: user_id, item_id, value, timestamp."""
        return self._of_users(run_files.HISTORY)

    @cached_property
    def likes(self) -> pd.Series:
        """Return the number of users in train who like each item, a Series by item id, largest first."""
        liked = self.folder.read_table(run_files.TRAIN, [ITEM], ds.field(VALUE) > 0)
        return liked[ITEM].value_counts()

    @cached_property
    def items(self) -> pd.DataFrame:
        """Return the table of candidates, with the columns of the items table.

        It is empty if the run has not stored it.
        """
        if not self.folder.has(run_files.ITEMS):
            return pd.DataFrame({ITEM: []})
        return self.folder.read_table(run_files.ITEMS)

    @cached_property
    def titles(self) -> dict[Any, str]:
        """Return the titles of items, as a dict: item id -> title. Items without a title are left out."""
        if "title" not in self.items:
            return {}
        titled = self.items.dropna(subset=["title"])
        return dict(zip(titled[ITEM], titled["title"].astype(str), strict=True))

    @cached_property
    def reasons(self) -> Reasons:
        """Return the Reasons that explain scores by the titles and attributes of the candidates."""
        return Reasons(self.items)

    def title(self, item: Any) -> str:
        """Return the title of the item with this id, or the id as text if it has none."""
        return self.titles.get(item, str(item))

    def _of_users(self, name: str) -> pd.DataFrame:
        """Return the rows of a table of the run that belong to the sampled users."""
        # The filter applies while the file is read, so that a large table need not fit in memory.
        of_sample = ds.field(USER).isin(self.users[USER].to_list())
        return self.folder.read_table(name, row_filter=of_sample)
