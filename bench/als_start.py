"""Lengths of the random factors from which ALS starts, compared on validation parts of eight logs.

    python bench/als_start.py [LOG …]      twenty minutes for all; writes a section of bench/RESULTS.md

The logs and their validation parts are those of bench/defaults.py; no test part is opened. With each start the model
is trained for as many sweeps as it has by default.
"""

import sys
from unittest import mock

import numpy as np
from defaults import LOGS
from results import table, write_section

from recsys.models import build
from recsys.models.collaborative.als import ALS
from recsys.models.combining.trial import Trial, hide_pairs

LENGTHS = (0.1, 1.0, 3.0)
"""Lengths of a factor at the start. The first one is what the others are compared with."""

MODELS = ({"rank": 16}, {"rank": 64}, {"rank": 128, "alpha": 30.0})


def measure(trial: Trial, params: dict, length: float) -> tuple[np.ndarray, float]:
    """Return the NDCG@100 of each user, and the objective at the end of training."""
    with mock.patch.object(ALS, "START_LENGTH", length):
        model = build("als", params).fit(trial.train)
    return trial.judge(model, np.arange(len(trial.users))), float(model.losses_[-1])


def main() -> None:
    """Measure and write."""
    rows = []
    for name in sys.argv[1:] or list(LOGS):
        trial = hide_pairs(LOGS[name](), 0.2, 2000, seed=0)
        for params in MODELS:
            ndcg, loss = measure(trial, params, LENGTHS[0])
            words = ", ".join(f"{key} {value:g}" for key, value in params.items())
            cells = [name, words, f"{ndcg.mean():.4f}"]
            for length in LENGTHS[1:]:
                other, other_loss = measure(trial, params, length)
                difference = other - ndcg
                error = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
                cells += [f"{difference.mean():+.4f} ± {error:.4f}", f"{other_loss / loss:.2f}"]
            rows.append(cells)
            print(*cells, file=sys.stderr, flush=True)
    heads = ["log", "als", f"NDCG@100 from length {LENGTHS[0]:g}"]
    for length in LENGTHS[1:]:
        heads += [f"length {length:g}", "its objective ÷"]
    note = "Differences with 95 % intervals over up to 2,000 users each; objectives ÷ that of the first length."
    write_section("als_start", "The start of ALS", "python bench/als_start.py", f"{note}\n\n{table(heads, rows)}")


if __name__ == "__main__":
    main()
