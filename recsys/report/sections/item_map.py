"""The section with a map of the items, by the two directions in which their factors differ most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys import run_files
from recsys.array_files import read_npy
from recsys.models.collaborative.als import ALS
from recsys.report import plots
from recsys.report.parts import Drawing, ReportTable, Section
from recsys.report.run_reader import Run
from recsys.saved.open_model import open_item_side
from recsys.schema import ITEM
from recsys.types import IdMap

MAX_ITEMS = 800
"""Largest number of items on the map. If more items have likes, the most liked ones are on it."""

ITEMS_PER_END = 4
"""Number of items that are named at each end of a direction."""


def item_map(run: Run) -> Section | None:
    """Return the section "Item map": the items by the first two principal components of their factors.

    The factors are those of the first model of the run that has item factors. The map has the most
    liked items. The result is None if no model has item factors, if fewer than three of the items
    have likes, or if there are fewer than two factors.
    """
    first = next(filter(None, (_factors(run, name) for name in run.metrics["models"])), None)
    if first is None:
        return None
    name, factors, items = first
    rows = items.rows(run.likes.index)
    rows = rows[rows >= 0][:MAX_ITEMS]
    if len(rows) < 3 or factors.shape[1] < 2:
        return None
    centred = factors[rows].astype(np.float64)
    centred -= centred.mean(axis=0)
    directions, scales, _ = np.linalg.svd(centred, full_matrices=False)
    explained = scales**2 / max(float((scales**2).sum()), np.finfo(float).tiny)
    ids = items.ids_of(rows)
    ends = _ends(directions)
    labels = {int(row): run.title(ids[row]) for component in ends[:2] for side in component for row in side}
    axes = [f"component {c + 1}: {explained[c]:.1%} of the variance" for c in (0, 1)]
    text = (
        f"The {len(rows):,} most liked items by the item factors of {name}, projected to the two"
        f" directions in which they differ most. The two explain {explained[:2].sum():.1%} of the"
        f" variance, so items that are close here may be far apart in all {factors.shape[1]}"
        " dimensions. Items at both ends of a direction are named if there is room; what they have"
        " in common may show what the direction means."
    )
    svg = plots.cloud(directions[:, :2] * scales[:2], labels, *axes)
    return Section(
        "Item map",
        [text],
        tables=[_table(run, ids, ends, explained)],
        figures=[Drawing(svg, f"Item factors of {name} in two dimensions; the table below names the ends.")],
    )


def _ends(directions: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows of the outermost points at both ends of each of the first four directions.

    There is one pair (rows at the low end, rows at the high end) per direction, outermost row first.

    Args:
        directions: float64[points, directions], the coordinates of the points.
    """
    orders = np.argsort(directions[:, :4], axis=0, kind="stable").T
    return [(order[:ITEMS_PER_END], order[: -ITEMS_PER_END - 1 : -1]) for order in orders]


def _table(run: Run, ids: np.ndarray, ends: list[tuple[np.ndarray, np.ndarray]], explained: np.ndarray) -> ReportTable:
    """Return the table with the titles of the items at both ends of each direction.

    Args:
        ids: the ids of the items on the map.
        ends: as :func:`_ends` returns them.
        explained: float64[directions], the share of the variance of each direction.
    """
    rows = [
        [
            str(component + 1),
            f"{explained[component]:.1%}",
            *("; ".join(run.title(ids[row])[:40] for row in side) for side in sides),
        ]
        for component, sides in enumerate(ends)
    ]
    return ReportTable("Ends of the components", ["component", "variance", "one end", "other end"], rows, 4)


def _factors(run: Run, name: str) -> tuple[str, np.ndarray, IdMap] | None:
    """Return the item factors of a stored model: (name, float32[items, rank], ids of these items).

    The model may come from the local engine or from Spark. The result is None if it has no item
    factors.
    """
    items = IdMap.from_ids(run.items[ITEM])
    if run.folder.has(run_files.item_factors(name)):
        model = open_item_side(run.folder, name, items)
        if not isinstance(model, ALS):
            return None
        return name, model.item_factors_[model.known_], IdMap(items.ids[model.known_], items.dtype)
    # The factors of a member of a cascade or a blend are in a folder below that of the model.
    model_folder = run.folder.local(run_files.model_folder(name))
    paths: list[Path] = sorted(model_folder.rglob("item_factors_.npy"))
    if not paths:
        return None
    factors = read_npy(paths[0])
    has_factor = read_npy(paths[0].with_name("known_.npy"))
    return name, factors[has_factor], IdMap(items.ids[has_factor], items.dtype)
