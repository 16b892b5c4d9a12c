"""Models behind one another: the first with an opinion on a user answers. NaN means no opinion."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.sparse import csr_array

from recsys.types import Features, Interactions, Recommender


class Cascade:
    """Hands each user, as a whole, to the first model with an opinion; never mixes two models in one list.

    >>> from recsys.models import build
    >>> Cascade({"als": build("als", {}), "popular": build("popular", {})}).sources
    ('als', 'popular')
    """

    def __init__(self, models: dict[str, Recommender]) -> None:
        self.models = models

    @property
    def sources(self) -> tuple[str, ...]:
        """The models' names, in order."""
        return tuple(self.models)

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Fit every model."""
        for model in self.models.values():
            model.fit(train, features)
        return self

    def score(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return float32[m, items]: each row from the first model that knows it, NaN where none does."""
        users = np.arange(histories.shape[0]) if users is None else users
        speaker = self.speaker(histories)
        if len(self.models) and (speaker == 0).all():  # the common case needs no copy
            return next(iter(self.models.values())).score(histories, users)
        scores = np.full(histories.shape, np.nan, dtype=np.float32)
        for place, model in enumerate(self.models.values()):
            rows = np.flatnonzero(speaker == place)
            if len(rows):
                scores[rows] = model.score(histories[rows], users[rows])
        return scores

    def source(self, histories: csr_array, items: np.ndarray, users: np.ndarray | None = None) -> np.ndarray:
        """Return int8[m, k], the position in ``sources`` of the model that spoke for each row."""
        return np.broadcast_to(self.speaker(histories)[:, None], items.shape)

    def leads(self, histories: csr_array, users: np.ndarray | None = None) -> np.ndarray:
        """Return bool[m]: the first model speaks."""
        return self.speaker(histories) == 0

    def knows(self, histories: csr_array) -> np.ndarray:
        """Return bool[m]: some model has an opinion on the row."""
        return self.speaker(histories) >= 0

    def speaker(self, histories: csr_array) -> np.ndarray:
        """Return int8[m]: the first model that knows each row, -1 where none does."""
        speaker = np.full(histories.shape[0], -1, dtype=np.int8)
        for place, model in enumerate(self.models.values()):
            open_ = np.flatnonzero(speaker < 0)
            if not len(open_):
                break
            speaker[open_[knows(model, histories[open_])]] = place
        return speaker


def knows(model: Recommender, histories: csr_array) -> np.ndarray:
    """Return bool[m]: the model has an opinion on some item for the row. Asks ``model.knows`` where it exists."""
    if hasattr(model, "knows"):
        return model.knows(histories)
    return np.isfinite(model.score(histories)).any(axis=1)
