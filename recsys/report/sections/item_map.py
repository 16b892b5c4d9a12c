"""A map of the items: the two directions in which their factors differ most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys import run_files
from recsys.report import plots
from recsys.report.explanations import spark_factors
from recsys.report.parts import Drawing, Section, Table
from recsys.report.run_reader import Run
from recsys.schema import ITEM
from recsys.types import IdMap

DRAWN, ENDS = 800, 4
"""Items on the map, the most liked ones; how many are named at each end of a direction."""


def itemmap(run: Run) -> Section | None:
    """Principal components of the item factors of the first model that has some."""
    found = next(filter(None, (_factors(run, name) for name in run.models)), None)
    if found is None:
        return None
    name, factors, items = found
    rows = items.rows(run.likes.index)
    rows = rows[rows >= 0][:DRAWN]
    if len(rows) < 3 or factors.shape[1] < 2:
        return None
    centred = factors[rows].astype(np.float64)
    centred -= centred.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    explained = sizes**2 / max(float((sizes**2).sum()), np.finfo(float).tiny)
    ids = items.ids_of(rows)
    ends = _ends(left)
    labels = {int(place): run.title(ids[place]) for component in ends[:2] for side in component for place in side}
    axes = [f"component {c + 1}: {explained[c]:.1%} of the variance" for c in (0, 1)]
    text = (
        f"The {len(rows):,} most liked items by the item factors of {name}, flattened to the two directions in which"
        f" they differ most. Both together show {explained[:2].sum():.1%} of the variance, so what is near here need"
        f" not be near in all {factors.shape[1]} dimensions. The ends of both directions are named where"
        " there is room; what they have in common may tell what a direction means."
    )
    drawn = plots.cloud(left[:, :2] * sizes[:2], labels, *axes)
    return Section(
        "Item map",
        [text],
        tables=[_table(run, ids, ends, explained)],
        figures=[Drawing(drawn, f"Item factors of {name} in two dimensions; the table below names the ends.")],
    )


def _ends(left: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the outermost points at both ends of each of the first four directions."""
    orders = np.argsort(left[:, :4], axis=0, kind="stable").T
    return [(order[:ENDS], order[: -ENDS - 1 : -1]) for order in orders]


def _table(run: Run, ids: np.ndarray, ends: list[tuple[np.ndarray, np.ndarray]], explained: np.ndarray) -> Table:
    rows = [
        [
            str(component + 1),
            f"{explained[component]:.1%}",
            *("; ".join(run.title(ids[place])[:40] for place in side) for side in sides),
        ]
        for component, sides in enumerate(ends)
    ]
    return Table("Ends of the components", ["component", "variance", "one end", "other end"], rows, 4)


def _factors(run: Run, name: str) -> tuple[str, np.ndarray, IdMap] | None:
    """Return (name, float32[items, rank], their ids) of a model stored by either engine; None without item factors."""
    place = run.folder.path / run_files.model_folder(name)
    if (place / "item_factors.parquet").exists():
        model, items = spark_factors(run, name)
        return name, model.item_factors_, items
    found: Path | None = next(iter(sorted(place.rglob("item_factors_.npy"))), None)
    if found is None:
        return None
    factors = np.load(found, allow_pickle=False)
    known = np.load(found.with_name("known_.npy"), allow_pickle=False)
    items = IdMap.of(run.items[ITEM])
    return name, factors[known], IdMap(items.ids[known], items.dtype)
