"""Explanations in words, by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from recsys.cli.saved_items import nearest_names
from recsys.recommender import Explanation, Recommender
from recsys.report.reasons import Reasons
from recsys.types import Histories

ITEMS = pd.DataFrame(
    {
        "item_id": [f"f{row}" for row in range(14)],
        "title": ["Dunes", "Trench", "Siege", None, *(f"Title {row}" for row in range(4, 14))],
        "genres": ["war|drama", "war", "war|comedy", "comedy", *["crime|x"] * 10],
        "year": [1972, 1975, 1979, 1986, *range(1990, 2000)],
    }
)


class Fixed(Recommender):
    """Gives the explanation that it is made with."""

    def __init__(self, explanation, members=None):
        self.explanation, self.members = explanation, members or {}

    def fit(self, train, features=None):
        return self

    def score(self, histories, users=None):
        return np.zeros(histories.shape, dtype=np.float32)

    def explain(self, history, item, user=0):
        return self.explanation


LIKED = Histories(csr_array(np.array([[0, 1, 1, 1] + [0] * 10], dtype=np.float32)))


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([0.1, 0.3, 0.2], "because you liked Siege, f3 and Trench; shares war, 1970s"),
        ([0.1, 0.3, -0.2], "because you liked Siege and Trench; shares war, 1970s"),
        ([0.0, 0.0, 0.2], "because you liked f3"),
        ([0.0, -0.1, 0.0], ""),
    ],
)
def test_the_sentence_names_what_was_liked_and_what_is_shared(added, expected):
    model = Fixed(Explanation(1.0, history=np.array(added)))
    assert Reasons(ITEMS).sentence(model, LIKED, 0) == expected


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        (("Usual Suspects, The", "Siege"), '"Usual Suspects, The" and "Siege"'),
        (("Sense and Sensibility", "Siege"), '"Sense and Sensibility" and "Siege"'),
        (("Sandman", "Siege"), "Sandman and Siege"),
        (("Siege", "Siege"), "Siege (f1) and Siege (f2)"),
        (("Siege, The", "Siege, The"), '"Siege, The" (f1) and "Siege, The" (f2)'),
    ],
)
def test_titles_that_could_be_confused_are_kept_apart(titles, expected):
    items = ITEMS.assign(title=["Dunes", *titles, None, *ITEMS["title"][4:]])[["item_id", "title"]]
    model = Fixed(Explanation(1.0, history=np.array([0.3, 0.2, 0.0])))
    assert Reasons(items).sentence(model, LIKED, 0) == f"because you liked {expected}"


def test_a_blend_is_explained_by_the_member_that_adds_most():
    weak, strong = (Fixed(Explanation(1.0, history=np.array(added))) for added in ([1, 0, 0], [0, 1, 0]))
    blend = Fixed(Explanation(1.0, members={"weak": 0.1, "strong": 0.9}), {"weak": weak, "strong": strong})
    assert Reasons(ITEMS).sentence(blend, LIKED, 0) == "because you liked Siege; shares war, 1970s"
    assert Reasons(ITEMS).sentence(Fixed(Explanation(1.0, note="popular")), LIKED, 0) == ""


def test_the_knots_of_a_number_are_named_by_the_number_of_the_item():
    added = {"genres=war": 0.5, "year=1972": 0.2, "year=1986": 0.1}
    renamed = Reasons(ITEMS).item_features(added, 1)
    assert renamed == {"genres=war": 0.5, "year=1975": pytest.approx(0.3)}


def test_a_shared_number_is_named():
    items = ITEMS.assign(age_limit=["16"] * 14).drop(columns="year")
    assert Reasons(items).shared_values(0, [1, 2]) == ["war", "age limit 16"]


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("17850", ["17850.0", "17851.0"], ["17850.0"]),
        ("17850.0", ["17850", "1785"], ["17850"]),
        ("f7", ["f070", "f007", "f700"], ["f007"]),
        (" U07", ["u07", "u08"], ["u07"]),
        ("Alein", ["Alien", "Aliens", "Heat"], ["Alien", "Aliens"]),
        ("stranger", ["u01", "u02"], []),
    ],
)
def test_nearest_names(word, names, expected):
    assert nearest_names(word, names) == expected
