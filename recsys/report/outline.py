"""The order in which a report tells what a run found. A section is a function of the run in a file of its noun."""

from __future__ import annotations

from collections.abc import Callable

from recsys.report.parts import Content, Section
from recsys.report.run_reader import Run
from recsys.report.sections import inputs, lists, results
from recsys.report.sections.choice import choice
from recsys.report.sections.cold_start_curve import coldstart
from recsys.report.sections.item_map import itemmap
from recsys.report.sections.training import training
from recsys.report.sections.verdict import verdict
from recsys.runfolder import RunFolder

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    results.models,
    results.differences,
    results.segments,
    coldstart,
    results.beyond,
    choice,
    lists.tradeoff,
    lists.agreement,
    lists.hits_by_rank,
    lists.examples,
    training,
    itemmap,
    inputs.data,
    inputs.split,
    inputs.rules,
    results.users,
    inputs.costs,
    results.definitions,
    inputs.reproduce,
)
"""In order of reading. A section that has nothing to say about a run is None."""


def gather(folder: RunFolder) -> Content:
    """Read a run folder and say what it shows."""
    run = Run(folder)
    sections = [section for tell in SECTIONS if (section := tell(run)) is not None]
    return Content(folder.path.resolve().name, verdict(run.metrics), sections)
