"""Explain in a few words why a user is shown an item.

An explanation names the parts of the score that raise it most, with their shares of the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from recsys import run_files
from recsys.models.combining.cascade import Cascade
from recsys.models.own_model import OwnModelClosed
from recsys.recommender import Explanation, Recommender
from recsys.report.run_reader import Run
from recsys.saved.open_model import open_item_side, read_min_history
from recsys.schema import ITEM, TIME, USER, VALUE
from recsys.types import Histories, IdMap

MAX_REASONS = 3
"""Largest number of parts of a score that an explanation names."""

NO_REASON = "nothing in the history counts in favour of it"
"""The explanation of a score that no part raises."""


@dataclass(frozen=True)
class Explainer:
    """Explains why the best model of a run lists an item for one of the sampled users.

    Attributes:
        name: the name of the model.
        model: the model.
        items: the ids of the items, in the order of the columns of the model's scores.
        run: the run.
        min_history: a user with fewer liked items gets the list of the fallback model.
    """

    name: str
    model: Recommender
    items: IdMap
    run: Run
    min_history: int = 0

    @classmethod
    def for_run(cls, run: Run) -> Explainer | None:
        """Open the best model of a run (``Run.best_model``), and return its explainer.

        The result is None if no model has a mean, if the run has not stored the model, or if the
        model is a class of the user's own that this command may not open.
        """
        name = run.best_model
        if name is None or not run.folder.has(run_files.model_folder(name)):
            return None
        items = IdMap.from_ids(run.items[ITEM])
        min_history = read_min_history(run.folder, name)["min_history"]
        try:
            model = open_item_side(run.folder, name, items)
        except OwnModelClosed:
            return None
        return cls(name, model, items, run, min_history)

    def explain(self, user: Any, item: Any, source: str) -> str:
        """Return a text that says why an item is in the list of a user.

        The text names at most :data:`MAX_REASONS` parts that raise the score most, such as liked
        items, each with its share of the score. If no part raises the score, or if the item comes
        from the fallback, the text says that instead.

        Args:
            user: the id of one of the sampled users of the run.
            item: the id of the item.
            source: the name of the model or fallback that put the item on the list. The text names
                it if the model did not score the user.
        """
        history = self._history(user)
        row = int(self.items.rows([item])[0])
        model = self.model
        if isinstance(model, Cascade):
            # Only the first member is explained: the others serve users whom it cannot score.
            model = next(iter(model.members.values()))
        is_short = history.n_liked[0] < self.min_history
        if row < 0 or is_short or not model.can_score(history)[0]:
            return f"from the fallback, {source}: not enough is known of this user"
        return self._reasons(model.explain(history, row), history, row)

    def _history(self, user: Any) -> Histories:
        """Return the history of one user in the run, as Histories with one row."""
        table = self.run.history[self.run.history[USER] == user]
        rows = self.items.rows(table[ITEM])
        order = np.argsort(rows, kind="stable")
        order = order[rows[order] >= 0]
        values = table[VALUE].to_numpy(dtype=np.float32)[order]
        matrix = csr_array((values, rows[order].astype(np.int32), [0, len(order)]), shape=(1, len(self.items)))
        times = table[TIME].to_numpy(dtype=np.int64)[order]
        # A time of -1 means that the event has none.
        return Histories(matrix, times if (times >= 0).any() else None)

    def _reasons(self, explanation: Explanation, history: Histories, item: int) -> str:
        """Return the parts that raise the score most as text, with their shares of the score.

        The text also has the attributes that the item shares with the liked items in these parts.
        """
        if np.isnan(explanation.score):
            return "no opinion on it"
        if explanation.members:
            return _format_parts(list(explanation.members.items())) or NO_REASON
        if explanation.history is None:
            return explanation.note
        added = explanation.history
        titles = [f"liked {self.run.title(name)[:40]}" for name in self.items.ids_of(history.values.indices)]
        parts = [*zip(titles, added, strict=True), ("the same for everyone", explanation.constant)]
        reasons = _format_parts(parts)
        if not reasons:
            return NO_REASON
        strongest = np.argsort(-added, kind="stable")[:MAX_REASONS]
        liked = history.values.indices[strongest[added[strongest] > 0]]
        shared = self.run.reasons.shared_values(item, liked)
        if shared:
            reasons += f"; shares {', '.join(shared)}"
        return reasons


def _format_parts(parts: list[tuple[str, float]]) -> str:
    """Return the parts that raise the score most as text, each with its share of the total.

    The total is the sum of the absolute values of all parts. The text is empty if no part raises the
    score.

    Args:
        parts: (name, what the part adds to the score) of each part.
    """
    # Parts that lower the score are not reasons to show the item, but they count in the total.
    total = sum(abs(value) for _, value in parts)
    strongest = sorted(parts, key=lambda part: -part[1])[:MAX_REASONS]
    return "; ".join(f"{name} {value / total:.0%}" for name, value in strongest if value > 0)
