import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from recsys.evaluation.agreement.system_pairs import pairwise_agreement


def lists(rng, users, items, k):
    rows = [(u, int(i), r + 1) for u in users for r, i in enumerate(rng.choice(items, size=k, replace=False))]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"]).sample(frac=1, random_state=1)


def order_of(table, user):
    return table[table["user_id"] == user].sort_values("rank")["item_id"].tolist()


def test_every_pair_and_user_against_a_loop():
    rng = np.random.default_rng(0)
    tables = {"a": lists(rng, range(6), 9, 5), "b": lists(rng, range(2, 9), 9, 5), "c": lists(rng, range(8), 9, 3)}
    found = pairwise_agreement(tables, ["overlap", "tau_b"])
    for row in found.itertuples():
        one, two = (order_of(tables[name], row.user_id) for name in (row.a, row.b))
        union = sorted({*one, *two})
        places = [[order.index(i) if i in order else len(order) for i in union] for order in (one, two)]
        assert row.overlap == pytest.approx(2 * len({*one} & {*two}) / (len(one) + len(two)))
        assert row.tau_b == pytest.approx(kendalltau(*places).statistic)
    assert found.groupby(["a", "b"]).size().to_dict() == {("a", "b"): 4, ("a", "c"): 6, ("b", "c"): 6}


def test_ids_of_two_kinds_meet_as_text():
    one = pd.DataFrame({"user_id": [1], "item_id": [7], "rank": [1]})
    two = pd.DataFrame({"user_id": ["1"], "item_id": ["7"], "rank": [1]})
    assert pairwise_agreement({"one": one, "two": two}, ["overlap"])["overlap"].tolist() == [1.0]
