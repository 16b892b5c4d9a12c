"""Names of the files in a run folder, a bundle and a study, relative to the folder.

Both engines write these names. All code that reads such a folder takes the names from this module.
"""

SUCCESS = "_SUCCESS"
MANIFEST = "manifest.json"
CONFIG = "config.toml"
WORK = ".work"
"""The folder of tables that a run reads again. It is removed at the end of the run."""

CURRENT = "current.json"
"""The file that names the current version of a run on another file system."""

# What was read, and how it was split.
REFUSED_ROWS = "refused.csv"
DATA_CARD = "data.json"
SPLIT_CARD = "split.json"
RULES_CARD = "rules.json"

ITEMS = "split/items.parquet"
TRAIN = "split/train.parquet"
HISTORY = "split/history.parquet"
TEST = "split/test.parquet"

# What was measured.
METRICS = "metrics.json"
PER_USER = "per_user.parquet"
COLD_START = "coldstart.json"
SAMPLED = "sampled.json"
BACKTEST = "backtest.json"
POOLED_PER_USER = "backtest_per_user.parquet"
"""The mean of each user's values over the folds of a backtest, one row per user and model."""
FOLDS_SCRATCH = ".work/folds"
"""The folder in which the folds of a backtest are written during the run."""
TRAINING = "training.json"
WATCHED = "watched.json"

# What `recsys report` writes.
REPORT_HTML = "report.html"
REPORT_MARKDOWN = "report.md"
REPORT_TABLES = "tables"

# The segments of a run with `fallback = "segment"`.
SEGMENT_FOLDER = "segment"
SEGMENTS = "segment/segments.json"
SEGMENT_SCORES = "segment/scores.npy"
SEGMENT_USERS = "segment/users.parquet"

# What only a bundle has.
BUNDLE_CARD = "bundle.json"
BUNDLE_USER_FACTORS = "user_factors.npy"

# What `recsys tune` writes, in a folder of its own.
STUDY_LOG = "study.log"
STUDY_NAME = "recsys"
"""The name of the study inside its log."""
STUDY_RESULT = "tuning.json"
BEST_CONFIG = "best.toml"

# What `recsys data make` writes beside the tables of a made-up world.
WORLD_CARD = "world.json"

MODEL_CARD = "model.json"
"""The file that describes a model of the local engine. It is in the folder of the model.

A model that is a part of another model has a folder and such a file too.
"""


def split_part(part: str) -> str:
    """Return the path of the table of one part of the split, ``split/PART.parquet``.

    Args:
        part: ``train``, ``history`` or ``test``.
    """
    return f"split/{part}.parquet"


def topk(model: str) -> str:
    """Return the path of the table with the lists of a model, ``topk/MODEL.parquet``."""
    return f"topk/{model}.parquet"


def predictions(model: str) -> str:
    """Return the path of the table of predicted ratings, ``predictions/MODEL.parquet``."""
    return f"predictions/{model}.parquet"


def model_folder(model: str) -> str:
    """Return the path of the folder in which a model is saved, ``model/MODEL``."""
    return f"model/{model}"


def model_card(model: str) -> str:
    """Return the path of the description of a local model, ``model/MODEL/model.json``."""
    return f"{model_folder(model)}/{MODEL_CARD}"


def spark_params(model: str) -> str:
    """Return the path of the parameters of a Spark model, ``model/MODEL/params.json``."""
    return f"{model_folder(model)}/params.json"


def user_factors(model: str) -> str:
    """Return the path of the user factors that Spark wrote,
    ``model/MODEL/user_factors.parquet``.
    """
    return f"{model_folder(model)}/user_factors.parquet"


def item_factors(model: str) -> str:
    """Return the path of the item factors that Spark wrote,
    ``model/MODEL/item_factors.parquet``.
    """
    return f"{model_folder(model)}/item_factors.parquet"
