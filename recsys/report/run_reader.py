"""A run folder opened for telling: a file is read when a section asks for it, lists for a sample of users."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from recsys import run_files
from recsys.config import Config, load_config
from recsys.data.hashing import hash_words, id_bits
from recsys.report.parts import BASELINES
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, RANK, USER, VALUE

SAMPLE = 5_000
"""Users whose lists are looked at, at most: enough for a share to within 1.5 %, few enough for any run."""


class Run:
    """What sections ask of a run folder of either engine."""

    def __init__(self, folder: RunFolder, sample: int = SAMPLE) -> None:
        self.folder = folder
        self._most = sample

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return metrics.json."""
        return self.folder.read_json(run_files.METRICS)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Return manifest.json."""
        return self.folder.read_json(run_files.MANIFEST)

    @cached_property
    def config(self) -> Config:
        """Return the configuration, every default spelled out."""
        return load_config(self.folder.path / run_files.CONFIG)

    @property
    def about(self) -> dict[str, Any]:
        """Return what metrics.json says besides the means and differences."""
        return self.metrics["about"]

    @property
    def models(self) -> list[str]:
        """Return the models, in the order of their results."""
        return list(self.metrics["models"])

    @property
    def best(self) -> str | None:
        """Return the model with the highest primary metric, baselines aside where there are others; None unjudged."""
        means = {name: cells[self.about["primary"]]["mean"] for name, cells in self.metrics["models"].items()}
        scored = {name: mean for name, mean in means.items() if mean is not None}
        own = {name: mean for name, mean in scored.items() if name not in BASELINES} or scored
        return max(own, key=own.__getitem__) if own else None

    @cached_property
    def users(self) -> pd.DataFrame:
        """Return ``user_id``, ``n_relevant``, ``n_history`` of a sample of the tested users, drawn by hash."""
        place = self.folder.path / run_files.PER_USER
        columns = [USER, "n_relevant", "n_history"]
        table = ds.dataset(place).to_table(columns=columns, filter=ds.field("model") == self.models[0]).to_pandas()
        if len(table) > self._most:
            table = table.iloc[np.argsort(hash_words(0, id_bits(pd.Index(table[USER]))), kind="stable")[: self._most]]
        return table.sort_values(USER, ignore_index=True)

    @cached_property
    def lists(self) -> dict[str, pd.DataFrame]:
        """Return model -> the topk table of the sampled users, by user and rank."""
        found = {name: self._of_users(run_files.topk(name)) for name in self.models}
        return {name: table.sort_values([USER, RANK], ignore_index=True) for name, table in found.items()}

    @cached_property
    def truth(self) -> pd.DataFrame:
        """Return the relevant (user_id, item_id) pairs of the sampled users in the test part."""
        test, least = self._of_users(run_files.TEST), self.config.judge.relevant
        return test.loc[(test[VALUE] > 0) & (test[VALUE] >= (least or 0)), [USER, ITEM]]

    @cached_property
    def history(self) -> pd.DataFrame:
        """Return what is known of the sampled users: user_id, item_id, value, timestamp."""
        return self._of_users(run_files.HISTORY)

    @cached_property
    def likes(self) -> pd.Series:
        """Return item id -> users of train who liked it, most first."""
        place = self.folder.path / run_files.TRAIN
        liked = ds.dataset(place).to_table(columns=[ITEM], filter=ds.field(VALUE) > 0)
        return liked.to_pandas()[ITEM].value_counts()

    @cached_property
    def items(self) -> pd.DataFrame:
        """Return the candidates with what the items table says of them; empty where the run did not write them."""
        if not (self.folder.path / run_files.ITEMS).exists():
            return pd.DataFrame({ITEM: []})
        return self.folder.read_table(run_files.ITEMS)

    @cached_property
    def titles(self) -> dict[Any, str]:
        """Return item id -> title, for the items that have one."""
        told = self.items.dropna(subset=["title"]) if "title" in self.items else self.items.iloc[:0]
        return dict(zip(told[ITEM], told["title"].astype(str), strict=True)) if len(told) else {}

    def title(self, item: Any) -> str:
        """Return an item's title, or its id."""
        return self.titles.get(item, str(item))

    def _of_users(self, name: str) -> pd.DataFrame:
        found = ds.dataset(self.folder.path / name).to_table(filter=ds.field(USER).isin(self.users[USER].to_list()))
        return found.to_pandas()
