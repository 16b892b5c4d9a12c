"""A reference implementation of recommender systems: every result can be read, checked and scaled.

The public names are imported only when they are first used, so ``import recsys`` is fast:

    read_tables, read_events     files -> checked tables            recsys.data.reading.read
    ReadSettings                 how the files are read             recsys.data.reading.read_settings
    split                        events -> Split                    recsys.data.splitting.split
    build                        name, parameters -> Recommender    recsys.models
    allow_own_models             permit classes named in configs    recsys.models.own_model
    recommend                    model, histories -> TopK           recsys.ranking.rank
    RecommendOptions             which items lists may have         recsys.ranking.rank
    judge, evaluate              TopK, truth -> metrics per user    recsys.evaluation
    evaluate_tables              any top-N table against any truth  recsys.evaluation.evaluate
    compare                      evaluations -> which model wins    recsys.evaluation.testing.compare
    agree, agree_tables          two ranked lists, or two tables    recsys.evaluation.agreement.measures
    summarise                    evaluations -> metrics.json        recsys.evaluation.summary
    load, connect                lists of a bundle, or a server      recsys.serving.client
    load_config, run             one TOML file -> a run folder      recsys.config, recsys.flow
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ReadSettings": "data.reading.read_settings",
    "read_events": "data.reading.read",
    "read_tables": "data.reading.read",
    "split": "data.splitting.split",
    "allow_own_models": "models.own_model",
    "build": "models",
    "recommend": "ranking.rank",
    "RecommendOptions": "ranking.rank",
    "judge": "evaluation.judging.judge",
    "evaluate": "evaluation.evaluate",
    "evaluate_tables": "evaluation.evaluate",
    "compare": "evaluation.testing.compare",
    "agree": "evaluation.agreement.measures",
    "agree_tables": "evaluation.agreement.measures",
    "summarise": "evaluation.summary",
    "load": "serving.client",
    "connect": "serving.client",
    "load_config": "config",
    "run": "flow",
}
"""Public name -> the module that defines it, relative to ``recsys``."""

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("recsys")
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    value = getattr(import_module(f"recsys.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
