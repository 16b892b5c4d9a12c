"""Build and save models of the local engine for the Spark engine, which must not import them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys import models
from recsys.models.combining.cascade import Cascade
from recsys.recommender import FitsFromSums, Recommender


class ModelLibrary:
    """Builds and saves models for the Spark engine (:class:`recsys.engine.Library`)."""

    def build(self, kind: str, params: Mapping[str, Any]) -> FitsFromSums:
        """Return an unfitted model that can be fitted from sums over users.

        Args:
            kind: a key of ``recsys.models.KINDS``.
            params: parameter -> value. A parameter that is not given has its default.

        Raises:
            ConfigError: the kind or a parameter is not valid.
            TypeError: models of this kind are not fitted from sums.
        """
        model = models.build(kind, dict(params))
        if not isinstance(model, FitsFromSums):
            raise TypeError(f"model '{kind}' is not fitted from sums over users")
        return model

    def save(
        self,
        name: str,
        model: Recommender,
        fallback: tuple[str, np.ndarray] | None,
        min_history: int,
        folder: Path,
    ) -> None:
        """Write a fitted model into ``folder``, with its fallback as a cascade, as the local engine does.

        Args:
            name: the name of the model.
            model: the fitted model.
            fallback: the kind of the fallback ("popular" or "recent") and its scores,
                float32[items]. None: the model is written alone.
            min_history: the smallest number of liked items with which the model scores a user, and
                not the fallback. Not used without a fallback.
            folder: the folder, which is created.
        """
        if fallback is not None:
            kind, scores = fallback
            shared: Any = models.build(kind, {})
            shared.scores_ = scores.astype(np.float32)
            model = Cascade({name: model, kind: shared}, min_history)
        models.save(model, folder)
