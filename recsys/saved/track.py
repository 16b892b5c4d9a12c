"""A run folder as runs of MLflow, for teams that keep their experiments there."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from recsys import run_files
from recsys.errors import ConfigError, MissingExtra
from recsys.runfolder import RunFolder

FILES = (
    run_files.REPORT_HTML,
    run_files.REPORT_MARKDOWN,
    run_files.METRICS,
    run_files.SPLIT_CARD,
    run_files.DATA_CARD,
    run_files.MANIFEST,
    run_files.CONFIG,
)
LONGEST = 6_000
"""Characters that MLflow takes as the value of a parameter."""


def track(path: str | Path, uri: str, experiment: str = "recsys") -> list[str]:
    """Log a whole run to MLflow, and return the ids of its runs there: one for the folder, and one a model inside it.

    The folder's has the config as parameters (``judge.resamples``, dotted), seconds and peak MiB of each hop, and the
    files of the report as artifacts. A model's has its own parameters, and each metric's mean with the ends of its
    interval: ``ndcg_at_10``, ``ndcg_at_10.low``, ``ndcg_at_10.high``, for MLflow's names are of few characters.

    Args:
        uri: the tracking server or store, as ``mlflow.set_tracking_uri`` takes it.

    Raises:
        MissingExtra: no MLflow here. RunFolderError: no whole run at ``path``. ConfigError: MLflow refuses.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own default asks a wrong host for minutes
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.utils.time import get_current_time_millis
    except ModuleNotFoundError as error:
        raise MissingExtra("recsys track needs MLflow: pip install 'recsys[mlflow]'") from error
    run = RunFolder.open(path)
    config = tomllib.loads((run.path / run_files.CONFIG).read_text(encoding="utf-8"))
    manifest, judged = run.read_json(run_files.MANIFEST), run.read_json(run_files.METRICS)["models"]
    own = config.pop("models", {})
    now = get_current_time_millis()

    def log(name: str, params: dict[str, Any], values: dict[str, float], tags: dict[str, str]) -> str:
        made = client.create_run(place, run_name=name, tags=tags).info.run_id
        client.log_batch(
            made,
            metrics=[Metric(mlflow_name(key), float(value), now, 0) for key, value in values.items()],
            params=[Param(mlflow_name(key), str(value)[:LONGEST]) for key, value in flat(params).items()],
            tags=[RunTag("recsys.commit", str(manifest.get("commit")))],
        )
        client.set_terminated(made)
        return str(made)

    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else client.create_experiment(experiment)
        cost = {f"{hop['name']}, s": hop["seconds"] for hop in manifest["hops"]}
        cost |= {f"{hop['name']}, peak MiB": hop["peak_mb"]["total"] for hop in manifest["hops"]}
        whole = log(run.path.resolve().name, config, cost, {})
        for file in FILES:
            if (run.path / file).exists():
                client.log_artifact(whole, str(run.path / file))
        ids = [whole]
        for name, metrics in judged.items():
            title = f"{run.path.resolve().name}/{name}"
            ids.append(log(title, own.get(name, {}), _ends(metrics), {"mlflow.parentRunId": whole}))
    except (MlflowException, OSError) as error:
        raise ConfigError(f"MLflow at {uri}: {str(error).splitlines()[0]}") from error
    return ids


def _ends(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the mean of each metric and the ends of its interval, as far as they are defined."""
    found = {}
    for metric, cell in metrics.items():
        for end, value in zip(("", ".low", ".high"), (cell["mean"], *cell["ci95"]), strict=True):
            if value is not None:
                found[metric + end] = value
    return found


def mlflow_name(name: str) -> str:
    """Return a name that MLflow takes.

    >>> mlflow_name("recall[ips=0.5]@10")
    'recall_ips_0.5_at_10'
    """
    return re.sub(r"[^\w./ -]+", "_", name.replace("]@", "@").replace("@", "_at_"))


def flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Return dotted key -> value.

    >>> flat({"split": {"rule": "time"}, "seed": 0})
    {'split.rule': 'time', 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found
