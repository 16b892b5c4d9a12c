"""Measures of agreement of ranked lists: functions of :class:`Pairs` that return one number per
pair.

A name of a measure, such as ``tau_b``, ``rbo[p=0.8,ties=b]`` or ``overlap@10``, both requests it
and labels its values. :func:`parse_measure` reads it. All measures return float64[m], NaN where
undefined.

*Correlations* compare two lists on some items. With ``missing=intersection`` they are the items of
both lists, because an item that a user did not rate is not one that they dislike. With
``missing=bottom`` they are the items of either list, and those that a list misses are tied below
its end. A correlation is undefined for fewer than two such items, and if a list ties all of them.
``kendall_topk`` and ``footrule_topk`` are *distances*: smaller means closer.

docs/agreement.md compares the formulas and says which measure answers which question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd

from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.evaluation.agreement import concordance
from recsys.evaluation.agreement import rbo as rbo_kernels
from recsys.evaluation.agreement.rankings import Pairs, RankedList, Rankings, make_pair
from recsys.evaluation.judging.names import MeasureName, parse_name, parse_names
from recsys.evaluation.topk_tables import as_frame
from recsys.ranking.rank import topk_from_table
from recsys.schema import ITEM, TOPK, USER
from recsys.types import Evaluation, IdMap


def tau_a(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-a: (concordant − discordant) / all pairs of items, in [−1, 1].

    A pair of items tied in a list adds 0, as the mean over all ways to break the tie does.
    Reference: Kendall, Biometrika 1938.
    """
    counts = pairs.aligned(missing).counts
    return _divide(counts.balance, counts.pairs, undefined=counts.undefined)


def tau_b(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-b: (concordant − discordant) / √(pairs untied in a · pairs untied in b), in [−1, 1].

    Equals ``scipy.stats.kendalltau``. Reference: Kendall, Biometrika 1945.
    """
    counts = pairs.aligned(missing).counts
    untied = (counts.pairs - counts.tied_a).astype(np.float64) * (counts.pairs - counts.tied_b)
    return _divide(counts.balance, np.sqrt(untied), undefined=counts.undefined)


def tau_c(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Stuart's tau-c: 2 (concordant − discordant) / (n² (g − 1) / g), in [−1, 1].

    n is the number of items and g the smaller number of groups of ties. Meant for two lists with
    few groups of ties and different numbers of them. Equals
    ``scipy.stats.kendalltau(variant="c")``. Reference: Stuart, Biometrika 1953.
    """
    counts = pairs.aligned(missing).counts
    groups = np.maximum(np.minimum(counts.groups_a, counts.groups_b), 1)
    largest = counts.items**2 * (groups - 1) / groups
    return _divide(2 * counts.balance, largest, undefined=counts.undefined)


def weighted_tau(pairs: Pairs, missing: str = "", additive: bool = True) -> np.ndarray:
    """Weighted tau-b: a pair of items at ranks r and s has the weight 1/r + 1/s (else 1/rs), in [−1, 1].

    ``additive`` chooses between the two weights. The value is the mean of two: items ranked by the
    first list (ties by the second), and by the second list (ties by the first). Equals
    ``scipy.stats.weightedtau`` of scores, where high is best; given ranks, scipy would weight the
    *bottom* most. Reference: Vigna, WWW 2015.
    """
    aligned = pairs.aligned(missing)
    by_a, by_b = (
        concordance.hyperbolic_tau(order.keys, order.starts, order.sizes, additive)
        for order in (aligned, aligned.swapped)
    )
    return np.where(aligned.counts.undefined, np.nan, (by_a + by_b) / 2)


def tau_ap(pairs: Pairs, missing: str = "", ties: str = "a", symmetric: bool = False) -> np.ndarray:
    """AP correlation 2/(n − 1) Σ_{i≥2} C(i)/(i − 1) − 1, in [−1, 1]; the *first* list is the reference.

    C(i) is the number of items above position i of the second list that the reference also ranks
    above the item at i, so disorder at the top costs most. ``symmetric``: the mean of both
    directions. ``ties=a``: the mean over all ways to break ties. ``ties=b``: a tied pair counts as
    disagreement, items of the top group are not compared, and the value is symmetric. References:
    Yilmaz, Aslam and Robertson, SIGIR 2008; Urbano and Marrero, ICTIR 2017 (their variant a allows
    no ties in the reference).
    """
    if ties not in ("a", "b"):
        raise ConfigError(f"tau_ap: ties is {ties!r}.{suggest_nearest(ties, 'ab')}")
    aligned = pairs.aligned(missing)
    directions = [aligned.swapped]
    if symmetric or ties == "b":
        directions.append(aligned)
    values = [concordance.ap_correlation(keys.keys, keys.starts, keys.sizes, ties == "a") for keys in directions]
    return np.where(aligned.counts.undefined, np.nan, sum(values) / len(values))


def spearman(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Spearman's rho: the Pearson correlation of the ranks, in [−1, 1]; tied items share their mean rank.

    Equals ``scipy.stats.spearmanr``. Reference: Spearman, American Journal of Psychology 1904.
    """
    aligned = pairs.aligned(missing)
    cross, squares_a, squares_b = concordance.rank_cross_products(
        aligned.keys,
        aligned.starts,
        aligned.sizes,
    ).T
    return _divide(cross, np.sqrt(squares_a * squares_b), undefined=aligned.counts.undefined)


def footrule(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Spearman's footrule as a similarity: 1 − Σ |rank in a − rank in b| / ⌊n²/2⌋, in [0, 1]; 0 = reversed.

    Tied items share their mean rank. Reference: Diaconis and Graham, JRSS B 1977.
    """
    aligned = pairs.aligned(missing)
    # All compared items are in both lists here, so the location of missing items is never used.
    unlimited = np.full(len(pairs), np.inf)
    distance = concordance.footrule_distance(
        aligned.keys,
        aligned.starts,
        aligned.sizes,
        unlimited,
        unlimited,
        unlimited,
    )
    largest = aligned.sizes**2 // 2
    return _divide(largest - distance, largest, undefined=aligned.counts.undefined)


def rbo(pairs: Pairs, p: float = 0.9, ties: str = "a", score: str = "ext") -> np.ndarray:
    """Rank-biased overlap (1 − p) Σ_d p^(d−1) A_d of two lists that go on beyond what is observed, in [0, 1].

    ``p`` is the probability that a reader goes on to the next depth; the first 1/(1 − p) positions
    weigh most. ``score=ext`` assumes that the rest agrees as the observed part does, ``score=min``
    is the smallest possible value, ``score=res`` the difference between the largest and the
    smallest. ``ties`` is w, a or b, see ``recsys.evaluation.agreement.rbo``. Undefined where a list
    is empty. References: see that module.
    """
    variants = {"w": rbo_kernels.W, "a": rbo_kernels.A, "b": rbo_kernels.B}
    scores = ("ext", "min", "res")
    if not 0 < p < 1:
        raise ConfigError(f"rbo: p is {p}; it must lie strictly between 0 and 1")
    if ties not in variants:
        raise ConfigError(f"rbo: ties is {ties!r}.{suggest_nearest(ties, variants)}")
    if score not in scores:
        raise ConfigError(f"rbo: score is {score!r}.{suggest_nearest(score, scores)}")
    a, b = pairs.a, pairs.b
    extrapolated, smallest, largest = rbo_kernels.rbo_bounds(
        a.items,
        a.dense_ranks,
        a.offsets,
        *a.position_tables,
        b.items,
        b.dense_ranks,
        b.offsets,
        *b.position_tables,
        pairs.rows_a,
        pairs.rows_b,
        p,
        variants[ties],
    ).T
    return {"ext": extrapolated, "min": smallest, "res": largest - smallest}[score]


def kendall_topk(pairs: Pairs, p: float = 0.5, k: int | None = None) -> np.ndarray:
    """Fagin's K^(p) *distance*: discordant pairs of items, plus p for each pair tied in exactly one list; ≥ 0.

    Items of either list are compared; the items that a list misses are tied below its end. ``p`` is
    the penalty for an unknown order: 0.5 is its expected cost, 0 is optimistic. ``k``: cut both
    lists first. Undefined where both lists are empty. Reference: Fagin, Kumar and Sivakumar, SIAM
    J. Discrete Math. 2003.
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"kendall_topk: p is {p}; it must lie between 0 and 1")
    counts = pairs.cut(k).aligned("bottom").counts
    tied_once = counts.tied_a + counts.tied_b - 2 * counts.tied_both
    return np.where(counts.items == 0, np.nan, counts.discordant + p * tied_once)


def footrule_topk(pairs: Pairs, location: float | None = None, k: int | None = None) -> np.ndarray:
    """Fagin's F^(l) *distance*: Σ |rank in a − rank in b| over the items of either list; ≥ 0.

    An item that a list misses has the rank ``location`` there (default: one more than the length of
    the longer list). Tied items share their mean rank. ``k``: cut both lists first. Undefined where
    both lists are empty. Reference: as ``kendall_topk``.
    """
    pairs = pairs.cut(k)
    aligned = pairs.aligned("bottom")
    a_lengths, b_lengths = pairs.lengths
    longer = np.maximum(a_lengths, b_lengths)
    if location is None:
        locations = longer + 1.0
    else:
        if len(pairs) and location <= longer.max():
            raise ConfigError(
                f"footrule_topk: location is {location:g}, but a list has {longer.max()} items; choose a larger one",
            )
        locations = np.full(len(pairs), float(location))
    distance = concordance.footrule_distance(
        aligned.keys,
        aligned.starts,
        aligned.sizes,
        a_lengths,
        b_lengths,
        locations,
    )
    return np.where(longer == 0, np.nan, distance)


def overlap(pairs: Pairs, k: int | None = None) -> np.ndarray:
    """Items of both lists / mean length of the two lists, each cut at k; in [0, 1].

    For lists of at least k items without ties across the cut, this is |A ∩ B| / k. A group of ties
    that crosses the cut is kept whole. Undefined where both lists are empty.
    """
    pairs = pairs.cut(k)
    a_lengths, b_lengths = pairs.lengths
    total = a_lengths + b_lengths
    return _divide(2 * pairs.common, total, undefined=total == 0)


def jaccard(pairs: Pairs, k: int | None = None) -> np.ndarray:
    """Items of both lists / items of either list, |A ∩ B| / |A ∪ B|, each list cut at k; in [0, 1].

    A group of ties that crosses the cut is kept whole. Undefined where both lists are empty.
    """
    pairs = pairs.cut(k)
    a_lengths, b_lengths = pairs.lengths
    total = a_lengths + b_lengths
    return _divide(pairs.common, total - pairs.common, undefined=total == 0)


MEASURES: dict[str, Callable[..., np.ndarray]] = {
    "tau_a": tau_a,
    "tau_b": tau_b,
    "tau_c": tau_c,
    "weighted_tau": weighted_tau,
    "tau_ap": tau_ap,
    "spearman": spearman,
    "footrule": footrule,
    "rbo": rbo,
    "kendall_topk": kendall_topk,
    "footrule_topk": footrule_topk,
    "overlap": overlap,
    "jaccard": jaccard,
}
DISTANCES = ("kendall_topk", "footrule_topk")
"""The measures for which a smaller value means more agreement."""

MIN_PAIRS_FOR_THREADS = 256
"""Smallest number of pairs that several threads compute. For fewer, starting threads takes longer."""


def _divide(numerator: np.ndarray, denominator: np.ndarray, *, undefined: np.ndarray) -> np.ndarray:
    """Return numerator / denominator as float64, NaN where ``undefined`` is True."""
    quotient = np.asarray(numerator, dtype=np.float64) / np.where(undefined, 1.0, denominator)
    return np.where(undefined, np.nan, quotient)


@dataclass(frozen=True)
class Measure(MeasureName):
    """A measure with its options. Call it with Pairs to compute its values; ``str`` gives its name.

    >>> str(parse_measure("rbo[p=0.5]"))
    'rbo[p=0.5]'
    """

    def __call__(self, pairs: Pairs) -> np.ndarray:
        """Return the value of the measure for each pair of lists, float64[m], NaN where undefined."""
        threads = numba.get_num_threads()
        numba.set_num_threads(threads if len(pairs) >= MIN_PAIRS_FOR_THREADS else 1)
        try:
            return MEASURES[self.name](pairs, **self.arguments())
        finally:
            numba.set_num_threads(threads)

    @property
    def is_distance(self) -> bool:
        """Whether smaller values mean more agreement."""
        return self.name in DISTANCES

    @property
    def definition(self) -> str:
        """The formula of the measure and its options, for reports."""
        return self.describe(MEASURES[self.name])


def parse_measure(text: str) -> Measure:
    """Return the measure with this name.

    Raises:
        ConfigError: the name or an option is unknown (the message suggests the most similar one), a
            value is not valid, or a cut-off is given for a measure that has none.
    """
    measure = parse_name(text, MEASURES, Measure)
    # Measures check the values of their options when they are called.
    measure(make_pair([], []))
    return measure


def parse_measures(texts: Iterable[str]) -> list[Measure]:
    """Return the measures with these names.

    Raises:
        ConfigError: a name is not valid. The message lists all such names.
    """
    return parse_names(texts, parse_measure)


def compute_measures(pairs: Pairs, measures: Iterable[Measure]) -> dict[str, np.ndarray]:
    """Return name -> float64[m], the values of each measure. Both engines call this function."""
    return {str(measure): measure(pairs) for measure in measures}


def agree(a: RankedList, b: RankedList, measure: str) -> float:
    """Return the agreement of two ranked lists, NaN if it is undefined.

    Args:
        a, b: two ranked lists. Each is a sequence of ids, best first, in which a nested list or
            tuple is a group of ties; or a dict id -> score or a Series of scores by id, where a
            higher score is better.
        measure: a name such as ``tau_b[missing=bottom]``.

    >>> agree(["x", "y", "z"], ["y", "x", "z"], "tau_ap")
    0.0
    >>> agree(["x", ["y", "z"]], {"z": 5, "x": 9, "y": 1}, "tau_a")
    0.6666666666666666
    """
    return float(parse_measure(measure)(make_pair(a, b))[0])


def kendall_tau(
    a: RankedList,
    b: RankedList,
    *,
    variant: str = "b",
    missing: str = "intersection",
) -> float:
    """Return Kendall's tau-a, tau-b or tau-c of two ranked lists.

    Args:
        a, b: two ranked lists, as for :func:`agree`.
        variant: "a", "b" or "c".
        missing: how an item counts that only one list has: "intersection" or "bottom".

    >>> round(kendall_tau({"v": 12, "w": 2, "x": 1, "y": 12, "z": 2}, {"v": 1, "w": 4, "x": 7, "y": 1, "z": 0}), 4)
    -0.4714
    """
    return agree(a, b, f"tau_{variant}[missing={missing}]")


def agree_tables(
    a: pd.DataFrame,
    b: pd.DataFrame,
    measures: Iterable[str],
    *,
    name: str = "agreement",
) -> Evaluation:
    """Compare two top-k tables (user_id, item_id, rank) user by user.

    Correlations use ``missing=bottom`` by default: an item that a list misses is ranked below its
    end.

    Returns:
        per_user: user_id, n_a, n_b, n_common, then the measures; one row for every user of either
            table.
        about: the definitions, the number of users without a list in a or in b, and for each
            measure the number of users for whom it is undefined.

    Raises:
        InputError: a missing column, ids of two types, or an item or a rank twice in a list.
    """
    a = as_frame(a, "the first table")
    b = as_frame(b, "the second table")
    TOPK.require(a.columns, "the first table")
    TOPK.require(b.columns, "the second table")
    users = IdMap.of(a[USER], b[USER])
    items = IdMap.of(a[ITEM], b[ITEM])
    if not len(users):
        raise InputError("both tables are empty: there are no users to compare")
    lists_a, lists_b = (Rankings.from_topk(topk_from_table(table, users, items)) for table in (a, b))
    pairs = Pairs.row_by_row(lists_a, lists_b, "bottom")
    parsed = parse_measures(measures)
    values = compute_measures(pairs, parsed)
    n_a, n_b = pairs.lengths
    columns = {USER: users.all_ids, "n_a": n_a, "n_b": n_b, "n_common": pairs.common}
    counts = {"without_a": int((n_a == 0).sum()), "without_b": int((n_b == 0).sum())}
    for label, per_user in values.items():
        counts[f"undefined {label}"] = int(np.isnan(per_user).sum())
    definitions = {str(measure): measure.definition for measure in parsed}
    return Evaluation(
        name,
        pd.DataFrame(columns | values),
        {"definitions": definitions, "counts": counts},
    )
