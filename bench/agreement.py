"""All tau-b of 100,000 pairs of 50-item lists: ours, from lists of ids, against a loop over scipy, from ready ranks.

    python bench/agreement.py          writes its section of bench/RESULTS.md

Both run in this process, one after the other; scipy is given the rank vectors, ours finds the items itself.
"""

import re
import time
from pathlib import Path

import numpy as np
import scipy.stats

from recsys.evaluation.agreement import MEASURES, parse
from recsys.evaluation.rankings import Pairs, Rankings

RESULTS = Path(__file__).parent / "RESULTS.md"
PAIRS, ITEMS, REPEATS = 100_000, 50, 5


def lists(rng):
    """Return two tables of lists of ITEMS ids, int[PAIRS, ITEMS], best first."""
    return [np.argsort(rng.random((PAIRS, ITEMS)), axis=1) for _ in range(2)]


def ours(a, b, measure):
    """Return the measure of every pair, counting the building of Pairs."""
    return measure(Pairs.row_by_row(Rankings.of_places(a), Rankings.of_places(b)))


def seconds(function, *arguments):
    """Return (result, seconds)."""
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def write(section, text):
    """Replace a section of RESULTS.md, or add it."""
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    block = f"<!-- {section} -->\n{text.strip()}\n<!-- /{section} -->"
    pattern = re.compile(f"<!-- {section} -->.*<!-- /{section} -->", re.S)
    after = pattern.sub(lambda _: block, before) if pattern.search(before) else f"{before.rstrip()}\n\n{block}\n"
    RESULTS.write_text(after, encoding="utf-8")


def main():
    """Time, check that both give the same, and write the table."""
    a, b = lists(np.random.default_rng(0))
    places = [np.argsort(table, axis=1) for table in (a, b)]  # item -> place: what scipy compares
    tau = parse("tau_b")
    ours(a[:1000], b[:1000], tau)  # compile
    median = {}
    for measure in map(parse, MEASURES):
        ours(a[:1000], b[:1000], measure)
        median[str(measure)] = float(np.median([seconds(ours, a, b, measure)[1] for _ in range(REPEATS)]))
    theirs, loop = seconds(lambda: [scipy.stats.kendalltau(x, y).statistic for x, y in zip(*places, strict=True)])
    assert np.abs(np.array(theirs) - ours(a, b, tau)).max() < 1e-12
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in median.items())
    write(
        "agreement",
        f"## Agreement of ranked lists\n\n{PAIRS:,} pairs of {ITEMS}-item lists, one run "
        f"(`python bench/agreement.py`), median of {REPEATS} for ours. A loop over `scipy.stats.kendalltau`: "
        f"{loop:.1f} s; `tau_b` is **{loop / median['tau_b']:.0f} times** faster, and equal to 1e-12.\n\n"
        f"| measure | seconds |\n|---|--:|\n{rows}",
    )
    print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
