"""Item features: kinds of fields, dirty values, words of any script."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.features.encoding import columns_by_field, encode_features, split_words
from recsys.types import IdMap


def made(table, ids=None):
    known = encode_features(table, "item_id", IdMap.from_ids(table["item_id"] if ids is None else ids))
    return pd.DataFrame(known.matrix.toarray(), columns=known.names)


def test_lists_categories_words_and_numbers():
    table = pd.DataFrame(
        {
            "item_id": [f"m{i:02}" for i in range(12)],
            "genres": ["Drama|War", "war", None, "Drama"] * 3,
            "country": ["A", "B", "", np.nan] * 3,
            "overview": [f"<p>A storm &amp; sailor{i}</p>" for i in range(12)],
            "year": [str(1990 + i) for i in range(12)],
            "_internal": ["x"] * 12,
            "empty": [None, "", " ", float("nan")] * 3,
        }
    )
    found = made(table)
    assert {n for n in found if not n.startswith("year")} == {
        "genres=drama", "genres=war", "country=a", "country=b", "overview=storm",
    }  # fmt: skip
    assert found["genres=drama"].tolist() == [1, 0, 0, 1] * 3
    assert found["genres=war"].tolist() == [1, 1, 0, 0] * 3
    assert (found["overview=storm"] == 1).all()
    years = [name for name in found if name.startswith("year=")]
    np.testing.assert_allclose(found[years].sum(axis=1), 1, rtol=1e-6)
    knots = np.array([float(name.partition("=")[2]) for name in years])
    np.testing.assert_allclose(found[years] @ knots, 1990 + np.arange(12), rtol=1e-6)


def test_rows_follow_the_id_map_and_strangers_are_left_out():
    table = pd.DataFrame({"item_id": [5, 3, 9, 1], "kind": ["b", "a", "b", "a"]})
    found = made(table, ids=[1, 3, 5, 7])
    assert list(found) == ["kind=a"]  # only one row within the map is a b
    assert found["kind=a"].tolist() == [1, 1, 0, 0]


def test_list_cells_count_like_bars():
    bars = pd.DataFrame({"item_id": [1, 2], "tags": ["x|y", "y|x|x"]})
    lists = pd.DataFrame({"item_id": [1, 2], "tags": [["x", "y"], np.array(["y", "x", "x"])]})
    pd.testing.assert_frame_equal(made(bars), made(lists))


def test_a_few_bars_do_not_make_a_text_a_list():
    titles = [f"the storm of {name}" for name in "abcdefghijklmnopqrstuvw"]
    titles = ["harbour | a documentary", "harbour lights", *titles]
    found = made(pd.DataFrame({"item_id": range(len(titles)), "title": titles}))
    assert set(found) == {"title=storm", "title=of", "title=the", "title=harbour"}
    assert found["title=harbour"].tolist() == [1, 1] + [0] * 23
    # One bar among genres is enough, because genres recur.
    genres = ["drama|war", *["drama", "war"] * 12]
    assert set(made(pd.DataFrame({"item_id": range(25), "genre": genres}))) == {"genre=drama", "genre=war"}
    # So are bars in every twentieth cell, though no name recurs but the one of two directors.
    names = [f"director {number}" for number in range(40)]
    films = ["director 1|director 7", *names[:19]]
    assert set(made(pd.DataFrame({"item_id": range(20), "by": films}))) == {"by=director 1", "by=director 7"}


def test_missing_numbers_are_empty_rows():
    table = pd.DataFrame({"item_id": np.arange(13), "runtime": [*range(60, 72), None]})
    assert made(table).iloc[-1].sum() == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("ＡＢＣ ﬁne", ["abc", "fine"]),
        ("<script>alert('x')</script> 3 < 4 and 5 > 2", ["alert", "and"]),
        ("&lt;b&gt;bold&lt;/b&gt;", ["bold"]),
        ("鬼滅", ["鬼滅"]),
        ("猫", ["猫"]),
        ("がか", ["がか"]),
        ("Привет, мир", ["привет", "мир"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert split_words(text) == expected


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), st.floats(), st.integers(0, 5)), min_size=1, max_size=15))
def test_any_column_gives_finite_features(column):
    table = pd.DataFrame({"item_id": np.arange(len(column)), "field": pd.Series(column, dtype=object)})
    known = encode_features(table, "item_id", IdMap.from_ids(table["item_id"]))
    assert known.matrix.shape == (len(column), len(known.names))
    assert np.isfinite(known.matrix.data).all()
    assert (known.matrix.data > 0).all()
    assert len(set(known.names)) == len(known.names)
    assert set(columns_by_field(known)) <= {"field"}


def test_a_repeated_id_and_a_name_with_equals_are_refused():
    with pytest.raises(InputError, match="repeats"):
        made(pd.DataFrame({"item_id": [1, 1], "a": ["x", "x"]}), ids=[1])
    with pytest.raises(InputError, match="rename"):
        made(pd.DataFrame({"item_id": [1, 2], "a=b": ["x", "x"]}))


VECTORS = np.random.default_rng(0).normal(size=(12, 16)).round(6)
SPELT = {
    "lists": {"emb": list(VECTORS)},
    "lists with a gap": {"emb": [*VECTORS[:-1], None]},
    "text in brackets": {"emb": ["[" + ", ".join(map(str, row)) + "]" for row in VECTORS]},
    "text with bars, as JSON lines give it": {"emb": ["|".join(map(str, row)) for row in VECTORS]},
    "text as numpy prints it": {"emb": ["[" + " ".join(map(str, row)) + "]" for row in VECTORS]},
    "numbered columns": {f"emb_{n}": VECTORS[:, n] for n in range(16)},
    "numbered columns of text": {f"emb{n + 1}": [str(value) for value in VECTORS[:, n]] for n in range(16)},
}


@pytest.mark.parametrize("spelling", SPELT)
def test_an_embedding_is_one_field_of_its_numbers(spelling):
    from recsys.features.terms import weigh_terms

    table = pd.DataFrame({"item_id": range(12), "genre": list("aabbccddeeff")} | SPELT[spelling])
    features = encode_features(table, "item_id", IdMap.from_ids(table["item_id"]))
    assert features.dense == ("emb",)
    columns = columns_by_field(features)
    assert sorted(columns) == ["emb", "genre"]
    expected = VECTORS.copy()
    if "gap" in spelling:
        expected[-1] = 0
    assert np.array_equal(features.matrix[:, columns["emb"]].toarray(), expected.astype(np.float32))
    weighed = weigh_terms(features).toarray()[:, columns["emb"]]
    # Half the weight of an item is that of its vector, whose direction does not change.
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(weighed, np.divide(expected, lengths * np.sqrt(2), where=lengths > 0, out=np.zeros((12, 16))))


@pytest.mark.parametrize(
    "column",
    [
        {"tags": [[1, 2, 3, 4, 5, 6, 7, 8]] * 12},
        {"few": [[0.5, 1.5]] * 12},
        {"uneven": [[0.5] * 8, [0.5] * 9] * 6},
        {f"year_{n}": np.random.default_rng(n).normal(size=12) for n in range(1990, 2006)},
        {f"flag_{n}": [0, 1] * 6 for n in range(16)},
        {"title": ["0.5 seconds"] * 12},
    ],
)
def test_what_is_no_embedding_is_encoded_as_before(column):
    table = pd.DataFrame({"item_id": range(12)} | column)
    assert encode_features(table, "item_id", IdMap.from_ids(table["item_id"])).dense == ()
