"""Log a run folder to MLflow, for teams that keep their experiments there."""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any

from recsys import run_files
from recsys.errors import ConfigError, MissingExtra
from recsys.locations import Location
from recsys.runfolder import RunFolder, damage_explained

FILES = (
    run_files.REPORT_HTML,
    run_files.REPORT_MARKDOWN,
    run_files.METRICS,
    run_files.SPLIT_CARD,
    run_files.DATA_CARD,
    run_files.MANIFEST,
    run_files.CONFIG,
)
"""Files of a run folder that are logged as artifacts, if the run has them."""

MAX_LENGTH = 6_000
"""Largest number of characters that MLflow accepts as the value of a parameter."""


def track(path: str | Location, uri: str, experiment: str = "recsys") -> list[str]:
    """Log a complete run to MLflow, and return the ids of the MLflow runs that this makes.

    There is one MLflow run for the folder and one for each model. That of the folder has the config
    as parameters, with dotted names such as ``judge.resamples``. It also has the seconds and the
    peak memory in MiB of each step as metrics, and the files of the report as artifacts. That of a
    model has the parameters of the model and its metrics. A metric has three values: the mean over
    users and both ends of its 95 % interval, named ``ndcg_at_10``, ``ndcg_at_10.low`` and
    ``ndcg_at_10.high``. Names are changed to what MLflow accepts (:func:`mlflow_name`).

    Args:
        path: the path or URI of the run.
        uri: the tracking server or store, as for ``mlflow.set_tracking_uri``.
        experiment: the name of the MLflow experiment, which is created if it does not exist.

    Raises:
        MissingExtra: MLflow is not installed.
        RunFolderError: there is no complete run at ``path``.
        ConfigError: MLflow cannot be reached, or refuses a value.
    """
    # The default of MLflow retries a wrong host for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
        from mlflow.utils.time import get_current_time_millis
    except ModuleNotFoundError as error:
        raise MissingExtra("recsys track needs MLflow: pip install 'recsys[mlflow]'") from error
    run = RunFolder.open(path)
    with damage_explained(path):
        config = tomllib.loads(run.local(run_files.CONFIG).read_text(encoding="utf-8"))
    manifest = run.read_object(run_files.MANIFEST, hops=list)
    metrics_by_model = run.read_object(run_files.METRICS, models=dict)["models"]
    params_by_model = config.pop("models", {})
    now = get_current_time_millis()

    def log(name: str, params: dict[str, Any], values: dict[str, float], tags: dict[str, str]) -> str:
        run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(mlflow_name(key), float(value), now, 0) for key, value in values.items()],
            params=[
                Param(mlflow_name(key), str(value)[:MAX_LENGTH]) for key, value in flatten_settings(params).items()
            ],
            tags=[RunTag("recsys.commit", str(manifest.get("commit")))],
        )
        client.set_terminated(run_id)
        return str(run_id)

    try:
        client = MlflowClient(tracking_uri=uri)
        existing = client.get_experiment_by_name(experiment)
        experiment_id = existing.experiment_id if existing else client.create_experiment(experiment)
        cost = {f"{hop['name']}, s": hop["seconds"] for hop in manifest["hops"]}
        cost |= {f"{hop['name']}, peak MiB": hop["peak_mb"]["total"] for hop in manifest["hops"]}
        parent_id = log(run.name, config, cost, {})
        for file in FILES:
            if run.has(file):
                client.log_artifact(parent_id, str(run.local(file)))
        ids = [parent_id]
        for name, metrics in metrics_by_model.items():
            title = f"{run.name}/{name}"
            ids.append(
                log(title, params_by_model.get(name, {}), _mean_and_ends(metrics), {"mlflow.parentRunId": parent_id})
            )
    except (MlflowException, OSError) as error:
        raise ConfigError(f"MLflow at {uri}: {str(error).splitlines()[0]}") from error
    return ids


def _mean_and_ends(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the values to log for the metrics of one model: name -> number.

    Each metric ``m`` gives up to three values: ``m`` is its mean over users, and ``m.low`` and
    ``m.high`` are the ends of the 95 % confidence interval of the mean. Values that are undefined
    (None) are left out.

    Args:
        metrics: metric -> ``{"mean": number or None, "ci95": [low, high]}``, as in metrics.json.
    """
    values = {}
    for metric, cell in metrics.items():
        low, high = cell["ci95"]
        for suffix, value in (("", cell["mean"]), (".low", low), (".high", high)):
            if value is not None:
                values[metric + suffix] = value
    return values


def mlflow_name(name: str) -> str:
    """Return the name of a metric or a parameter, with characters that MLflow accepts.

    ``@`` becomes ``_at_``, a ``]`` before ``@`` is dropped, and each run of other characters that
    MLflow does not accept becomes one ``_``.

    >>> mlflow_name("recall[ips=0.5]@10")
    'recall_ips_0.5_at_10'
    """
    return re.sub(r"[^\w./ -]+", "_", name.replace("]@", "@").replace("@", "_at_"))


def flatten_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict, whose keys are the nested keys joined by dots.

    Args:
        settings: the settings; a value that is a dict is nested.
        prefix: the text before each key, for the calls of the function by itself.

    >>> flatten_settings({"split": {"rule": "time"}, "seed": 0})
    {'split.rule': 'time', 'seed': 0}
    """
    flattened: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flattened |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flattened[prefix + key] = value
    return flattened
