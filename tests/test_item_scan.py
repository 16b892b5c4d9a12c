"""A scan of int8 codes lists what exact scores list, whatever the factors."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from recsys.ranking.item_scan import BLOCK, ItemScan


def exact_top_k(scores, k):
    """The k largest scores that are not NaN, the lower row first among equal ones."""
    order = np.lexsort((np.arange(len(scores)), -np.nan_to_num(scores, nan=-np.inf)))
    return order[:k]


def factors_of(kind, rng, items=3_000, rank=24):
    factors = rng.normal(size=(items, rank))
    if kind == "outliers":
        # One number decides the scale, so the codes of the others are coarse.
        factors[np.arange(items), rng.integers(rank, size=items)] *= 50
    elif kind == "alike":
        factors = factors[:1] + 1e-3 * factors
    elif kind == "sizes":
        factors *= 10.0 ** rng.integers(-30, 6, size=(items, 1))
    elif kind == "zeros":
        factors[rng.random(items) < 0.5] = 0
    return factors.astype(np.float32)


@pytest.mark.parametrize("items", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_items_at_the_ends_of_blocks_are_listed(items):
    """The factors are one number each, the largest in the last item and the next ones around it and in the first."""
    sizes = np.arange(items, dtype=np.float32) - 1.0
    sizes[0] = items - 2.5
    scan = ItemScan.encode(sizes[:, None], np.ones(items, dtype=bool))
    listed, scores = scan.top_k(np.ones(1, dtype=np.float32), 3, np.array([items - 3]))
    assert listed.tolist() == [[items - 1, 0, items - 2]]
    assert scores.tolist() == [[items - 2, items - 2.5, items - 3]]


@pytest.mark.parametrize("kind", ["normal", "outliers", "alike", "sizes", "zeros"])
def test_the_list_is_that_of_exact_scores(kind):
    rng = np.random.default_rng(7)
    factors = factors_of(kind, rng)
    has_factor = rng.random(len(factors)) < 0.9
    scan = ItemScan.encode(factors, has_factor)
    for number in range(20):
        user = rng.normal(size=factors.shape[1]).astype(np.float32)
        seen = rng.choice(len(factors), 40, replace=False)
        candidates = rng.random(len(factors)) < 0.5 if number % 2 else None
        allowed = has_factor.copy()
        allowed[seen] = False
        if candidates is not None:
            allowed &= candidates
        exact = np.where(allowed, factors.astype(np.float64) @ user, np.nan)
        items, scores = scan.top_k(user, 10, seen, candidates)
        expected = exact_top_k(exact, 10)
        # Exact scores are rounded to float32, so items whose scores differ by less may change places.
        close = 1e-5 * np.abs(exact[expected]).max()
        np.testing.assert_allclose(exact[items[0]], exact[expected], rtol=0, atol=close)
        if kind in ("normal", "outliers"):
            assert items[0].tolist() == expected.tolist()
        np.testing.assert_allclose(scores[0], exact[items[0]], rtol=1e-4, atol=close)


def test_codes_are_within_their_errors():
    rng = np.random.default_rng(3)
    for kind in ("normal", "outliers", "sizes"):
        factors = factors_of(kind, rng)
        scan = ItemScan.encode(factors, np.ones(len(factors), dtype=bool))
        items, rank = factors.shape
        codes = scan.codes.transpose(0, 2, 1).reshape(-1, rank)[:items]
        scales = scan.scales.reshape(-1)[:items]
        errors = scan.errors.reshape(-1)[:items]
        restored = scales[:, None].astype(np.float64) * codes
        assert (np.abs(restored - factors).max(axis=1) <= errors).all()
        # Half a step of the codes, and what rounding adds.
        assert (errors <= 0.51 * scales + 1e-43).all()


def test_an_item_whose_codes_are_all_too_small_is_listed():
    """By its codes the first item has 80 and the second one 74, by its factors 76.08 and 77.92."""
    # The first factor is the largest, so it decides the scale, and the user does not care for it.
    factors = np.array([[127.0] + [9.51] * 8, [127.0] + [9.49] * 6 + [10.49] * 2])
    user = np.ones(9, dtype=np.float32)
    user[0] = 0
    scan = ItemScan.encode(factors.astype(np.float32), np.ones(2, dtype=bool))
    items, scores = scan.top_k(user, 1, np.array([], dtype=np.int32))
    assert items.tolist() == [[1]]
    assert scores[0, 0] == pytest.approx(77.92, rel=1e-6)


def test_a_short_list_is_left_to_exact_scores():
    factors = np.ones((5, 3), dtype=np.float32)
    scan = ItemScan.encode(factors, np.array([True, True, True, False, False]))
    user = np.ones(3, dtype=np.float32)
    assert scan.top_k(user, 4, np.empty(0, dtype=np.int32)) is None
    items, scores = scan.top_k(user, 2, np.array([0]))
    assert items.tolist() == [[1, 2]]
    assert scores.tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_server_scans_and_lists_as_without(exclude_seen, monkeypatch):
    """Known users, folded-in histories and candidates of a model of random factors, with and without the scan."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    import pandas as pd

    from recsys.config import parse_config
    from recsys.models import build
    from recsys.models.collaborative.als import ALS
    from recsys.models.combining.cascade import Cascade
    from recsys.report.reasons import Reasons
    from recsys.saved.open_model import SavedModel
    from recsys.serving import served_model
    from recsys.serving.requests import ListRequest
    from recsys.types import IdMap, Interactions

    rng = np.random.default_rng(1)
    items, users = 2_000, 30
    values = csr_array(rng.random((users, items)) < 0.01, dtype=np.float32)
    values.sort_indices()
    factors = rng.normal(scale=0.1, size=(items, 16)).astype(np.float32)
    als = ALS.from_factors(factors, rng.random(items) < 0.9, alpha=10.0, reg=0.1, nu=1.0, beta=0.0)
    row = np.repeat(np.arange(users, dtype=np.int32), np.diff(values.indptr))
    times = np.full(values.nnz, -1, dtype=np.int64)
    ids = IdMap.from_ids(np.arange(items))
    history = Interactions(
        IdMap.from_ids(np.arange(users)), ids, row, values.indices.astype(np.int32), values.data, times
    )
    model = Cascade({"als": als, "popular": build("popular", {}).fit(history)})
    config = parse_config(
        {"data": {"events": "none"}, "models": {"als": {}}, "recommend": {"exclude_seen": exclude_seen}}
    )
    stored = rng.normal(scale=0.1, size=(users, 16)).astype(np.float32)
    stored[3] = np.nan
    table = pd.DataFrame({"item_id": np.arange(items)})
    saved = SavedModel("als", model, history, table, config, stored)

    def lists(least):
        monkeypatch.setattr(served_model, "SCAN_ITEMS", least)
        names = [str(number) for number in range(items)]
        served = served_model.ServedModel("als", None, saved, "0", names, None, Reasons(table), "now")
        assert (served._item_scan is None) == (least > items)
        requests = [ListRequest(user=str(user)) for user in range(users + 1)]
        requests += [ListRequest(history=[str(item) for item in rng_of(number)]) for number in range(20)]
        requests += [ListRequest(user="5", exclude=["7"], only=[str(item) for item in range(100)], k=5)]
        requests += [ListRequest(user="5", only=["1", "2"]), ListRequest(user="5", k=items)]
        return [served.recommend(request) for request in requests]

    def rng_of(number):
        return np.random.default_rng(number).choice(items, 12, replace=False)

    for scanned, exact in zip(lists(0), lists(items + 1), strict=True):
        assert [item["item"] for item in scanned["items"]] == [item["item"] for item in exact["items"]]
        assert [item["source"] for item in scanned["items"]] == [item["source"] for item in exact["items"]]
        assert scanned["shortfall"] == exact["shortfall"]
        scores = [[item["score"] for item in answer["items"]] for answer in (scanned, exact)]
        np.testing.assert_allclose(*scores, rtol=1e-5)
