"""All tau-b of 100,000 pairs of 50-item lists: ours, from lists of ids, against a loop over scipy, from ready ranks.

    python bench/agreement.py          writes its section of bench/RESULTS.md

Both run in this process, one after the other; scipy is given the rank vectors, ours finds the items itself.
"""

import time

import numpy as np
import scipy.stats
from results import table, write_section

from recsys.evaluation.agreement.measures import MEASURES, parse_measure
from recsys.evaluation.agreement.rankings import Pairs, Rankings

PAIRS, ITEMS, REPEATS = 100_000, 50, 5


def lists(rng):
    """Return two tables of lists of ITEMS ids, int[PAIRS, ITEMS], best first."""
    return [np.argsort(rng.random((PAIRS, ITEMS)), axis=1) for _ in range(2)]


def ours(a, b, measure):
    """Return the measure of every pair, counting the building of Pairs."""
    return measure(Pairs.row_by_row(Rankings.from_padded(a), Rankings.from_padded(b)))


def seconds(function, *arguments):
    """Return (result, seconds)."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def main():
    """Time, check that both give the same, and write the table."""
    a, b = lists(np.random.default_rng(0))
    places = [np.argsort(lists_, axis=1) for lists_ in (a, b)]  # item -> place: what scipy compares
    tau = parse_measure("tau_b")
    ours(a[:1000], b[:1000], tau)  # compile
    median = {}
    for measure in map(parse_measure, MEASURES):
        ours(a[:1000], b[:1000], measure)
        median[str(measure)] = float(np.median([seconds(ours, a, b, measure)[1] for _ in range(REPEATS)]))
    theirs, loop = seconds(lambda: [scipy.stats.kendalltau(x, y).statistic for x, y in zip(*places, strict=True)])
    assert np.abs(np.array(theirs) - ours(a, b, tau)).max() < 1e-12
    body = (
        f"{PAIRS:,} pairs of {ITEMS}-item lists; ours from lists of ids, median of {REPEATS}. A loop over"
        f" `scipy.stats.kendalltau` on ready rank vectors takes {loop:.1f} s: `tau_b` is"
        f" **{loop / median['tau_b']:.0f} times** faster, and equal to 1e-12.\n\n"
    )
    rows = [[name, f"{value:.3f}"] for name, value in median.items()]
    write_section(
        "agreement",
        "Agreement of ranked lists",
        "python bench/agreement.py",
        body + table(["measure", "seconds"], rows),
    )


if __name__ == "__main__":
    main()
