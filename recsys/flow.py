"""The steps of a run, which are the same for both engines: read, split, fit, recommend, judge,
summarise.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys import run_files
from recsys.config import Config
from recsys.engine import Engine, Progress
from recsys.meter import Meter
from recsys.runfolder import RunFolder


def run(config: Config, *, engine: Engine | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Run a config: read, split, fit, recommend and judge, and write the run folder.

    The result is the content of metrics.json. After an error, no half-written run folder is left.

    Args:
        engine: the engine to use. None: the engine that the config names.
        progress: called with (step, done, total) during the longer steps.

    Raises:
        InputError: the data cannot be used.
        ConfigError: a setting cannot be used.
        RunFolderError: the run folder cannot be written.
    """
    engine = engine or make_engine(config)
    data = config.data
    started = datetime.now(UTC)
    with (
        Meter() as meter,
        RunFolder.writing(config.out, "run", config.sources) as folder,
        engine.open(folder, meter, progress),
    ):
        with meter.hop("read"):
            engine.read_events()
        with meter.hop("split"):
            engine.split_events()
        for name in engine.model_names:
            with meter.hop(f"fit {name}"):
                engine.fit(name)
            with meter.hop(f"recommend {name}"):
                engine.recommend(name)
            with meter.hop(f"judge {name}"):
                engine.judge(name)
            if engine.has_cold_start_curve:
                with meter.hop(f"cold start {name}"):
                    engine.judge_cold_start(name)
        with meter.hop("summarise"):
            metrics = engine.summarise()
        folder.write_text(run_files.CONFIG, config.to_toml())
        inputs = [Path(path) for path in (data.events, data.items, data.users) if path]
        folder.write_manifest(seed=config.seed, inputs=inputs, hops=meter.hops, started=started)
    return metrics


def make_engine(config: Config) -> Engine:
    """Return the engine that a config names. Spark is imported only where it is asked for."""
    if config.engine == "spark":
        from recsys.spark.engine import SparkEngine

        return SparkEngine(config)
    from recsys.local_engine import LocalEngine

    return LocalEngine(config)
