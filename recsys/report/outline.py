"""Build the report of a run from its sections, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from recsys.report.parts import Report, Section
from recsys.report.run_reader import Run
from recsys.report.sections import inputs, lists, ratings, results
from recsys.report.sections.backtest import backtest
from recsys.report.sections.choice import choice
from recsys.report.sections.cold_start_curve import cold_start_curve
from recsys.report.sections.examples import examples
from recsys.report.sections.item_map import item_map
from recsys.report.sections.short_histories import short_histories
from recsys.report.sections.training import training
from recsys.report.sections.verdict import verdict
from recsys.runfolder import RunFolder

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    results.models,
    results.differences,
    results.segments,
    backtest,
    cold_start_curve,
    short_histories,
    results.beyond_accuracy,
    results.sampled_candidates,
    choice,
    lists.tradeoff,
    lists.model_agreement,
    lists.hits_by_rank,
    examples,
    training,
    item_map,
    inputs.data_overview,
    inputs.split_audit,
    inputs.rules,
    results.judged_users,
    inputs.costs,
    results.definitions,
    inputs.reproduce,
)
"""The functions that build the sections of a report on lists, in the order of the report.

A function returns None if its section does not apply to the run."""


RATING_SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    ratings.errors,
    ratings.support,
    ratings.calibration,
    ratings.folds,
    ratings.reviews,
    ratings.refits,
    inputs.data_overview,
    inputs.split_audit,
    inputs.costs,
    results.definitions,
    inputs.reproduce,
)
"""The functions that build the sections of a report on predicted ratings, in order.

Such a run has ``[judge] task = "ratings"``."""


def build_report(folder: RunFolder) -> Report:
    """Read a run folder, and return its report.

    Args:
        folder: a run folder that is complete except for its report.

    Raises:
        RunFolderError: a file of the run is missing or damaged.
    """
    run = Run(folder)
    builders = RATING_SECTIONS if ratings.is_of_ratings(run.metrics) else SECTIONS
    sections = [section for build_section in builders if (section := build_section(run)) is not None]
    return Report(folder.name, verdict(run.metrics), sections)
