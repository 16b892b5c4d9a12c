"""Every kind of ALS on random logs: finite factors that solve their normal equations, or one sentence.

``PYTHONPATH=tests python tests/models/test_als_random_logs.py 2000`` tries that many logs instead of a sample.
"""

import sys

import numpy as np
import pytest
from hypothesis import settings
from random_logs import backward_error, random_log, require_one_sentence
from scipy.sparse import csr_array

from recsys.als import solvers
from recsys.models import build
from recsys.models.collaborative import als as local_als
from recsys.types import Features, Histories

KINDS = ("als", "attributes", "content_als")


def train(kind, log):
    """Return the trained model and the last half-step of its items: (matrix, users, objective, items)."""
    rng = np.random.default_rng(log.seed)
    dense_terms = rng.random((log.matrix.shape[1], 6)) < 0.3
    dense_terms[0] = True
    terms = csr_array(dense_terms.astype(np.float32))
    params = log.params | {"solver": str(rng.choice(["cg", "cholesky"]))}
    matrices, half_steps = [], []
    train_factors, implicit_rows = local_als.ALS._train_factors, solvers.implicit_rows

    def record_matrix(self, matrix):
        matrices.append(matrix)
        return train_factors(self, matrix)

    def record_half_step(equations, fixed, axes=None, initial=None):
        half_steps.append((fixed, implicit_rows(equations, fixed, axes, initial)))
        return half_steps[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_als.ALS, "_train_factors", record_matrix)
        patch.setattr(solvers, "implicit_rows", record_half_step)
        model = build(kind, params).fit(log.interactions(), Features(terms, tuple(f"genre={n}" for n in range(6))))
    users, items = half_steps[-1]
    return model, (matrices[0].T.tocsr(), users, model.objective, items)


def check(kind, log):
    """Raise AssertionError unless the model is refused in one sentence, or finite and solved."""
    try:
        model, (matrix, users, objective, items) = train(kind, log)
    except Exception as error:
        require_one_sentence(error, log)
        return "refused"
    assert np.isfinite(model.item_factors_).all()
    assert np.isfinite(model.losses_).all()
    if model.solver == "cholesky":
        without_factors = (1 + objective.alpha * matrix.data[matrix.data > 0].astype(np.float64)).sum()
        # A smaller penalty is lost in the rounding of single precision.
        if objective.reg > 1e-5:
            assert (np.diff(model.losses_) <= 1e-6 * without_factors).all(), "the objective rises"
        assert backward_error(items, users, matrix, objective) < 1e-5, "items"
    histories = Histories(csr_array(log.matrix * model.known_[None, :]))
    x = model.user_factors(histories)
    assert backward_error(x, model.item_factors_, histories.values, model.objective) < 1e-6, "users"
    scores = model.score(histories)[np.ix_(np.flatnonzero(model.can_score(histories)), model.known_)]
    assert np.isfinite(scores).all()
    return "trained"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_random_logs_are_solved_or_refused_in_one_sentence(kind):
    results = [check(kind, random_log(seed)) for seed in range(settings().max_examples)]
    assert {"trained", "refused"} == set(results), "the logs are too easy, or too hard, to show anything"


def main(count):
    """Print what happened to ``count`` logs per kind, and each fault with its log."""
    for kind in KINDS:
        results = []
        for seed in range(count):
            log = random_log(seed)
            try:
                results.append(check(kind, log))
            except AssertionError as error:
                results.append("fault")
                print(f"{kind}, log {seed} {log.matrix.shape} {log.params}: {error}".splitlines()[0])
        print(kind, {name: results.count(name) for name in sorted(set(results))}, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
