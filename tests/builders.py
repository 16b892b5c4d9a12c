"""What tests of several rooms build: settings of a run, runs on both engines, jobs in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def settings_of(out, files, models, tables=("events",), judge=None, **sections):
    """Return the raw settings of a run over some ``tables`` of ``files``; intervals come from 100 resamples.

    Models score all users they can, unless ``recommend`` says otherwise: a trial would cost a second fit, and each
    engine has a trial of its own.
    """
    data = {name: str(files[name]) for name in tables}
    judge = {"resamples": 100} | (judge or {})
    sections["recommend"] = {"min_history": 0} | sections.get("recommend", {})
    return {"out": str(out), "data": data, "models": models, "judge": judge} | sections


def run_local_engine(raw):
    """Make a run of raw settings on the local engine and return its metrics."""
    from recsys.config import parse_config
    from recsys.flow import run
    from recsys.local_engine import LocalEngine

    config = parse_config(raw)
    return run(config, engine=LocalEngine(config))


def run_spark_engine(raw, spark=None):
    """Make a run of raw settings on Spark, on the session ``spark`` if one is given, and return its metrics."""
    from recsys.config import parse_config
    from recsys.flow import run
    from recsys.saved.model_library import ModelLibrary
    from recsys.spark.engine import SparkEngine

    config = parse_config(raw)
    return run(config, engine=SparkEngine(config, spark, ModelLibrary()))


ENGINES = {"local": run_local_engine, "spark": run_spark_engine}
"""Engine -> what makes a run of raw settings on it."""


def run_locally(*arguments, **sections):
    """Make a run of ``settings_of`` these arguments on the local engine and return its folder."""
    raw = settings_of(*arguments, **sections)
    run_local_engine(raw)
    return Path(raw["out"])


def run_on_spark(spark, *arguments, **sections):
    """Make a run of ``settings_of`` these arguments on the session ``spark`` and return its folder."""
    raw = settings_of(*arguments, **sections)
    run_spark_engine(raw, spark)
    return Path(raw["out"])


def blank_figures(patch):
    """Let ``patch`` leave out the content of figures, but not their size, wherever a report is made."""

    def blank(figure, file, **options):
        width, height = 72 * figure.get_size_inches()
        file.write(f'<svg width="{width}pt" height="{height}pt"></svg>')

    patch.setattr("matplotlib.figure.Figure.savefig", blank)
    patch.setattr("matplotlib.figure.Figure.draw_without_rendering", lambda figure: None)


def run_job(name, *words):
    """Run a job of ``jobs/`` in this process, so that it uses the session of the tests; return its exit code."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "jobs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, words)])
        return module.main()
