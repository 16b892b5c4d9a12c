"""Measures of agreement of ranked lists: each function takes :class:`Pairs` and returns one number
per pair of lists.

All measures return float64[m], one value for each of the m pairs, NaN where the measure is
undefined. The user writes a measure as a name with options, such as ``tau_b``,
``rbo[p=0.8,ties=b]`` or ``overlap@10`` (read by :func:`parse_measure`). The same name is the title
of its column in results. The first line of a measure's docstring is printed in reports as its
definition.

*Correlations* compare the order of the same items in the two lists of a pair, a and b. The option
``missing`` says which items are compared. ``intersection``: the items that both lists have; this
suits ratings, because a user who did not rate an item does not necessarily dislike it. ``bottom``:
the items that at least one list has; the items that a list lacks are tied with each other below its
last item. A correlation is undefined if fewer than two items are compared, or if one list ties all
of them. ``kendall_topk`` and ``footrule_topk`` are *distances*: a smaller value means more
agreement.

All measures raise InputError if a list has an item twice. Correlations raise ConfigError if
``missing`` is neither of the two, nor "" (what the pairs say).

docs/agreement.md compares the formulas and says which measure answers which question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pandas as pd

from recsys.errors import ConfigError, InputError, suggest_nearest
from recsys.evaluation.agreement import concordance
from recsys.evaluation.agreement import rbo as rbo_kernels
from recsys.evaluation.agreement.rankings import Pairs, RankedList, Rankings, make_pair
from recsys.evaluation.judging.names import MeasureName, parse_name, parse_names
from recsys.evaluation.testing.significance import Sums
from recsys.evaluation.topk_tables import as_frame
from recsys.ranking.rank import topk_from_table
from recsys.schema import ITEM, TOPK, USER
from recsys.types import Evaluation, IdMap


def tau_a(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-a: (concordant − discordant item pairs) / (all item pairs), in [−1, 1].

    A pair of items is concordant if both lists put the two items in the same order, and discordant
    if the lists put them in opposite orders. A pair that is tied in a list is neither. With ties,
    the value is the mean of tau-a over all ways to break the ties. Reference: Kendall, Biometrika
    1938.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared. "intersection": those that both lists have. "bottom":
            those that at least one list has; the items that a list lacks are tied below its end.
            "": what ``pairs`` says.
    """
    counts = pairs.aligned(missing).counts
    return _divide(counts.balance, counts.pairs, undefined=counts.undefined)


def tau_b(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-b: (concordant − discordant item pairs) / √(pairs untied in a · pairs untied in b), in [−1, 1].

    Concordant and discordant pairs are those of :func:`tau_a`. A pair of items is untied in a list
    if the list puts one of the two above the other. Equals ``scipy.stats.kendalltau``. Reference:
    Kendall, Biometrika 1945.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
    """
    counts = pairs.aligned(missing).counts
    untied = (counts.pairs - counts.tied_a).astype(np.float64) * (counts.pairs - counts.tied_b)
    return _divide(counts.balance, np.sqrt(untied), undefined=counts.undefined)


def tau_c(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Stuart's tau-c: (concordant − discordant item pairs) / the largest difference possible, in [−1, 1].

    The largest difference is n² (g − 1) / (2 g) for n compared items. g is the number of groups of
    tied items in the list that has fewer groups; an item without ties is a group of its own.
    Concordant and discordant pairs are those of :func:`tau_a`. The measure is meant for two lists
    that have few groups of ties, and not equally many. Equals
    ``scipy.stats.kendalltau(variant="c")``. Reference: Stuart, Biometrika 1953.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
    """
    counts = pairs.aligned(missing).counts
    groups = np.maximum(np.minimum(counts.groups_a, counts.groups_b), 1)
    largest = counts.items**2 * (groups - 1) / groups
    return _divide(2 * counts.balance, largest, undefined=counts.undefined)


def weighted_tau(pairs: Pairs, missing: str = "", additive: bool = True) -> np.ndarray:
    """Kendall's tau-b in which a pair of items at ranks r and s weighs 1/r + 1/s (not additive: 1/rs); in [−1, 1].

    Pairs of items at the top of the lists therefore count most. Ranks start at 1. An item can have
    different ranks in the two lists, so tau-b is computed twice, and the result is the mean of the
    two values. The first computation takes r and s from list a, where items tied in a are ordered
    by b. The second takes them from list b, where items tied in b are ordered by a.

    Equals ``scipy.stats.weightedtau`` of scores, where a higher score is better. If scipy gets
    ranks instead of scores, it gives the largest weights to the *bottom* of the lists. Reference:
    Vigna, WWW 2015.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
        additive: True: the weight of a pair is 1/r + 1/s. False: it is 1/(r s).
    """
    aligned = pairs.aligned(missing)
    by_a, by_b = (
        concordance.hyperbolic_tau(order.keys, order.starts, order.sizes, additive)
        for order in (aligned, aligned.swapped)
    )
    return np.where(aligned.counts.undefined, np.nan, (by_a + by_b) / 2)


def tau_ap(pairs: Pairs, missing: str = "", ties: str = "a", symmetric: bool = False) -> np.ndarray:
    """AP correlation: a rank correlation where errors at the top cost most; list a is the reference; in [−1, 1].

    AP stands for average precision. List a is the first list of a pair. For n items the value is
    2/(n − 1) Σ_{i≥2} C(i)/(i − 1) − 1, where i is a position of list b, from 1. C(i) is the number
    of items of b above position i that the reference also ranks above the item at position i.
    References: Yilmaz, Aslam and Robertson, SIGIR 2008; Urbano and Marrero, ICTIR 2017 (their
    variant a allows no ties in the reference).

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
        ties: "a": the mean over all ways to break the ties. "b": a tied pair of items counts as
            disagreement, an item is compared only with the items of better groups of ties, and the
            result is the mean of two values, with each of the two lists as the reference.
        symmetric: whether the result for ``ties="a"`` is also the mean of two values, with each of
            the two lists as the reference.

    Raises:
        ConfigError: ``ties`` is neither "a" nor "b".
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
    """Spearman's rho: the Pearson correlation of the items' ranks in the two lists (ties: mean rank), in [−1, 1].

    Equals ``scipy.stats.spearmanr``. Reference: Spearman, American Journal of Psychology 1904.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
    """
    aligned = pairs.aligned(missing)
    cross, squares_a, squares_b = concordance.rank_cross_products(
        aligned.keys,
        aligned.starts,
        aligned.sizes,
    ).T
    return _divide(cross, np.sqrt(squares_a * squares_b), undefined=aligned.counts.undefined)


def footrule(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Spearman's footrule as a similarity of n items: 1 − Σ |rank in a − rank in b| / ⌊n²/2⌋, in [0, 1].

    The value is 1 for equal orders, and 0 if one list is the reverse of the other. Tied items share
    their mean rank. Reference: Diaconis and Graham, JRSS B 1977.

    The result is float64[m], NaN if fewer than two items are compared, or if a list ties all of
    them.

    Args:
        pairs: m pairs of lists.
        missing: which items are compared, see :func:`tau_a`.
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
    """Rank-biased overlap: a weighted mean, over depths d, of the agreement of the first d positions; in [0, 1].

    It is (1 − p) Σ_d p^(d−1) A_d. Without ties, the agreement A_d is the number of items that both
    lists have in their first d positions, divided by d. The two lists are taken as the observed
    beginnings of endless lists. The result is float64[m], NaN if a list is empty. The module
    ``recsys.evaluation.agreement.rbo`` has the formulas and the references.

    Args:
        pairs: m pairs of lists.
        p: the probability that a reader goes on from one depth to the next. The first 1/(1 − p)
            positions have most of the weight.
        ties: the variant for tied items, "w", "a" or "b", see that module.
        score: "ext": the value if the rest of the lists agrees as much as the observed part.
            "min": the smallest possible value. "res": the largest possible value minus the
            smallest.

    Raises:
        ConfigError: ``p`` is not between 0 and 1, or ``ties`` or ``score`` is unknown.
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
    """Fagin's Kendall distance K^(p): the discordant item pairs, plus p per pair tied in exactly one list; ≥ 0.

    A smaller value means more agreement. The items that at least one list has are compared. The
    items that a list lacks are tied with each other below its last item. The result is float64[m],
    NaN if both lists are empty. Reference: Fagin, Kumar and Sivakumar, SIAM J. Discrete Math. 2003.

    Args:
        pairs: m pairs of lists.
        p: the penalty in [0, 1] for a pair whose order in one list is unknown. 0.5 is the expected
            cost if both orders are equally likely, 0 assumes that the lists agree.
        k: the number of first items that are kept of each list; a group of ties at position k is
            kept whole. None: all.

    Raises:
        ConfigError: ``p`` is outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"kendall_topk: p is {p}; it must lie between 0 and 1")
    counts = pairs.cut(k).aligned("bottom").counts
    tied_once = counts.tied_a + counts.tied_b - 2 * counts.tied_both
    return np.where(counts.items == 0, np.nan, counts.discordant + p * tied_once)


def footrule_topk(pairs: Pairs, location: float | None = None, k: int | None = None) -> np.ndarray:
    """Fagin's footrule distance F^(l): Σ |rank in a − rank in b| over the items that at least one list has; ≥ 0.

    A smaller value means more agreement. Tied items share their mean rank. The result is
    float64[m], NaN if both lists are empty. Reference: as for :func:`kendall_topk`.

    Args:
        pairs: m pairs of lists.
        location: the rank that a list gives to each item it does not have. None: one more than
            the length of the longer list of the pair.
        k: number of first items that are kept of each list; a group of ties at position k is kept
            whole. None: all.

    Raises:
        ConfigError: ``location`` is at most the length of some list, after the cut at ``k``.
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
    """Number of items that both lists have, divided by the mean length of the lists (cut at k, if given); in [0, 1].

    For two lists of at least k items without ties this is the share of the first k items that are
    common. If position k is inside a group of ties, the whole group is kept. The result is
    float64[m], NaN if both lists are empty.

    Args:
        pairs: m pairs of lists.
        k: the number of first items that are kept of each list. None: all.
    """
    pairs = pairs.cut(k)
    a_lengths, b_lengths = pairs.lengths
    total = a_lengths + b_lengths
    return _divide(2 * pairs.common, total, undefined=total == 0)


def jaccard(pairs: Pairs, k: int | None = None) -> np.ndarray:
    """Number of items that both lists have / number that at least one has (lists cut at k, if given); in [0, 1].

    If position k is inside a group of ties, the whole group is kept. The result is float64[m], NaN
    if both lists are empty.

    Args:
        pairs: m pairs of lists.
        k: the number of first items that are kept of each list. None: all.
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
"""Name of a measure of agreement -> the function that computes it."""
DISTANCES = ("kendall_topk", "footrule_topk")
"""The names of the measures for which a smaller value means more agreement."""

MIN_PAIRS_FOR_THREADS = 256
"""Smallest number of pairs of lists for which several threads are used. For fewer pairs, starting
the threads would take longer than the computation."""


def _divide(numerator: np.ndarray, denominator: np.ndarray, *, undefined: np.ndarray) -> np.ndarray:
    """Return numerator / denominator as float64, NaN where ``undefined`` is True."""
    quotient = np.asarray(numerator, dtype=np.float64) / np.where(undefined, 1.0, denominator)
    return np.where(undefined, np.nan, quotient)


@dataclass(frozen=True)
class Measure(MeasureName):
    """A measure of agreement with its options.

    Calling it with :class:`Pairs` returns its values. ``str`` returns its name.

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
        """The definition of the measure, in one line for reports.

        It is the first line of the docstring of the measure's function, then a sentence for each
        option in the name.
        """
        return self.describe(MEASURES[self.name])


def parse_measure(text: str) -> Measure:
    """Parse the name of a measure of agreement, and return the measure.

    Args:
        text: the name, for example ``rbo[p=0.8]`` or ``overlap@10``.

    Raises:
        ConfigError: the name or an option is unknown (the message suggests the most similar one),
            the value of an option is not valid, or a cut-off is given for a measure that has none.
    """
    measure = parse_name(text, MEASURES, Measure)
    # Measures check the values of their options when they are called.
    measure(make_pair([], []))
    return measure


def parse_measures(texts: Iterable[str]) -> list[Measure]:
    """Parse the names of several measures of agreement, and return the measures in the same order.

    Args:
        texts: names as :func:`parse_measure` reads them.

    Raises:
        ConfigError: names are not valid (one message lists all of them), or a measure is named
            twice.
    """
    return parse_names(texts, parse_measure)


def compute_measures(pairs: Pairs, measures: Iterable[Measure]) -> dict[str, np.ndarray]:
    """Return a dict with the values of each measure: name -> float64[m], one value per pair of lists.

    The local engine and the Spark engine both call this function.

    Args:
        pairs: m pairs of lists.
        measures: the measures. Their values are NaN where they are undefined.
    """
    return {str(measure): measure(pairs) for measure in measures}


def agree(a: RankedList, b: RankedList, measure: str) -> float:
    """Return the value of a measure of agreement for two ranked lists, NaN if it is undefined.

    Args:
        a, b: two ranked lists. Each has one of two forms: a sequence of ids, best first, in which a
            nested list or tuple is a group of ties; or scores by id (a dict or a Series), where a
            higher score is better.
        measure: the name of one of :data:`MEASURES`, with options or a cut-off, such as
            ``tau_b[missing=bottom]`` or ``overlap@10``. By default, correlations compare only the
            items that both lists have.

    Raises:
        ConfigError: the name or an option is not valid.
        InputError: a list has an id twice, or a score is NaN.

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
        missing: "intersection" compares only the items that both lists have. "bottom" compares the
            items that at least one list has; the items that a list lacks are tied below its end.

    Raises:
        ConfigError: ``variant`` or ``missing`` is none of these.
        InputError: a list has an id twice, or a score is NaN.

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
    """Compare the lists of two top-k tables (user_id, item_id, rank) for each user.

    Correlations use ``missing=bottom`` by default: the items that a list lacks are tied below its
    end. The scores in the tables are not used, so no items of a list are tied.

    Args:
        a, b: two tables, of pandas, Polars or Arrow.
        measures: names of measures, such as ``tau_b`` or ``overlap@10``.
        name: the name of the result.

    Returns:
        An Evaluation. Its ``per_user`` has one row for every user who is in at least one table, with
        the columns user_id, n_a and n_b (the lengths of the user's two lists), n_common (the number
        of items that both lists have), and one column per measure. Its ``about`` has the definitions
        of the measures, the numbers of users without a list in a or in b, and for each measure the
        number of users for whom it is undefined.

    Raises:
        InputError: a column is missing, the ids are of two types, an item or a rank occurs twice in
            a list, or both tables are empty.
        ConfigError: the name of a measure is not valid.
    """
    a = as_frame(a, "the first table")
    b = as_frame(b, "the second table")
    TOPK.require(a.columns, "the first table")
    TOPK.require(b.columns, "the second table")
    users = IdMap.from_ids(a[USER], b[USER])
    items = IdMap.from_ids(a[ITEM], b[ITEM])
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


def describe_agreement(measures: Sequence[Measure], sums: Sums, counts: dict[str, int]) -> dict[str, Any]:
    """Return what ``recsys agree --json`` prints for two tables of lists, a dict.

    The dict has two keys. Its entry "measures" is: name of a measure -> a dict of ``mean``, ``ci95``
    (the 95 % interval) and ``users`` (the number of users for whom the measure is defined). Its entry
    "about" has ``definitions`` (name of a measure -> text) and ``counts``: ``without_a``,
    ``without_b``, and for each measure "undefined NAME".

    Args:
        measures: the measures.
        sums: the sums over users of one column per measure, in the same order. Further columns are
            ignored.
        counts: numbers of users. ``users``: in at least one table; ``without_a``, ``without_b``:
            without a list in the first or in the second table.
    """
    mean, low, high = sums.intervals()
    cells = {}
    counts = dict(counts)
    n_users = counts.pop("users")
    for column, measure in enumerate(measures):
        defined = int(sums.count[column])
        cells[str(measure)] = {"mean": mean[column], "ci95": [low[column], high[column]], "users": defined}
        counts[f"undefined {measure}"] = n_users - defined
    definitions = {str(measure): measure.definition for measure in measures}
    return {"measures": cells, "about": {"definitions": definitions, "counts": counts}}
