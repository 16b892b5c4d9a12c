"""Search for the settings of a model, on the train part of a run alone.

space      what is searched: lists and ranges of values, from TOML or from the model itself
folds      parts of train that stand in for the test part, and one value per user on each
study      the search: resumable, safe for several processes, pruned by folds (by Optuna)
learning   measures whether more data, more capacity or more regularisation would help
"""

from recsys.tune.learning import learning_curve
from recsys.tune.study import tune

__all__ = ["learning_curve", "tune"]
