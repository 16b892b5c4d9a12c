"""Fit models of Surprise on folds that another program made: `python bench/surprise_ratings.py PAIRS.npz OUT.npz NAME`.

It is started by bench/ratings.py with the Python of an environment that has scikit-surprise, and needs nothing of this
package. PAIRS has `user`, `item`, `value` and `fold`, one entry per rating. OUT gets `predicted`, one per rating, from
the model that was fitted on the other folds, and `seconds`, the CPU seconds of fitting and predicting alone.
"""

import sys
import time

import numpy as np
import surprise

NAMES = ("BaselineOnly", "KNNBaseline", "SVD", "SVDpp")


def main() -> None:
    """Predict every fold from the others by the model NAME at its defaults."""
    source, target, name = sys.argv[1:]
    pairs = np.load(source)
    user = pairs["user"].tolist()
    item = pairs["item"].tolist()
    value = pairs["value"].tolist()
    fold = pairs["fold"]
    reader = surprise.Reader(rating_scale=(min(value), max(value)))
    data = surprise.Dataset(reader)
    predicted = np.empty(len(value))
    seconds = 0.0
    for number in np.unique(fold):
        train = data.construct_trainset(
            [(user[row], item[row], value[row], None) for row in np.flatnonzero(fold != number)]
        )
        rows = np.flatnonzero(fold == number)
        options = {} if name in ("SVD", "SVDpp") else {"verbose": False}
        if name in ("SVD", "SVDpp"):
            options["random_state"] = 0
        start = time.process_time()
        model = getattr(surprise, name)(**options).fit(train)
        predicted[rows] = [model.predict(user[row], item[row]).est for row in rows]
        seconds += time.process_time() - start
    np.savez(target, predicted=predicted, seconds=seconds)


if __name__ == "__main__":
    main()
