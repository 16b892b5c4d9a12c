"""What tests of several rooms build: settings of a run, runs on both engines, jobs in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def settings_of(out, files, models, **sections):
    """Return the raw settings of a run over the tables ``files``, judged by 100 resamples; ``sections`` come on top."""
    tables = {name: str(path) for name, path in files.items() if name in ("events", "items", "users")}
    judge = {"metrics": ["ndcg@10"], "relevant": 3.5, "resamples": 100} | sections.pop("judge", {})
    return {"out": str(out), "data": tables, "models": models, "judge": judge} | sections


def run_locally(out, files, models, **sections):
    """Make a run on the local engine and return its folder."""
    from recsys import config, experiment

    experiment.run(config.parse_config(settings_of(out, files, models, **sections)))
    return Path(out)


def run_on_spark(spark, out, files, models, **sections):
    """Make a run on the session ``spark`` and return its folder."""
    from recsys import config
    from recsys.spark import run

    run.run(config.parse_config(settings_of(out, files, models, **sections)), spark=spark)
    return Path(out)


def run_job(name, *words):
    """Run a job of ``jobs/`` in this process, so that it uses the session of the tests; return its exit code."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "jobs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, words)])
        return module.main()
