"""The lab: rank measures put to the test on simulated preferences whose truth is known.

Measures live on different scales, so the lab compares *scaled* values: 0 is what independent orders give on average, 1
what a list gives against itself. Everything is a function of the seed.
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

Score = Callable[[Pairs], np.ndarray]

MEASURES = (
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
DISPERSIONS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0)


@dataclass(frozen=True)
class Setting:
    """Size of the simulations: ``items`` a list, ``pairs`` a condition, ``experiments`` of ``users`` users a test."""

    items: int = 30
    pairs: int = 4000
    users: int = 30
    experiments: int = 10_000
    seed: int = 0


class Bench:
    """One measure's view of simulated lists: values against the true order, scaled."""

    def __init__(self, score: Score, setting: Setting) -> None:
        self.score, self.setting = score, setting
        self.truth = np.arange(setting.items)
        one = self.truth[None, :]
        self.perfect = float(self.raw(Rankings.from_padded(one), Rankings.from_padded(one))[0])
        self.chance = float(np.nanmean(self.raw(*self._against_truth(self.mallows(0.0)))))

    def mallows(self, dispersion: float) -> np.ndarray:
        """Return the orders of a dispersion; the same for every measure."""
        rng = np.random.default_rng([self.setting.seed, round(1000 * dispersion)])
        return simulate.mallows(rng, self.setting.pairs, self.setting.items, dispersion)

    def raw(self, a: Rankings, b: Rankings) -> np.ndarray:
        """Return the measure of each pair as it is."""
        return np.asarray(self.score(Pairs.row_by_row(a, b)), dtype=np.float64)

    def scaled(self, lists: np.ndarray | Rankings, against: Rankings | None = None) -> np.ndarray:
        """Return the scaled measure of each list against the truth, or against other lists."""
        a, b = self._against_truth(lists)
        return (self.raw(against or a, b) - self.chance) / (self.perfect - self.chance)

    def _against_truth(self, lists: np.ndarray | Rankings) -> tuple[Rankings, Rankings]:
        found = lists if isinstance(lists, Rankings) else Rankings.from_padded(lists)
        return Rankings.from_padded(np.tile(self.truth, (len(found), 1))), found


def run(
    measures: Mapping[str, Score],
    setting: Setting | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Return what the lab finds, ready for JSON: ``about``, ``mallows``, ``tests``, ``measures``."""
    setting = setting or Setting()
    found = {}
    for done, (name, score) in enumerate(measures.items()):
        found[name] = examine(score, setting)
        if progress:
            progress("lab", done + 1, len(measures))
    return {
        "about": asdict(setting) | {"dispersions": list(DISPERSIONS)},
        "mallows": recover(setting),
        "tests": sizes(setting),
        "measures": found,
    }


def recover(setting: Setting) -> list[dict[str, float]]:
    """Return the mean Kendall distance of Mallows' orders from the truth beside its closed form, a row a dispersion.

    ``z``: how many standard errors they are apart. The distance is the measure ``kendall_topk`` of whole lists.
    """
    bench, rows = Bench(lambda pairs: kendall_topk(pairs, p=0.0), setting), []
    truth = Rankings.from_padded(np.tile(bench.truth, (setting.pairs, 1)))
    for dispersion in DISPERSIONS:
        distance = bench.raw(truth, Rankings.from_padded(bench.mallows(dispersion)))
        error = distance.std(ddof=1) / np.sqrt(len(distance))
        expected = simulate.expected_distance(setting.items, dispersion)
        z = (distance.mean() - expected) / error
        rows.append({"dispersion": dispersion, "mean": float(distance.mean()), "expected": expected, "z": float(z)})
    return rows


def sizes(setting: Setting) -> dict[str, float]:
    """Return how often each test of independence says "related" of unrelated orders, at 5 %."""
    rng = np.random.default_rng([setting.seed, 100])
    a, b = (simulate.mallows(rng, setting.experiments, setting.items, 0.0) for _ in range(2))
    pairs = Pairs.row_by_row(Rankings.from_padded(a), Rankings.from_padded(b))
    tests = {"kendall_test": kendall_pvalues, "spearman_test": spearman_pvalues}
    return {name: float(np.mean(pvalues(pairs) <= 0.05)) for name, pvalues in tests.items()}


def examine(score: Score, setting: Setting) -> dict[str, Any]:
    """Return one measure's results; every figure but the checks is on the scale 0 = chance, 1 = perfect."""
    bench = Bench(score, setting)
    curve = [float(np.nanmean(bench.scaled(bench.mallows(dispersion)))) for dispersion in DISPERSIONS]
    noisy = bench.scaled(bench.mallows(0.1))
    rng = np.random.default_rng([setting.seed, 200])
    top, bottom = (1 - bench.scaled(one_swap(setting.items, place))[0] for place in (0, setting.items - 2))
    k = setting.items // 3
    head, tail = (
        1 - np.nanmean(bench.scaled(simulate.shuffled(rng, setting.pairs, setting.items, start, start + k)))
        for start in (0, setting.items - k)
    )
    return {
        "perfect": bench.perfect,
        "chance": bench.chance,
        "curve": curve,
        "spread": float(np.nanstd(noisy)),
        "swap": {"top": float(top), "bottom": float(bottom)},
        "shuffle": {"top": float(head), "bottom": float(tail)},
        "top_weight": float(head / (head + tail)) if head + tail > 1e-9 else None,
        "observed": observed(bench, rng),
        "power": powers(bench, rng),
        "null": rejections(rng, noisy, noisy, setting),
        "failed": checks(bench, curve, top, bottom),
    }


def one_swap(n: int, place: int) -> np.ndarray:
    """Return the true order with two neighbours exchanged, int64[1, n]."""
    order = np.arange(n)
    order[[place, place + 1]] = order[[place + 1, place]]
    return order[None, :]


def observed(bench: Bench, rng: np.random.Generator) -> dict[str, dict[str, float | None]]:
    """Return what partial sight does to a measure: ``bias``, ``spread`` of the error, ``undefined`` share.

    Truth is the value on whole lists without ties, of moderately noisy orders. Seen are: both lists cut at half, both
    with neighbours tied by threes, both without a random third of their items. How far a measure varies is shown for
    two people's five-grade ratings of one liking (``rerated``) and for choices item by item (``plackett_luce``).
    """
    n, orders = bench.setting.items, bench.mallows(0.2)
    truth = np.tile(bench.truth, orders.shape[0]).reshape(orders.shape)
    whole = bench.scaled(orders)
    seen = {
        "truncated": (Rankings.from_padded(truth).cut(n // 2), Rankings.from_padded(orders).cut(n // 2)),
        "tied": (simulate.tied(truth, 3), simulate.tied(orders, 3)),
        "subsampled": (simulate.without(rng, truth, 1 / 3), simulate.without(rng, orders, 1 / 3)),
    }
    found = {name: _error(bench.scaled(b, against=a), whole) for name, (a, b) in seen.items()}
    people = [simulate.rated(rng, len(orders), n, 0.5) for _ in range(2)]
    choices = simulate.plackett_luce(rng, len(orders), n, 8.0)
    return found | {
        "rerated": _spread(bench.scaled(people[1], against=people[0])),
        "plackett_luce": _spread(bench.scaled(choices)),
    }


def _error(seen: np.ndarray, whole: np.ndarray) -> dict[str, float | None]:
    defined = ~np.isnan(seen)
    off = (seen - whole)[defined]
    bias, spread = (float(off.mean()), float(off.std())) if len(off) else (None, None)
    return {"bias": bias, "spread": spread, "undefined": float(1 - defined.mean())}


def _spread(values: np.ndarray) -> dict[str, float | None]:
    return {"mean": float(np.nanmean(values)), "spread": float(np.nanstd(values))}


def powers(bench: Bench, rng: np.random.Generator) -> dict[str, float]:
    """Return how often a test tells two systems apart: noisier all over, or the first or last five places shuffled."""
    fine = bench.mallows(0.5)
    top, bottom = fine.copy(), fine.copy()
    top[:, :5] = rng.permuted(top[:, :5], axis=1)
    bottom[:, -5:] = rng.permuted(bottom[:, -5:], axis=1)
    systems = {"all": (bench.mallows(0.1), bench.mallows(0.12)), "top": (top, fine), "bottom": (bottom, fine)}
    return {
        where: rejections(rng, bench.scaled(worse), bench.scaled(better), bench.setting)
        for where, (worse, better) in systems.items()
    }


def rejections(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, setting: Setting) -> float:
    """Return the share of experiments in which Welch's t-test tells two systems apart at 5 %.

    Each experiment draws ``users`` values of a and as many of b. Equal sources give the size of the test, unequal ones
    its power: the discriminative power of the measure at that many users.
    """
    shape = (setting.experiments, setting.users)
    x, y = (rng.choice(values[~np.isnan(values)], shape) for values in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        pvalue = stats.ttest_ind(x, y, axis=1, equal_var=False).pvalue
    return float(np.mean(pvalue <= 0.05))


def checks(bench: Bench, curve: list[float], top: float, bottom: float) -> list[str]:
    """Return what a sound measure would not do, in words; empty when all is well."""
    orders = bench.mallows(0.1)
    values = bench.scaled(orders)
    wobble = 4 * float(np.nanstd(values)) * np.sqrt(2 / len(values))  # what chance does to a step of the curve
    rename = np.random.default_rng(bench.setting.seed).permutation(bench.setting.items)
    named = bench.scaled(rename[orders], against=Rankings.from_padded(rename[np.tile(bench.truth, (len(orders), 1))]))
    failed = {
        "a list does not agree best with itself": np.nanmax(values) > 1 + 1e-9 or np.isnan(bench.perfect),
        "the value depends on what items are called": not np.allclose(named, values, atol=1e-9, equal_nan=True),
        "more noise does not mean less agreement": curve[-1] <= curve[0] or min(np.diff(curve)) < -wobble,
        "a swap at the bottom costs more than one at the top": bottom > top + 1e-9,
        "one pair's value depends on the other pairs": not np.allclose(
            bench.scaled(orders[::-1])[::-1], values, atol=1e-9, equal_nan=True
        ),
    }
    return [what for what, holds in failed.items() if holds]


def answers(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which measures answer which question best, by the lab's own numbers; those that failed a check are out.

    ``found``: what :func:`run` returns, with ``labelled`` (``labelled.tell_apart``) or without.
    """
    sound = {name: row for name, row in found["measures"].items() if not row["failed"]}

    def off(condition: str) -> dict[str, float]:
        rows = {name: row["observed"][condition] for name, row in sound.items()}
        errors = {name: float(np.hypot(c["bias"], c["spread"])) for name, c in rows.items() if c["bias"] is not None}
        return {name: error for name, error in errors.items() if error > 0.01}  # else it only looks at what is seen

    def power(where: str) -> dict[str, float]:
        return {name: row["power"][where] for name, row in sound.items()}

    asked = [
        ("Which of two rankers is less noisy, all places alike?", "power", "most", power("all")),
        ("Which of two rankers has the better top?", "power", "most", power("top")),
        ("What do lists that break off half-way say of the whole ones?", "error", "least", off("truncated")),
        ("What if ties hide a part of the order?", "error", "least", off("tied")),
        ("What if a third of the items is unknown, as in two people's ratings?", "error", "least", off("subsampled")),
    ]
    if "labelled" in found:
        told = {name: cell["auc"] for name, cell in found["labelled"]["measures"].items() if name in sound}
        asked.append(("Is this ranking mine or a stranger's?", "AUC", "most", told))
    return [
        {"question": question, "figure": f"{wanted} {figure}", "best": _best(values, wanted == "least")}
        for question, figure, wanted, values in asked
    ]


def _best(values: dict[str, float], least: bool) -> list[list[Any]]:
    """Return up to two (measure, value), best first; one that only repeats the first's value is no second opinion."""
    order = sorted(values, key=lambda name: values[name] if least else -values[name])
    others = [name for name in order[1:] if abs(values[name] - values[order[0]]) > 1e-9]
    return [[name, values[name]] for name in order[:1] + others[:1]]
