"""Studies of the agreement measures on simulated preferences whose true order is known.

Measures have different scales, so the lab compares *scaled* values: the value of the measure is
mapped linearly, so that its mean over pairs of independent orders becomes 0, and its value for two
identical lists becomes 1. The same seed gives the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from recsys.evaluation.agreement.measures import kendall_topk
from recsys.evaluation.agreement.rankings import Pairs, Rankings
from recsys.evaluation.lab import simulate
from recsys.evaluation.testing.independence import kendall_pvalues, spearman_pvalues

MeasureFunction = Callable[[Pairs], np.ndarray]
"""A measure of agreement: a function of m pairs of lists that returns float64[m]."""

STUDIED_MEASURES = (
    "tau_b",
    "tau_b[missing=bottom]",
    "weighted_tau",
    "tau_ap",
    "spearman",
    "footrule",
    "rbo",
    "rbo[p=0.7]",
    "kendall_topk@10",
    "footrule_topk@10",
    "overlap@10",
    "jaccard@10",
)
"""The names of the measures that ``recsys lab`` studies."""
DISPERSIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)
"""The dispersions of the Mallows model (:func:`.simulate.sample_mallows`) in the studies. 0 gives
random orders, the largest one gives orders that are close to the true order."""
SHUFFLED_POSITIONS = 5
"""The number of positions at one end of a list that are shuffled in the study of power."""


@dataclass(frozen=True)
class LabSettings:
    """The sizes of the simulations.

    Attributes:
        items: the number of items of a list.
        pairs: the number of pairs of lists that are simulated for each kind and strength of noise.
        users: the number of values per system in one experiment of :func:`rejection_rate`.
        experiments: the number of experiments from which the size or the power of a test is
            estimated.
        seed: the seed of all random numbers.
    """

    items: int = 30
    pairs: int = 4000
    users: int = 30
    experiments: int = 10_000
    seed: int = 0


class ScaledMeasure:
    """A measure of agreement that is scaled to 0 for random orders and 1 for identical lists.

    A scaled value is (value − chance) / (perfect − chance).

    Attributes:
        perfect: the value of the measure for the true order and itself.
        chance: the mean value for the true order and random orders.
        truth: int64[items], the true order: 0, 1, 2 …
        measure: the measure.
        settings: the sizes of the simulations.
    """

    def __init__(self, measure: MeasureFunction, settings: LabSettings) -> None:
        self.measure = measure
        self.settings = settings
        self.truth = np.arange(settings.items)
        true_list = Rankings.from_padded(self.truth[None, :])
        self.perfect = float(self.raw(true_list, true_list)[0])
        independent = Rankings.from_padded(self.mallows(0.0))
        self.chance = float(np.nanmean(self.raw(self._true_lists(len(independent)), independent)))

    def mallows(self, dispersion: float) -> np.ndarray:
        """Return random orders of the items from the Mallows model, int64[pairs, items].

        A larger dispersion gives orders that are closer to the true order. The orders depend only on
        the settings and the dispersion, rounded to 0.001. So they are the same for all measures.
        """
        rng = np.random.default_rng([self.settings.seed, round(1000 * dispersion)])
        return simulate.sample_mallows(rng, self.settings.pairs, self.settings.items, dispersion)

    def raw(self, a: Rankings, b: Rankings) -> np.ndarray:
        """Return the value of the measure, not scaled, for list i of a and list i of b, float64[m].

        It is NaN where the measure is undefined.

        Args:
            a: m lists.
            b: m lists.

        Raises:
            ValueError: a and b do not have the same number of lists.
        """
        return np.asarray(self.measure(Pairs.row_by_row(a, b)), dtype=np.float64)

    def scaled(self, lists: np.ndarray | Rankings, reference: Rankings | None = None) -> np.ndarray:
        """Return the scaled value of the measure for each of m lists and its reference, float64[m].

        It is NaN where the measure is undefined.

        Args:
            lists: m lists, as Rankings, or as int[m, k], the items of each list, best first.
            reference: m lists; list i is compared with list i of ``lists``. None: each list is
                compared with the true order.
        """
        if isinstance(lists, Rankings):
            rankings = lists
        else:
            rankings = Rankings.from_padded(lists)
        if reference is None:
            reference = self._true_lists(len(rankings))
        return (self.raw(reference, rankings) - self.chance) / (self.perfect - self.chance)

    def _true_lists(self, count: int) -> Rankings:
        return Rankings.from_padded(np.tile(self.truth, (count, 1)))


def run_lab(
    measures: Mapping[str, MeasureFunction],
    settings: LabSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run all studies, and return their results as a dict that is ready for JSON.

    Its keys are ``about`` (the settings), ``mallows`` (:func:`check_mallows_distances`), ``tests``
    (:func:`independence_test_sizes`) and ``measures`` (name -> :func:`study_measure`).

    Args:
        measures: name -> measure.
        settings: the sizes of the simulations. None: the defaults of :class:`LabSettings`.
        progress: called after each measure with ("lab", number of measures done, number of all
            measures).
    """
    settings = settings or LabSettings()
    results = {}
    for done, (name, measure) in enumerate(measures.items(), start=1):
        results[name] = study_measure(measure, settings)
        if progress:
            progress("lab", done, len(measures))
    return {
        "about": asdict(settings) | {"dispersions": list(DISPERSIONS)},
        "mallows": check_mallows_distances(settings),
        "tests": independence_test_sizes(settings),
        "measures": results,
    }


def check_mallows_distances(settings: LabSettings) -> list[dict[str, float]]:
    """Compare the mean Kendall distance of simulated Mallows orders with its exact expectation.

    The Kendall distance of an order is its number of item pairs that are not in the true order. The
    result has a dict for each of :data:`DISPERSIONS`: ``dispersion``; ``mean``, the mean distance
    of ``settings.pairs`` simulated orders; ``expected``, its exact expectation; and ``z``, ``mean``
    − ``expected`` in standard errors. If the simulation is right, ``z`` is mostly between −2 and 2.
    """
    kendall_distance = ScaledMeasure(lambda pairs: kendall_topk(pairs, p=0.0), settings)
    truth = Rankings.from_padded(np.tile(kendall_distance.truth, (settings.pairs, 1)))
    rows = []
    for dispersion in DISPERSIONS:
        orders = Rankings.from_padded(kendall_distance.mallows(dispersion))
        distance = kendall_distance.raw(truth, orders)
        standard_error = distance.std(ddof=1) / np.sqrt(len(distance))
        expected = simulate.expected_mallows_distance(settings.items, dispersion)
        z = (distance.mean() - expected) / standard_error
        rows.append(
            {
                "dispersion": dispersion,
                "mean": float(distance.mean()),
                "expected": expected,
                "z": float(z),
            }
        )
    return rows


def independence_test_sizes(settings: LabSettings) -> dict[str, float]:
    """Return the size of each test of independence at the level 5 %, as a dict: test -> size in [0, 1].

    The size of a test is the probability that it rejects a hypothesis that is true. Here it is the
    share of ``settings.experiments`` pairs of independent random orders with a p-value ≤ 0.05. It
    should be about 0.05. The tests are ``kendall_test`` and ``spearman_test``.
    """
    rng = np.random.default_rng([settings.seed, 100])
    a, b = (simulate.sample_mallows(rng, settings.experiments, settings.items, 0.0) for _ in range(2))
    pairs = Pairs.row_by_row(Rankings.from_padded(a), Rankings.from_padded(b))
    tests = {"kendall_test": kendall_pvalues, "spearman_test": spearman_pvalues}
    return {name: float(np.mean(pvalues(pairs) <= 0.05)) for name, pvalues in tests.items()}


def study_measure(measure: MeasureFunction, settings: LabSettings) -> dict[str, Any]:
    """Run all studies of one measure, and return the results as a dict that is ready for JSON.

    The lists of the studies are noisy copies of the true order. Each is compared with the true
    order. The first two entries are values of the measure itself:

    * ``perfect``: the value of the true order compared with itself, a number.
    * ``chance``: the mean value of random orders, a number.

    All other entries are computed from scaled values, (value − chance) / (perfect − chance). A loss
    is 1 minus a scaled value.

    * ``curve``: a list with the mean for each of :data:`DISPERSIONS`.
    * ``spread``: the standard deviation of the scaled values for the dispersion 0.1.
    * ``swap``: a dict. ``top`` is the loss if the first two items are exchanged, ``bottom`` the loss
      if the last two items are exchanged.
    * ``shuffle``: a dict. ``top`` is the mean loss if the first third of the list is shuffled,
      ``bottom`` the mean loss if the last third is shuffled.
    * ``top_weight``: the loss ``top`` of ``shuffle`` divided by the sum of ``top`` and ``bottom``,
      None if the sum is not above 1e-9.
    * ``observed``: the result of :func:`partial_list_errors`.
    * ``power``: the result of :func:`discriminative_power`.
    * ``null``: the result of :func:`rejection_rate` for two systems that are equal.
    * ``failed``: the result of :func:`failed_checks`.

    Args:
        measure: the measure.
        settings: the sizes of the simulations.
    """
    scaled = ScaledMeasure(measure, settings)
    n = settings.items
    curve = [float(np.nanmean(scaled.scaled(scaled.mallows(dispersion)))) for dispersion in DISPERSIONS]
    noisy = scaled.scaled(scaled.mallows(0.1))
    # One generator serves the random studies below, so their order decides their numbers.
    rng = np.random.default_rng([settings.seed, 200])
    top_swap, bottom_swap = (1 - scaled.scaled(swap_neighbours(n, position))[0] for position in (0, n - 2))
    third = n // 3
    top_loss, bottom_loss = (
        1
        - np.nanmean(
            scaled.scaled(simulate.shuffle_positions(rng, settings.pairs, n, start, start + third)),
        )
        for start in (0, n - third)
    )
    top_weight = None
    if top_loss + bottom_loss > 1e-9:
        top_weight = float(top_loss / (top_loss + bottom_loss))
    return {
        "perfect": scaled.perfect,
        "chance": scaled.chance,
        "curve": curve,
        "spread": float(np.nanstd(noisy)),
        "swap": {"top": float(top_swap), "bottom": float(bottom_swap)},
        "shuffle": {"top": float(top_loss), "bottom": float(bottom_loss)},
        "top_weight": top_weight,
        "observed": partial_list_errors(scaled, rng),
        "power": discriminative_power(scaled, rng),
        "null": rejection_rate(rng, noisy, noisy, settings),
        "failed": failed_checks(scaled, curve, top_swap, bottom_swap),
    }


def swap_neighbours(n: int, position: int) -> np.ndarray:
    """Return the true order of n items with two neighbours exchanged, int64[1, n].

    The neighbours are the items at ``position`` (from 0) and ``position + 1``.

    >>> swap_neighbours(4, 1).tolist()
    [[0, 2, 1, 3]]
    """
    order = np.arange(n)
    order[[position, position + 1]] = order[[position + 1, position]]
    return order[None, :]


def partial_list_errors(
    scaled: ScaledMeasure,
    rng: np.random.Generator,
) -> dict[str, dict[str, float | None]]:
    """Return how the scaled values of a measure change when lists are only partly observed.

    The lists are orders from the Mallows model with the dispersion 0.2. The list and the true order
    are both observed only in part, in three ways: cut at half their length (``truncated``), tied in
    groups of three (``tied``), or with each item removed with probability 1/3, independently in
    both (``subsampled``). The error of a list is the scaled value of the observed lists minus that
    of the complete lists. Each of these entries of the result is a dict: the mean of the error
    (``bias``) and its standard deviation (``spread``), both None if no list has a value, and the
    share of lists without a value (``undefined``).

    Two more entries have the ``mean`` and the standard deviation (``spread``) of the scaled values
    for other kinds of noise: ratings in five grades by two people (``rerated``), and lists from the
    Plackett-Luce model (``plackett_luce``).

    Args:
        scaled: the measure.
        rng: the source of random numbers.
    """
    n = scaled.settings.items
    orders = scaled.mallows(0.2)
    truth = np.tile(scaled.truth, orders.shape[0]).reshape(orders.shape)
    complete = scaled.scaled(orders)
    observed = {
        "truncated": (
            Rankings.from_padded(truth).cut(n // 2),
            Rankings.from_padded(orders).cut(n // 2),
        ),
        "tied": (simulate.tie_positions(truth, 3), simulate.tie_positions(orders, 3)),
        "subsampled": (
            simulate.drop_items(rng, truth, 1 / 3),
            simulate.drop_items(rng, orders, 1 / 3),
        ),
    }
    results: dict[str, dict[str, float | None]] = {}
    for name, (true_lists, noisy_lists) in observed.items():
        results[name] = _error(scaled.scaled(noisy_lists, reference=true_lists), complete)
    first_person, second_person = (simulate.sample_ratings(rng, len(orders), n, 0.5) for _ in range(2))
    choices = simulate.sample_plackett_luce(rng, len(orders), n, 8.0)
    results["rerated"] = _mean_and_spread(scaled.scaled(second_person, reference=first_person))
    results["plackett_luce"] = _mean_and_spread(scaled.scaled(choices))
    return results


def _error(observed: np.ndarray, complete: np.ndarray) -> dict[str, float | None]:
    """Return the mean and the standard deviation of observed − complete, and the share of NaN.

    The mean (``bias``) and the standard deviation (``spread``) are over the values that are not
    NaN. They are None if there are none. The share is ``undefined``.
    """
    is_defined = ~np.isnan(observed)
    error = (observed - complete)[is_defined]
    undefined = float(1 - is_defined.mean())
    if not len(error):
        return {"bias": None, "spread": None, "undefined": undefined}
    return {"bias": float(error.mean()), "spread": float(error.std()), "undefined": undefined}


def _mean_and_spread(values: np.ndarray) -> dict[str, float | None]:
    """Return the ``mean`` and the standard deviation (``spread``) of the values that are not NaN."""
    return {"mean": float(np.nanmean(values)), "spread": float(np.nanstd(values))}


def discriminative_power(scaled: ScaledMeasure, rng: np.random.Generator) -> dict[str, float]:
    """Return how often a test on a measure distinguishes a worse system from a better one.

    The result is a dict: kind of the worse system -> share of experiments in [0, 1]. The test is
    that of :func:`rejection_rate`. The worse system is noisier at all positions (``all``), or has
    its first (``top``) or its last (``bottom``) :data:`SHUFFLED_POSITIONS` positions shuffled.

    Args:
        scaled: the measure.
        rng: the source of random numbers.
    """
    # Fewer disturbed than elsewhere, so that the shuffled positions make the difference.
    good = scaled.mallows(0.5)
    top = good.copy()
    bottom = good.copy()
    top[:, :SHUFFLED_POSITIONS] = rng.permuted(top[:, :SHUFFLED_POSITIONS], axis=1)
    bottom[:, -SHUFFLED_POSITIONS:] = rng.permuted(bottom[:, -SHUFFLED_POSITIONS:], axis=1)
    systems = {
        "all": (scaled.mallows(0.1), scaled.mallows(0.12)),
        "top": (top, good),
        "bottom": (bottom, good),
    }
    rates = {}
    for name, (worse_orders, good_orders) in systems.items():
        rates[name] = rejection_rate(
            rng,
            scaled.scaled(worse_orders),
            scaled.scaled(good_orders),
            scaled.settings,
        )
    return rates


def rejection_rate(
    rng: np.random.Generator,
    a: np.ndarray,
    b: np.ndarray,
    settings: LabSettings,
) -> float:
    """Return the share of experiments in which Welch's t-test distinguishes two systems at 5 %.

    Each of ``settings.experiments`` experiments draws ``settings.users`` values of a and the same
    number of values of b, with replacement, from the values that are not NaN. The share is the size
    of the test if the systems are equal, and its power if they differ.

    Args:
        rng: the source of random numbers.
        a, b: float64[n], the values of a measure for the lists of each system.
        settings: the sizes of the simulations.
    """
    shape = (settings.experiments, settings.users)
    sample_a, sample_b = (rng.choice(values[~np.isnan(values)], shape) for values in (a, b))
    # Samples without variance have an undefined p-value, which does not count as a rejection.
    with np.errstate(invalid="ignore", divide="ignore"):
        pvalue = stats.ttest_ind(sample_a, sample_b, axis=1, equal_var=False).pvalue
    return float(np.mean(pvalue <= 0.05))


def failed_checks(
    scaled: ScaledMeasure,
    curve: list[float],
    top_swap: float,
    bottom_swap: float,
) -> list[str]:
    """Return one sentence for each property that the measure should have, but does not have.

    The value of a sound measure is largest for a list and itself. It does not depend on the names
    of items or on other pairs of lists. It falls as noise grows. It falls at least as much if the
    first two items are exchanged as if the last two are.

    Args:
        scaled: the measure.
        curve: the mean scaled value for each of :data:`DISPERSIONS`.
        top_swap, bottom_swap: the loss if the first two items, or the last two items, are exchanged.
    """
    orders = scaled.mallows(0.1)
    values = scaled.scaled(orders)
    # A step of the curve is the difference of two means; four standard errors of it are attributed
    # to chance.
    tolerance = 4 * float(np.nanstd(values)) * np.sqrt(2 / len(values))
    new_codes = np.random.default_rng(scaled.settings.seed).permutation(scaled.settings.items)
    renamed_truth = Rankings.from_padded(new_codes[np.tile(scaled.truth, (len(orders), 1))])
    renamed = scaled.scaled(new_codes[orders], reference=renamed_truth)
    reversed_pairs = scaled.scaled(orders[::-1])[::-1]
    failures = {
        "a list does not agree best with itself": np.nanmax(values) > 1 + 1e-9 or np.isnan(scaled.perfect),
        "the value depends on what items are called": not np.allclose(
            renamed,
            values,
            atol=1e-9,
            equal_nan=True,
        ),
        "more noise does not mean less agreement": curve[-1] <= curve[0] or min(np.diff(curve)) < -tolerance,
        "a swap at the bottom costs more than one at the top": bottom_swap > top_swap + 1e-9,
        "one pair's value depends on the other pairs": not np.allclose(
            reversed_pairs,
            values,
            atol=1e-9,
            equal_nan=True,
        ),
    }
    return [sentence for sentence, failed in failures.items() if failed]


def best_measures(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the best measure and the next one for each question of the lab, as a list of dicts.

    A dict has the ``question``, the ``figure`` by which measures are ordered (for example "most
    power"), and ``best``, a list of at most two [measure, value]. The second one is the first measure
    with another value than the best, and is missing if all values are equal. Measures that failed a
    check are left out. In questions on partial lists, a measure without a value is left out, and so
    is one with an error of at most 0.01, because it ignores the part that is not observed.

    Args:
        results: from :func:`run_lab`, with or without ``labelled``
            (``labelled.discrimination_auc``).
    """
    sound = {name: row for name, row in results["measures"].items() if not row["failed"]}
    power = {system: {name: row["power"][system] for name, row in sound.items()} for system in ("all", "top")}
    questions = [
        (
            "Which of two rankers is less noisy, at all positions alike?",
            "power",
            "most",
            power["all"],
        ),
        ("Which of two rankers has the better top?", "power", "most", power["top"]),
        (
            "How well do lists cut at half their length stand for the whole lists?",
            "error",
            "least",
            _partial_errors(sound, "truncated"),
        ),
        (
            "What if ties hide a part of the order?",
            "error",
            "least",
            _partial_errors(sound, "tied"),
        ),
        (
            "What if a third of the items is unknown, as in two people's ratings?",
            "error",
            "least",
            _partial_errors(sound, "subsampled"),
        ),
    ]
    if "labelled" in results:
        cells = results["labelled"]["measures"]
        auc = {name: cell["auc"] for name, cell in cells.items() if name in sound}
        questions.append(
            ("Is this ranking from my model or from another user's?", "AUC", "most", auc),
        )
    return [
        {
            "question": question,
            "figure": f"{direction} {figure}",
            "best": _top_two(values, smallest_first=direction == "least"),
        }
        for question, figure, direction, values in questions
    ]


def _partial_errors(measures: dict[str, Any], condition: str) -> dict[str, float]:
    """Return the root mean square error of each measure on partly observed lists: measure -> error.

    A measure with an error of at most 0.01 is left out: it ignores the part of the lists that is
    not observed, so it has no error to compare. A measure without any value is left out too.

    Args:
        measures: measure -> result of :func:`study_measure`.
        condition: the kind of observed lists, a key of :func:`partial_list_errors`.
    """
    errors = {}
    for name, row in measures.items():
        cell = row["observed"][condition]
        if cell["bias"] is None:
            continue
        error = float(np.hypot(cell["bias"], cell["spread"]))
        if error > 0.01:
            errors[name] = error
    return errors


def _top_two(values: dict[str, float], *, smallest_first: bool) -> list[list[Any]]:
    """Return the best and the second best measure as a list of at most two [measure, value].

    Measures with the same value as the best are skipped. So the second is missing if all values
    are equal.

    Args:
        values: measure -> value.
        smallest_first: whether the smallest value is the best one, and not the largest.
    """
    order = sorted(values, key=lambda name: values[name] if smallest_first else -values[name])
    second = [name for name in order[1:] if abs(values[name] - values[order[0]]) > 1e-9]
    return [[name, values[name]] for name in order[:1] + second[:1]]
