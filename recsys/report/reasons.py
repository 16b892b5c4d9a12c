"""Explain in words why an item is recommended: what the user liked, and what the item shares with
it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys.features.encoding import numbers_of_field
from recsys.models.combining.cascade import Cascade
from recsys.recommender import Explanation, Recommender
from recsys.schema import ITEM
from recsys.types import Histories

MAX_NAMES = 3
"""Largest number of liked items, and of shared values, that a sentence names."""

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")
"""A text that is a number."""

YEARS = (1800, 2100)
"""Whole numbers in this range are treated as years. Items of the same decade share a value."""


class Reasons:
    """Puts explanations of scores into words, with the titles and attributes of an items table.

    Args:
        items: a table with the columns ``item_id``, optionally ``title``, and any attributes. Row i
            describes the item of row i of the model.
    """

    def __init__(self, items: pd.DataFrame) -> None:
        self.items = items
        self._numbers = {
            str(name): numbers
            for name in items.columns
            if name != ITEM and (numbers := numbers_of_field(items[name])) is not None
        }

    def title(self, row: int) -> str:
        """Return the title of the item of a row, or its id as text if it has none."""
        if "title" in self.items and not pd.isna(title := self.items["title"].iat[row]):
            return str(title)
        return str(self.items[ITEM].iat[row])

    def distinct_titles(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Return the titles of several items, so that a sentence can list them.

        All are in quotes if one of them has a comma or " and ", which would look like the end of a title.
        Equal titles are followed by the id, as in "Dunes (f0)".

        Args:
            rows: the rows of the items.
        """
        titles = [self.title(int(row)) for row in rows]
        needs_quotes = any("," in title or " and " in title for title in titles)
        distinct = []
        for row, title in zip(rows, titles, strict=True):
            quoted = f'"{title}"' if needs_quotes else title
            if titles.count(title) > 1:
                quoted += f" ({self.items[ITEM].iat[int(row)]})"
            distinct.append(quoted)
        return distinct

    def sentence(self, model: Recommender, history: Histories, item: int, user: int = 0) -> str:
        """Return the reasons for a score, such as "because you liked A and B; shares war, 1970s".

        The text is empty if no entry of the history raises the score.

        Args:
            model: the model that scores the item. For a blend, the text explains the score of the
                member that adds most.
            history: the history of one user, one row.
            item: the row of the item.
            user: the row of the user, which only some models use, as in ``Recommender.score``.
        """
        explanation = model.explain(history, item, user)
        while explanation.members or isinstance(model, Cascade):
            model = _strongest_member(model, explanation, history, user)
            explanation = model.explain(history, item, user)
        if explanation.history is None:
            return ""
        added = explanation.history
        strongest = [int(entry) for entry in np.argsort(-added, kind="stable")[:MAX_NAMES] if added[entry] > 0]
        if not strongest:
            return ""
        liked = history.values.indices[strongest]
        sentence = f"because you liked {_enumerate(self.distinct_titles(liked))}"
        shared = self.shared_values(item, liked)
        if shared:
            sentence += f"; shares {', '.join(shared)}"
        return sentence

    def shared_values(self, item: int, other_items: Sequence[int] | np.ndarray) -> list[str]:
        """Return the attribute values that an item has in common with some other items.

        At most :data:`MAX_NAMES` values are returned: those that most of the other items have, the
        most frequent first. A value that is a number follows the name of its column, for example "age
        limit 16". A cell such as "drama|war" has two values. For a year, the decade is
        compared, for example "1970s". Other numbers, the title and the id are not compared.

        Args:
            item: the row of the item.
            other_items: the rows of the other items.
        """
        shared: list[tuple[int, str]] = []
        for name in self.items.columns:
            if name in (ITEM, "title") or str(name).startswith("_"):
                continue
            for value in self._values(str(name), item):
                count = sum(value in self._values(str(name), int(row)) for row in other_items)
                if not count:
                    continue
                # A bare number says nothing to a reader.
                if NUMBER.fullmatch(value.strip()):
                    value = f"{str(name).replace('_', ' ')} {value}"
                shared.append((-count, value))
        return [value for _, value in sorted(shared, key=lambda pair: pair[0])[:MAX_NAMES]]

    def feature_name(self, feature: str, item: int) -> str:
        """Return the name of a feature for an explanation of the score of an item.

        A column of numbers, such as ``year``, is encoded as several features. The name of each one
        has a number that need not be that of any item, for example ``year=1986``
        (:mod:`recsys.features.encoding`). This method replaces it by the number of the item, as in
        ``year=1972``. Other names are returned unchanged.

        Args:
            feature: the name of the feature in the model.
            item: the row of the item.
        """
        field, _, _ = feature.partition("=")
        if field not in self._numbers:
            return feature
        return f"{field}={self._numbers[field][item]:.12g}"

    def item_features(self, features: dict[str, float], item: int) -> dict[str, float]:
        """Return the contributions of features to a score, under their names for explanations.

        The result is a dict: name (see :meth:`feature_name`) -> contribution. All features of one
        column of numbers get the same name, and their contributions are added up.

        Args:
            features: feature -> contribution.
            item: the row of the item.
        """
        renamed: dict[str, float] = {}
        for feature, value in features.items():
            name = self.feature_name(feature, item)
            renamed[name] = renamed.get(name, 0.0) + value
        return renamed

    def _values(self, field: str, row: int) -> list[str]:
        """Return the values of a field of one item that other items may have in common with it."""
        if field in self._numbers:
            number = self._numbers[field][row]
            if YEARS[0] <= number < YEARS[1] and number == int(number):
                return [f"{int(number) // 10 * 10}s"]
            return []
        cell = self.items[field].iat[row]
        if isinstance(cell, list | tuple | np.ndarray):
            return [str(value) for value in cell]
        if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return []
        return [value for value in str(cell).split("|") if value.strip()]


@dataclass(frozen=True)
class ExplainedScore:
    """Why a model gives an item its score for a user.

    Attributes:
        model: the name of the model that scores the user, which may be a fallback.
        explanation: the parts of the score. The score is NaN if the model cannot score the item for
            this user.
        sentence: the reasons in words, "" if there are none.
        missing: the cause if there is no score: "the user's history" or "the item", of which the
            model knows too little. "" if there is a score.
    """

    model: str
    explanation: Explanation
    sentence: str
    missing: str


def explain_score(
    name: str, recommender: Recommender, reasons: Reasons, history: Histories, row: int
) -> ExplainedScore:
    """Return why a model gives an item its score.

    Args:
        name: the name of the model.
        recommender: the model. Of a cascade, the member that scores this user is explained.
        reasons: the titles and attributes of the items, for the sentence.
        history: the history of the user, one row.
        row: the row of the item.
    """
    if isinstance(recommender, Cascade):
        name, recommender = recommender.scoring_member(history) or (name, recommender)
    explanation = recommender.explain(history, row)
    if not np.isnan(explanation.score):
        return ExplainedScore(name, explanation, reasons.sentence(recommender, history, row), "")
    missing = "the user's history"
    if recommender.can_score(history)[0]:
        missing = "the item"
    return ExplainedScore(name, explanation, "", missing)


def _strongest_member(model: Recommender, explanation: Explanation, history: Histories, user: int) -> Recommender:
    """Return the member of a combined model that contributes most to the explained score.

    In a cascade, it is the member that scores the user. In a blend, it is the member whose part of
    the score is largest.
    """
    if isinstance(model, Cascade):
        scoring = model.scoring_member(history, user)
        return scoring[1] if scoring else list(model.members.values())[-1]
    return model.members[max(explanation.members, key=lambda name: explanation.members[name])]


def _enumerate(names: list[Any]) -> str:
    """Return names as one text: "A", "A and B" or "A, B and C"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
