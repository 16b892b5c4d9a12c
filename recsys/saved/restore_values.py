"""Restore the values of a history before their decay, which separate likes from dislikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from recsys.config import Config
from recsys.data.weigh import undo_decay
from recsys.models.combining.trial import subset
from recsys.types import Interactions

ROUNDING = 1e-4
"""The largest relative error of a restored value.

Stored values are float32, and their times are whole seconds.
"""


def restore_values(
    history: Interactions,
    config: Config,
    split: dict[str, Any] | None,
    report: Callable[[str], object],
) -> tuple[Interactions, float | None]:
    """Return the history with its values before the decay, and the smallest value of a like.

    The smallest value is None if every value above 0 is a like. If the config has no decay, the
    history is returned unchanged, with ``[judge] relevant`` as the smallest value.

    ``[judge] relevant`` is a limit for values before the decay. Such a value can be computed from
    the stored one if the pair has a single event, or with ``aggregate = "last"``. It cannot be
    computed for the sum of several events, nor in a bundle, which does not record the time from
    which ages are counted. Then the history is returned with its stored values and the smallest
    value None, and a sentence is reported. Pairs whose value has decayed to 0 in float32 are left
    out, and their number is reported.

    Args:
        history: the stored history.
        config: the config of the run: its decay, its aggregation, and ``[judge] relevant``.
        split: the contents of split.json of the run. None for a bundle, which has none.
        report: a function that is called with each sentence to show to the user.
    """
    half_life = config.weigh.half_life_days
    least_like = config.judge.relevant
    if half_life is None:
        return history, least_like
    not_vanished = np.abs(history.value) >= np.finfo(np.float32).tiny
    if not not_vanished.all():
        report(f"{(~not_vanished).sum():,} pairs are left out: their values have decayed to nothing")
        history = subset(history, not_vanished)
    if least_like is None:
        return history, None
    obstacle = ""
    if split is None:
        obstacle = "a bundle does not record when the decay starts"
    elif config.weigh.aggregate != "last" and split["history"]["rows"] != split["history"]["pairs"]:
        obstacle = "sums of several events cannot be restored"
    if obstacle or split is None:
        report(
            f"values have decayed, and {obstacle}: any value above 0 counts as a like,"
            f" not only values of at least {least_like:g}",
        )
        return history, None
    reference = pd.to_datetime(split["decay_reference"], utc=True).timestamp()
    # The limit is lowered a little, so that rounding does not turn a like into a dislike.
    return undo_decay(history, half_life, reference), least_like * (1 - ROUNDING)
