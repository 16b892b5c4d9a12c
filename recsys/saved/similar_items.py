"""What goes with an item: the list of a saved model for a history of this one item."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from recsys.errors import InputError
from recsys.models.combining.cascade import Cascade
from recsys.ranking import rank
from recsys.recommender import Recommender
from recsys.saved.open_model import SavedModel
from recsys.types import Histories, TopK


def items_that_go_with(saved: SavedModel, row: int, k: int) -> TopK:
    """Return the ``k`` best items for a user whose only like is one item, as a TopK of one list.

    The item itself is not in the list. Fallbacks are not used (:func:`first_member`).

    Args:
        saved: the saved model.
        row: the row of the item in ``saved.items``.
        k: the length of the list.

    Raises:
        InputError: the model has no scores for such a history.
    """
    items = saved.history.items
    history = Histories(csr_array((np.ones(1, np.float32), [row], [0, 1]), shape=(1, len(items))))
    scorer = first_member(saved.model)
    if not scorer.can_score(history)[0]:
        item_id = str(items.ids_of([row])[0])
        raise InputError(
            f"{saved.name} knows nothing that goes with {item_id!r}: nobody in train liked it"
            f"{'' if scorer.NEEDS_FEATURES else ', and this model does not read its attributes'}."
            " Try another --model of the run, for example one of kind content."
        )
    return rank.recommend(scorer, history, k)


def first_member(model: Recommender) -> Recommender:
    """Return the first member of a cascade, or the model itself if it is not a cascade.

    The other members are fallbacks, such as popularity. They give the same list for every history,
    so they say nothing about similarity.
    """
    if isinstance(model, Cascade):
        return next(iter(model.members.values()))
    return model
