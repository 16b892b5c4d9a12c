"""Is tuning worth it? Settings found on train against published defaults, both judged on a test part neither saw.

    python bench/tuning.py

The defaults were fixed beforehand: those of implicit's AlternatingLeastSquares (factors 100, regularization 0.01, alpha
1, 15 iterations, λ unscaled, that is nu = 0), but with our confidence c = 1 + alpha · r where implicit's is alpha · r;
and k = 50 without shrinkage for nearest items.
"""

from __future__ import annotations

import os
from pathlib import Path

from results import table, write_section

from recsys import flow
from recsys.config import Config, parse_config
from recsys.data.hashing import id_bits
from recsys.evaluation.testing.significance import mean_ci, sign_flip_test
from recsys.runfolder import RunFolder
from recsys.tune import tune

DATA = Path(os.environ.get("RECSYS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DEFAULTS = {
    "als": {"rank": 100, "reg": 0.01, "alpha": 1.0, "iterations": 15, "nu": 0.0},
    "itemknn": {"neighbours": 50, "shrink": 0.0},
}
SPACES = {
    "als": {
        "rank": {"low": 8, "high": 128},
        "reg": {"low": 0.01, "high": 300.0},
        "alpha": {"low": 0.5, "high": 40.0},
        "iterations": {"low": 5, "high": 20},
    },
    "itemknn": {},
}
TRIALS = 40


def settings(model: str, params: dict, out: Path) -> Config:
    """Return the run: a random fifth of each user's pairs is the test; all ratings of 4 and more are relevant."""
    return parse_config(
        {
            "out": str(out),
            "data": {"events": str(DATA / "ml-latest-small")},
            "split": {"rule": "fraction", "test": 0.2, "seed": 7},
            "models": {model: params},
            "judge": {"metrics": ["ndcg@10", "recall@20"], "relevant": 4.0},
            "recommend": {"k": 20},
            "tune": {"trials": TRIALS, "rule": "pairs", "folds": 3, "space": SPACES[model]},
        }
    )


def per_user_of(config, model):
    """Make a run and return one model's results per user."""
    flow.run(config)
    table = RunFolder.open(config.out).read_table("per_user.parquet")
    return table[table["model"] == model].reset_index(drop=True)


def main() -> None:
    """Tune, judge both on the test part, write the section."""
    work, rows = Path("runs/bench-tuning"), []
    for model, params in DEFAULTS.items():
        before = settings(model, params, work / f"{model}-default")
        default = per_user_of(before, model)
        found = tune(before, work / f"{model}.log")
        tuned = per_user_of(settings(model, dict(found.config.models[model]), work / f"{model}-tuned"), model)
        for metric in ("ndcg@10", "recall@20"):
            difference = (tuned[metric] - default[metric]).to_numpy()
            mean, low, high = mean_ci(difference, id_bits(default["user_id"]), resamples=4999)
            p = float(sign_flip_test(difference)[0])
            means = [f"{frame[metric].mean():.4f}" for frame in (default, tuned)]
            rows.append([f"{model}, {metric}", *means, f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", f"{p:.4f}"])
        best = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.best_params.items()
        )
        rows[-2][0] += f" ({best})"
    heads = ["model, metric (found)", "default", "tuned", "difference [95 %]", "p"]
    text = f"MovieLens latest-small, {TRIALS} settings, 3 folds of train; the test part was opened at the end.\n\n"
    write_section("tuning", "Tuning against published defaults", "python bench/tuning.py", text + table(heads, rows))


if __name__ == "__main__":
    main()
