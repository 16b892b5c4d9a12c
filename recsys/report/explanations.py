"""Why a user is shown an item, in a few words: what the model that spoke drew on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys import models, run_files
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Popular, Random
from recsys.models.combining.cascade import Cascade, knows
from recsys.report.run_reader import Run
from recsys.schema import ITEM, USER, VALUE
from recsys.types import IdMap

NAMED = 3
"""Reasons told, at most."""


@dataclass(frozen=True)
class Teller:
    """A run's best model, loaded with what it needs to say why."""

    name: str
    model: Any
    items: IdMap
    run: Run

    @classmethod
    def of(cls, run: Run) -> Teller | None:
        """Return the teller of the run's best model; None when it is not stored."""
        place = run.folder.path / run_files.model_folder(str(run.best))
        if (place / run_files.MODEL_CARD).exists():
            return cls(str(run.best), models.load(place), IdMap.of(run.items[ITEM]), run)
        if (place / "item_factors.parquet").exists():  # trained on Spark
            return cls(str(run.best), *spark_factors(run, str(run.best)), run)
        return None

    def why(self, user: Any, item: Any, source: str) -> str:
        """Return the strongest reasons with their shares of the score, or why there are none to tell.

        ``source``: who answered, for a user of whom the model does not know enough.
        """
        history = self.run.history[self.run.history[USER] == user]
        rows = self.items.rows(history[ITEM])
        order = np.argsort(rows)
        order = order[rows[order] >= 0]
        row = _row(rows[order], history[VALUE].to_numpy()[order], len(self.items))
        model, place = self.model, int(self.items.rows([item])[0])
        if isinstance(model, Cascade):
            if not model.leads(row)[0]:
                return f"the fallback, {source}: not enough known"
            model = next(iter(model.models.values()))
        if place < 0 or not knows(model, row)[0]:
            return f"the fallback, {source}: not enough known"
        return self._reasons(model, row, place)

    def _reasons(self, model: Any, row: Any, item: int) -> str:
        if hasattr(model, "shares"):
            parts = list(model.shares(row, item).items())
        elif hasattr(model, "contributions"):
            names = [self.run.title(name) for name in self.items.ids_of(row.indices)]
            parts = list(zip(names, model.contributions(row, item), strict=True))
            if hasattr(model, "base"):
                parts.append(("the same for everyone", model.base(item)))
        elif isinstance(model, Random):
            return "drawn at random"
        else:
            return "the same for everyone" if isinstance(model, Popular) else "the model does not say"
        total = sum(abs(value) for _, value in parts)
        if np.isnan(total) or not parts:
            return "no opinion on it"
        best = sorted(parts, key=lambda part: -part[1])[:NAMED]
        told = "; ".join(f"{name[:40]} {value / total:.0%}" for name, value in best if value > 0)
        return told or "nothing known speaks for it"


def spark_factors(run: Run, name: str) -> tuple[ALS, IdMap]:
    """Return the local model of factors trained on Spark, and the items that they stand for."""
    table = run.folder.read_table(run_files.item_factors(name)).sort_values(ITEM, ignore_index=True)
    items = IdMap.of(table[ITEM])
    factors = np.array(table["features"].to_list(), dtype=np.float32).reshape(len(table), -1)
    place = items.rows(table[ITEM])
    params = {key: value for key, value in run.config.models[name].items() if key in ("alpha", "reg")}
    return ALS.from_factors(factors[np.argsort(place)], np.ones(len(table), dtype=bool), **params), items


def _row(rows: np.ndarray, values: np.ndarray, width: int) -> Any:
    return csr_array((values.astype(np.float32), rows.astype(np.int32), [0, len(rows)]), shape=(1, width))
