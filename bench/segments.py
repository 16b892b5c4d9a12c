"""Newcomers known by their attributes alone, in the made-up film world: popular films against popular by segment.

python bench/segments.py                    writes its section of bench/RESULTS.md

The log is split by time, ratings from 4 are relevant, and the users of the test who have no history are judged. They
are answered as in a run: by ALS, which has no opinion, then by their segment, then by popularity.
"""

from __future__ import annotations

import numpy as np
from results import table, write_section

from recsys.data.reading.read import read_tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import ByTime
from recsys.data.synthetic import film_world
from recsys.evaluation.judging.metrics import ndcg
from recsys.evaluation.settings import EvaluationSettings
from recsys.evaluation.testing.significance import mean_ci
from recsys.evaluation.truth import Truth
from recsys.features import segment_popularity
from recsys.models import build
from recsys.models.combining.cascade import Cascade
from recsys.models.combining.wrappers import insert_segment_fallback
from recsys.ranking.rank import recommend

COLUMNS = (("country",), ("age_group",), ("age_group", "country"))
PRIORS = (0, 5, 20, 100)


def main() -> None:
    """Judge the newcomers by each segment and prior, and write the section."""
    world = film_world()
    tables = read_tables(world.events, world.items, world.users)
    parts = split(tables.take_log(), ByTime(), items=tables.items)
    truth = Truth.from_split(parts, EvaluationSettings(relevant=4))
    new = np.flatnonzero((truth.histories.lengths == 0) & (np.diff(truth.relevant.indptr) > 0))
    model = Cascade({"als": build("als", {}), "popular": build("popular", {})}).fit(parts.train)

    def value(answers) -> np.ndarray:
        return ndcg(truth.judge(recommend(answers, truth.histories[new], 10, users=new)), 10)

    plain = value(model)
    rows = [["popular", "", f"{plain.mean():.3f}", ""]]
    for columns in COLUMNS:
        for prior in PRIORS:
            found = segment_popularity.fit_segments(parts.train, tables.users, columns, prior=prior, memory_mb=512)
            own = value(insert_segment_fallback(model, found, parts.test.users.ids))
            gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*mean_ci(own - plain))
            rows.append([", ".join(columns), f"{prior}", f"{own.mean():.3f}", gain])
    heads = ["segment", "prior, users", "ndcg@10", "gain over popular [95 %]"]
    body = f"{len(new)} users of the test without a history.\n\n{table(heads, rows)}"
    write_section("segments", "Newcomers known by their attributes alone", "python bench/segments.py", body)


if __name__ == "__main__":
    main()
