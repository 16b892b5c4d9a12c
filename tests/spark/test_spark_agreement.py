"""Agreement on executors against the same tables compared locally."""

import numpy as np
import pandas as pd
import pytest

from recsys.evaluation.agreement.measures import MEASURES, agree_tables

pytestmark = pytest.mark.spark
CHOSEN = [*MEASURES, "tau_b[missing=intersection]", "rbo[p=0.7,ties=b,score=min]", "overlap@3", "tau_ap[ties=b]"]


def topk(seed, users):
    """Lists of 0 … 12 of 20 items; users without a list have no rows."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{item}", rank)
        for user in users
        for rank, item in enumerate(rng.permutation(20)[: rng.integers(0, 13)], start=1)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])


def test_equals_the_local_numbers(spark):
    from recsys.spark.evaluation.agreement import per_user

    a, b = topk(1, range(90)), topk(2, range(30, 120))
    renamed = {"user_id": "user", "item_id": "item"}
    frames = [spark.createDataFrame(table.rename(columns=renamed)).repartition(3) for table in (a, b)]
    found = per_user(*frames, CHOSEN).toPandas().set_index("user").sort_index()
    local = agree_tables(a, b, CHOSEN)
    expected = local.per_user.set_index("user_id").loc[found.index]
    assert len(found) == len(local.per_user)
    assert (found[["n_a", "n_b", "n_common"]] == expected[["n_a", "n_b", "n_common"]]).all(axis=None)
    for measure in CHOSEN:
        assert np.allclose(found[measure], expected[measure], rtol=0, atol=1e-12, equal_nan=True), measure
    assert local.about["counts"]["undefined rbo"] == ((expected["n_a"] == 0) | (expected["n_b"] == 0)).sum()
