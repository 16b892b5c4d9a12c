"""Agreement of ranked lists: a measure is a function of :class:`Pairs` that gives one number a pair, NaN = undefined.

A name is both the request and the label, ``tau_b``, ``rbo[p=0.8,ties=b]``, ``overlap@10``, read by :func:`parse`.
Correlations compare the items of both lists (``missing=intersection``: what somebody did not rate is not what they
dislike), or of either (``missing=bottom``: what a list leaves out is tied below its end); they are undefined for fewer
than two such items and when a list ties all of them. ``kendall_topk`` and ``footrule_topk`` are distances. Formulas
side by side, and which measure answers which question: docs/agreement.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd

from recsys.errors import ConfigError, InputError, nearest
from recsys.evaluation.agreement import concordance
from recsys.evaluation.agreement import rbo as _rbo
from recsys.evaluation.agreement.rankings import Pairs, Ranked, Rankings, pair
from recsys.evaluation.judging.names import MeasureName, parse_name, parse_names
from recsys.ranking.rank import topk_from_table
from recsys.schema import ITEM, TOPK, USER
from recsys.types import Evaluation, IdMap


def tau_a(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-a: (concordant − discordant) / all pairs of items, in [−1, 1].

    A pair tied in a list counts as half agreed: the mean over all ways to break ties. Reference: Kendall 1938.
    """
    counts = pairs.aligned(missing).counts
    return _defined(counts.undefined, counts.balance, counts.pairs)


def tau_b(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Kendall's tau-b: (concordant − discordant) / √(pairs untied in a · pairs untied in b), in [−1, 1].

    Equals ``scipy.stats.kendalltau``. Reference: Kendall, Biometrika 1945.
    """
    counts = pairs.aligned(missing).counts
    untied = (counts.pairs - counts.tied_a).astype(np.float64) * (counts.pairs - counts.tied_b)
    return _defined(counts.undefined, counts.balance, np.sqrt(untied))


def tau_c(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Stuart's tau-c: 2 (concordant − discordant) / (n² (g − 1) / g), in [−1, 1].

    n items, g the smaller number of groups of ties; meant for lists with few, different numbers of groups. Equals
    ``scipy.stats.kendalltau(variant="c")``. Reference: Stuart, Biometrika 1953.
    """
    counts = pairs.aligned(missing).counts
    groups = np.maximum(np.minimum(counts.groups_a, counts.groups_b), 1)
    return _defined(counts.undefined, 2 * counts.balance, counts.items**2 * (groups - 1) / groups)


def weighted_tau(pairs: Pairs, missing: str = "", additive: bool = True) -> np.ndarray:
    """Weighted tau-b: a pair of items at ranks r, s weighs 1/r + 1/s (or, not ``additive``, 1/rs), in [−1, 1].

    The mean of ranking items by the first list (ties by the second) and by the second (ties by the first). Equals
    ``scipy.stats.weightedtau`` of scores that are high for the best; of ranks it would weigh the *bottom* most.
    Reference: Vigna, WWW 2015.
    """
    aligned = pairs.aligned(missing)
    both = [concordance.weighted_tau(side.keys, side.start, side.size, additive) for side in (aligned, aligned.swapped)]
    return np.where(aligned.counts.undefined, np.nan, (both[0] + both[1]) / 2)


def tau_ap(pairs: Pairs, missing: str = "", ties: str = "a", symmetric: bool = False) -> np.ndarray:
    """AP correlation 2/(n − 1) Σ_{i≥2} C(i)/(i − 1) − 1, in [−1, 1]; the *first* list is the reference.

    C(i): items above place i of the second list that the reference too puts above the item there; so disorder at the
    top costs most. ``symmetric``: the mean of both directions. ``ties=a``: the mean over all ways to break them;
    ``ties=b``: a tie agrees with nothing, items of the top group are not asked for, and the value is symmetric.
    References: Yilmaz, Aslam and Robertson, SIGIR 2008; Urbano and Marrero, ICTIR 2017 (who allow no ties in the
    reference under a).
    """
    if ties not in ("a", "b"):
        raise ConfigError(f"tau_ap: ties is {ties!r}.{nearest(ties, 'ab')}")
    aligned = pairs.aligned(missing)
    sides = [aligned.swapped, aligned] if symmetric or ties == "b" else [aligned.swapped]
    found = [concordance.average_precision(side.keys, side.start, side.size, ties == "a") for side in sides]
    return np.where(aligned.counts.undefined, np.nan, sum(found) / len(found))


def spearman(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Spearman's rho: the correlation of the ranks, ties sharing their mean rank, in [−1, 1].

    Equals ``scipy.stats.spearmanr``. Reference: Spearman 1904.
    """
    aligned = pairs.aligned(missing)
    products, a, b = concordance.rank_products(aligned.keys, aligned.start, aligned.size).T
    return _defined(aligned.counts.undefined, products, np.sqrt(a * b))


def footrule(pairs: Pairs, missing: str = "") -> np.ndarray:
    """Spearman's footrule as agreement: 1 − Σ |rank in a − rank in b| / ⌊n²/2⌋, in [0, 1]; 0 = reversed.

    Ties share their mean rank. Reference: Diaconis and Graham, JRSS B 1977.
    """
    aligned = pairs.aligned(missing)
    nowhere = np.full(len(pairs), np.inf)
    distance = concordance.rank_distance(aligned.keys, aligned.start, aligned.size, nowhere, nowhere, nowhere)
    most = aligned.size**2 // 2
    return _defined(aligned.counts.undefined, most - distance, most)


def rbo(pairs: Pairs, p: float = 0.9, ties: str = "a", score: str = "ext") -> np.ndarray:
    """Rank-biased overlap (1 − p) Σ_d p^(d−1) A_d of lists that go on beyond what is seen, in [0, 1].

    ``p``: chance that the reader goes on to the next depth; the first 1/(1 − p) places weigh most. ``score``: ``ext``
    goes on with the agreement seen, ``min`` is what is certain, ``res`` how much more the unseen could add. ``ties``:
    w, a or b, see ``recsys.evaluation.agreement.rbo``. Undefined when a list is empty. References there.
    """
    variants, scores = {"w": _rbo.W, "a": _rbo.A, "b": _rbo.B}, ("ext", "min", "res")
    if not 0 < p < 1:
        raise ConfigError(f"rbo: p is {p}; it must lie strictly between 0 and 1")
    if ties not in variants or score not in scores:
        hint = nearest(ties, variants) if ties not in variants else nearest(score, scores)
        raise ConfigError(f"rbo: ties is {ties!r} and score is {score!r}.{hint}")
    a, b = pairs.a, pairs.b
    sides = (a.items, a.level, a.offsets, *a.table, b.items, b.level, b.offsets, *b.table)
    extrapolated, least, greatest = _rbo.bounds(*sides, pairs.left, pairs.right, p, variants[ties]).T
    return {"ext": extrapolated, "min": least, "res": greatest - least}[score]


def kendall_topk(pairs: Pairs, p: float = 0.5, k: int | None = None) -> np.ndarray:
    """Fagin's K^(p) *distance*: pairs in opposite order, plus p for each pair tied in exactly one list; ≥ 0.

    Over the items of either list; what a list misses is tied below its end. ``p`` = 0.5 takes an unknown order for a
    coin toss, 0 for agreement. ``k``: cut both lists first. Undefined when both are empty. Reference: Fagin, Kumar and
    Sivakumar, SIAM J. Discrete Math. 2003.
    """
    if not 0 <= p <= 1:
        raise ConfigError(f"kendall_topk: p is {p}; it must lie between 0 and 1")
    aligned = pairs.cut(k).aligned("bottom")
    counts = aligned.counts
    return _defined(counts.items == 0, counts.discordant + p * (counts.tied_a + counts.tied_b - 2 * counts.tied_both))


def footrule_topk(pairs: Pairs, location: float | None = None, k: int | None = None) -> np.ndarray:
    """Fagin's F^(l) *distance*: Σ |rank in a − rank in b| over the items of either list; ≥ 0.

    An item that a list misses stands at ``location`` (default: one past the end of the longer list). Ties share their
    mean rank. ``k``: cut both lists first. Undefined when both lists are empty. Reference: as ``kendall_topk``.
    """
    pairs = pairs.cut(k)
    aligned, (a, b) = pairs.aligned("bottom"), pairs.lengths
    longer = np.maximum(a, b)
    if location is not None and len(pairs) and location <= longer.max():
        raise ConfigError(f"footrule_topk: location is {location:g}, but a list has {longer.max()} items; go past it")
    at = longer + 1.0 if location is None else np.full(len(pairs), float(location))
    return _defined(longer == 0, concordance.rank_distance(aligned.keys, aligned.start, aligned.size, a, b, at))


def overlap(pairs: Pairs, k: int | None = None) -> np.ndarray:
    """Items of both lists over the mean length of the two, each cut at k; in [0, 1].

    For lists of k places or more, without ties across the cut, it is |A ∩ B| / k. Undefined when both are empty.
    """
    pairs = pairs.cut(k)
    a, b = pairs.lengths
    return _defined(a + b == 0, 2 * pairs.common, a + b)


def jaccard(pairs: Pairs, k: int | None = None) -> np.ndarray:
    """Items of both lists over items of either, |A ∩ B| / |A ∪ B|, each list cut at k; in [0, 1].

    A tie that crosses the cut stays whole. Undefined when both lists are empty.
    """
    pairs = pairs.cut(k)
    a, b = pairs.lengths
    return _defined(a + b == 0, pairs.common, a + b - pairs.common)


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
"""Where less is closer."""

WORTH_THREADS = 256
"""With fewer pairs, waking the other cores takes longer than the work."""


def _defined(undefined: np.ndarray, values: np.ndarray, over: np.ndarray | None = None) -> np.ndarray:
    """Return values / over, NaN where undefined."""
    found = np.asarray(values, dtype=np.float64) / (1.0 if over is None else np.where(undefined, 1.0, over))
    return np.where(undefined, np.nan, found)


@dataclass(frozen=True)
class Measure(MeasureName):
    """A measure with its options; call it on Pairs, ``str`` gives the name back.

    >>> str(parse("rbo[p=0.5]"))
    'rbo[p=0.5]'
    """

    def __call__(self, pairs: Pairs) -> np.ndarray:
        """Return float64[m]; NaN = undefined."""
        threads = numba.get_num_threads()
        numba.set_num_threads(threads if len(pairs) >= WORTH_THREADS else 1)
        try:
            return MEASURES[self.name](pairs, **self.arguments())
        finally:
            numba.set_num_threads(threads)

    @property
    def definition(self) -> str:
        """One line that says what is computed."""
        return (inspect.getdoc(MEASURES[self.name]) or "").split("\n")[0]


def parse(text: str) -> Measure:
    """Return the measure that a name asks for.

    Raises:
        ConfigError: unknown name or option (the nearest one is named), a bad value, or a needless cut-off.
    """
    measure = parse_name(text, MEASURES, Measure)
    measure(pair([], []))
    return measure


def parse_all(texts: Iterable[str]) -> list[Measure]:
    """Parse every name; all bad ones are reported in one ConfigError."""
    return parse_names(texts, parse)


def agree(a: Ranked, b: Ranked, measure: str) -> float:
    """Return how far two ranked lists agree, NaN = undefined.

    Args:
        a, b: ids best first, a list or tuple among them being a group of ties; or id -> score, high = best.
        measure: a name, such as ``tau_b[missing=bottom]``.

    >>> agree(["x", "y", "z"], ["y", "x", "z"], "tau_ap")
    0.0
    >>> agree(["x", ["y", "z"]], {"z": 5, "x": 9, "y": 1}, "tau_a")
    0.6666666666666666
    """
    return float(parse(measure)(pair(a, b))[0])


def kendall_tau(a: Ranked, b: Ranked, *, variant: str = "b", missing: str = "intersection") -> float:
    """Return Kendall's tau-a, -b or -c of two ranked lists; see :func:`agree`.

    >>> round(kendall_tau({"v": 12, "w": 2, "x": 1, "y": 12, "z": 2}, {"v": 1, "w": 4, "x": 7, "y": 1, "z": 0}), 4)
    -0.4714
    """
    return agree(a, b, f"tau_{variant}[missing={missing}]")


def agree_tables(a: pd.DataFrame, b: pd.DataFrame, measures: Iterable[str], *, name: str = "agreement") -> Evaluation:
    """Compare two topk tables (user_id, item_id, rank) user by user; what a list misses is below its end by default.

    Returns:
        per_user: user_id, n_a, n_b, n_common, then the measures; a row for every user of either table.
        about: definitions; how many users have no list in a or in b, and for how many each measure is undefined.

    Raises:
        InputError: a missing column, ids of two kinds, an item or a rank twice in a list.
    """
    for table, which in ((a, "the first table"), (b, "the second table")):
        TOPK.require(table.columns, which)
    users, items = IdMap.of(a[USER], b[USER]), IdMap.of(a[ITEM], b[ITEM])
    if not len(users):
        raise InputError("both tables are empty: there is nobody to compare")
    lists_a, lists_b = (Rankings.of_topk(topk_from_table(table, users, items)) for table in (a, b))
    pairs = Pairs.row_by_row(lists_a, lists_b, "bottom")
    chosen = parse_all(measures)
    found = score(pairs, chosen)
    undefined = {f"undefined {measure}": int(np.isnan(values).sum()) for measure, values in found.items()}
    n_a, n_b = pairs.lengths
    columns = {USER: users.all_ids, "n_a": n_a, "n_b": n_b, "n_common": pairs.common}
    counts = {"without_a": int((n_a == 0).sum()), "without_b": int((n_b == 0).sum())} | undefined
    definitions = {str(measure): measure.definition for measure in chosen}
    return Evaluation(name, pd.DataFrame(columns | found), {"definitions": definitions, "counts": counts})


def score(pairs: Pairs, measures: list[Measure]) -> dict[str, np.ndarray]:
    """Return measure -> float64[m]; both engines call this."""
    return {str(measure): measure(pairs) for measure in measures}
