"""Search for the settings of a model, on the train part of a run alone.

space      the values to try: lists and ranges, from TOML or from the model itself
folds      splits of train into its own train and test, and the metric of a model on such a split
study      the search by Optuna: it can be continued, and several processes can work on it
learning   measures whether more data, more capacity or more regularisation would help
"""

from recsys.tune.learning import learning_curve
from recsys.tune.study import tune

__all__ = ["learning_curve", "tune"]
