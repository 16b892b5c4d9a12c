"""Search for the settings of a model, on the train part of a run alone.

space      what is searched: lists and ranges, from TOML or from the model itself
folds      parts of train that stand in for the test, and one number a user on each
study      the search: resumable, safe for several processes, pruned by folds (Optuna underneath)
learning   would more data, more capacity or more regularisation help: measured, not guessed
"""

from recsys.tune.learning import learn
from recsys.tune.study import tune

__all__ = ["learn", "tune"]
