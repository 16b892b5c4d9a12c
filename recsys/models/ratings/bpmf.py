"""The model ``bpmf``: Bayesian matrix factorization with biases, by Gibbs sampling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy import linalg, stats
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from recsys.errors import ConfigError
from recsys.features.reviews import text_scores
from recsys.features.terms import weigh_terms
from recsys.linalg import one_blas_thread
from recsys.logging import log_phase
from recsys.models.ratings.gibbs import draw_factors, pair_scores
from recsys.parameters import STRICT
from recsys.rating_model import ITEM_PART, MATCH_PART, MEAN_PART, USER_PART, RatingExplanation, RatingModel
from recsys.types import Features, IdMap, Interactions

PAIRS = 1 << 16
"""Number of pairs that are predicted at a time, to limit memory."""

DENSE_TERMS = 1_000
"""Largest number of terms whose covariances are computed as a dense matrix."""


@dataclass(config=STRICT)
class BPMF(RatingModel):
    """Bayesian matrix factorization: the mean over many draws of the factors, instead of one best fit.

    Choose it for the smallest errors without tuning. A rating is

        r_ui = μ + b_u + c_i + x_u·y_i + noise of precision α

    where μ is the mean of all ratings, b_u and c_i are biases, and x_u and y_i are factors. The
    vectors (b_u, x_u) of all users are normal with one unknown mean and precision matrix, and so
    are the vectors (c_i, y_i) of all items. The mean and the precision matrix have the prior of the
    reference: Normal-Wishart with μ₀ = 0, β₀ = 2, W₀ = I and ``rank`` + 1 degrees of freedom. α has
    a Gamma(1, 1) prior. Gibbs sampling draws all of them in turn. The draws of the first
    ``burn_in`` sweeps are dropped, those of the next ``samples`` sweeps are kept. The prediction is
    the mean over the kept draws. The spread is the root of their variance plus that of the noise.
    Regularization needs no tuning, because its strength is drawn too.

    With ``use_features``, the mean of (c_i, y_i) depends on the features f_i of the item: it is
    m + Wᵀ f_i. f_i has the first ``components`` principal components of the attributes of the item,
    and its text score. Over all items, each of these numbers has mean 0 and variance 1; a missing
    number is 0. The weights W are normal with precision λ, which has a Gamma(1, 1) prior. Both are
    drawn too.

    The prediction is NaN for a user without ratings. It is also NaN for an item without ratings,
    except with ``use_features`` if f_i has a number other than 0. The kept draws take
    4·samples·(rank + 1)·(users + items) bytes.

    Reference: Salakhutdinov and Mnih, ICML 2008, section 3; the biases are one more number in each
    factor. Features: Simm et al., MLSP 2017 (Macau), here with weights that are independent of the
    precision matrix.
    """

    STATE: ClassVar = {
        "mean_": "float64[1]",
        "user_draws_": "float32[samples, users, numbers]",
        "item_draws_": "float32[samples, items, numbers]",
        "noise_": "float64[samples]",
        "known_users_": "bool[users]",
        "known_items_": "bool[items]",
    }
    HAS_SPREAD: ClassVar = True

    rank: Annotated[int, Field(ge=1, le=256, description="number of latent factors per user and per item")] = 8
    burn_in: Annotated[int, Field(ge=0, description="sweeps that are forgotten")] = 40
    samples: Annotated[int, Field(ge=1, description="sweeps after them, whose draws are kept and averaged")] = 80
    use_features: Annotated[
        bool, Field(description="whether attributes of items and `[data] reviews` move the means of item factors")
    ] = False
    components: Annotated[
        int, Field(ge=1, le=64, description="largest number of principal components of the attributes")
    ] = 16
    seed: Annotated[int, Field(ge=0, description="seed of the draws")] = 0

    @property
    def uses_features(self) -> bool:
        """Whether ``use_features`` is set."""
        return self.use_features

    def fit(self, train: Interactions, features: Features | None = None) -> Self:
        """Draw factors, biases, their priors and the noise in turn, and return the model.

        The draws after ``burn_in`` are kept. ``features`` is used only if ``use_features`` is set.

        Raises:
            ConfigError: ``use_features`` is set, and no attribute or text score differs between
                items.
            InputError: ``use_features`` is set, and there are reviews, but too few with a score.
        """
        side = np.empty((len(train.items), 0))
        if self.use_features:
            side = describe_items(features, train.items, self.components)
        # The matrices are small: several threads of BLAS would only wait for each other.
        sizes = {"users": len(train.users), "items": len(train.items), "rank": self.rank}
        with log_phase("bpmf", **sizes), one_blas_thread():
            self._sample(train, side)
        return self

    def _sample(self, train: Interactions, side: np.ndarray) -> None:
        """Draw and keep. ``side`` is f, float64[items, k]."""
        rng = np.random.default_rng(self.seed)
        rating = train.value.astype(np.float64)
        users = len(train.users)
        items = len(train.items)
        mean = rating.mean()
        deviation = rating - mean
        by_item = np.argsort(train.item, kind="stable")
        user_indptr = np.append(0, np.cumsum(np.bincount(train.user, minlength=users)))
        item_indptr = np.append(0, np.cumsum(np.bincount(train.item, minlength=items)))
        user_of_item = train.user[by_item]
        numbers = self.rank + 1
        # Number 0 of a factor is the bias.
        x = rng.normal(0.0, 0.1, (users, numbers))
        y = rng.normal(0.0, 0.1, (items, numbers))
        noise_precision = 1 / max(deviation.var(), 1e-6)
        weights = np.zeros((side.shape[1], numbers))
        self.mean_ = np.array([mean])
        self.user_draws_ = np.empty((self.samples, users, numbers), dtype=np.float32)
        self.item_draws_ = np.empty((self.samples, items, numbers), dtype=np.float32)
        self.noise_ = np.empty(self.samples)
        for sweep in range(self.burn_in + self.samples):
            centre, precision = draw_prior(x, rng)
            x = draw_factors(
                user_indptr,
                train.item,
                deviation - y[train.item, 0],
                with_constant(y),
                precision,
                np.broadcast_to(precision @ centre, x.shape),
                noise_precision,
                rng.normal(size=x.shape),
            )
            centre, precision = draw_prior(y - side @ weights, rng)
            if len(weights):
                weights = draw_weights(y - centre, side, precision, draw_noise_precision(weights, rng), rng)
            y = draw_factors(
                item_indptr,
                user_of_item,
                (deviation - x[train.user, 0])[by_item],
                with_constant(x),
                precision,
                (centre + side @ weights) @ precision,
                noise_precision,
                rng.normal(size=y.shape),
            )
            error = deviation - pair_scores(x, y, train.user, train.item)
            noise_precision = draw_noise_precision(error, rng)
            draw = sweep - self.burn_in
            if draw >= 0:
                self.user_draws_[draw] = x
                self.item_draws_[draw] = y
                self.noise_[draw] = 1 / noise_precision
        self.known_users_ = np.diff(user_indptr) > 0
        self.known_items_ = (np.diff(item_indptr) > 0) | side.any(axis=1)

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the mean over the kept draws of the rating of each pair, float64[m].

        It is NaN for a user without ratings in train. It is also NaN for an item without ratings in
        train, unless the item has features and ``use_features`` is set.

        Args:
            users, items: int[m], rows of the users and of the items of train, -1 where unknown.
        """
        return self._moments(users, items)[0]

    def spread(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return the standard deviation of each rating around its prediction, float64[m].

        It is the root of the sum of two variances: that of the prediction over the kept draws, and
        the mean variance of the noise. It is NaN where the prediction is NaN. The arguments are
        those of :meth:`predict`.
        """
        return np.sqrt(self._moments(users, items)[1] + self.noise_.mean())

    def explain(self, user: int, item: int) -> RatingExplanation:
        """Return the parts of one prediction, each the mean over the draws: the mean of all ratings, the two
        biases, and the product of the factors.
        """
        if np.isnan(self.predict(np.array([user]), np.array([item]))[0]):
            return RatingExplanation({})
        x = self.user_draws_[:, user].astype(np.float64)
        y = self.item_draws_[:, item].astype(np.float64)
        return RatingExplanation(
            {
                MEAN_PART: float(self.mean_[0]),
                USER_PART: float(x[:, 0].mean()),
                ITEM_PART: float(y[:, 0].mean()),
                MATCH_PART: float((x[:, 1:] * y[:, 1:]).sum(axis=1).mean()),
            }
        )

    def _moments(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the variance over the draws of each pair, float64[m] each."""
        is_known = (users >= 0) & (items >= 0)
        is_known[is_known] = self.known_users_[users[is_known]] & self.known_items_[items[is_known]]
        rows = np.flatnonzero(is_known)
        mean = np.full(len(users), np.nan)
        variance = np.full(len(users), np.nan)
        for start in range(0, len(rows), PAIRS):
            part = rows[start : start + PAIRS]
            total = np.zeros(len(part))
            squares = np.zeros(len(part))
            for x, y in zip(self.user_draws_, self.item_draws_, strict=True):
                score = pair_scores(x, y, users[part], items[part])
                total += score
                squares += score**2
            mean[part] = self.mean_[0] + total / len(self.user_draws_)
            variance[part] = np.maximum(squares / len(self.user_draws_) - (total / len(self.user_draws_)) ** 2, 0.0)
        return mean, variance


def with_constant(factors: np.ndarray) -> np.ndarray:
    """Return a copy of factors whose first column is 1 instead of the bias.

    The product with the factors of the other side then includes the bias of the other side.

    Args:
        factors: float64[n, rank + 1], with the biases in the first column.
    """
    features = factors.copy()
    features[:, 0] = 1.0
    return features


def draw_prior(factors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mean and the precision matrix of the normal distribution of factors, given the factors.

    The posterior is Normal-Wishart, equation 14 of the reference, with μ₀ = 0, β₀ = 2, W₀ = I and
    ν₀ = d.

    Args:
        factors: float64[n, d].
        rng: the source of the random numbers.

    Returns:
        the mean, float64[d], and the precision matrix, float64[d, d].
    """
    n, d = factors.shape
    beta = 2.0
    average = factors.mean(axis=0)
    centred = factors - average
    inverse_scale = np.eye(d) + centred.T @ centred + (beta * n / (beta + n)) * np.outer(average, average)
    scale = linalg.inv(inverse_scale)
    precision = np.atleast_2d(stats.wishart.rvs(df=d + n, scale=(scale + scale.T) / 2, random_state=rng))
    root = linalg.cholesky((beta + n) * precision, lower=True)
    mean = n * average / (beta + n)
    return mean + linalg.solve_triangular(root.T, rng.normal(size=d)), precision


def draw_weights(
    factors: np.ndarray, side: np.ndarray, precision: np.ndarray, weight_precision: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the weights W of the features of items from their normal posterior, float64[k, d].

    The model is y_i = Wᵀ f_i + e_i, where e_i is normal with mean 0 and precision Λ, and the prior of
    each weight is normal with mean 0 and precision λ. The posterior of vec(W), its columns below each
    other, has the precision A = Λ ⊗ FᵀF + λ I and the mean A⁻¹ vec(Fᵀ Y Λ).

    Args:
        factors: float64[n, d], Y, without their common mean.
        side: float64[n, k], F.
        precision: float64[d, d], Λ.
        weight_precision: λ > 0.
        rng: the source of the random numbers.
    """
    k, d = side.shape[1], factors.shape[1]
    a = np.kron(precision, side.T @ side) + weight_precision * np.eye(k * d)
    b = (side.T @ factors @ precision).ravel(order="F")
    root = linalg.cholesky(a, lower=True)
    draw = linalg.solve_triangular(root.T, linalg.solve_triangular(root, b, lower=True) + rng.normal(size=k * d))
    return np.asarray(draw).reshape((k, d), order="F")


def describe_items(features: Features | None, items: IdMap, components: int) -> np.ndarray:
    """Return the features of each item as k numbers, float64[items, k].

    The columns are the first principal components of the weighted attributes and, if there are
    reviews, the text score. Each column has mean 0 and variance 1 over the items that have a value.
    The others have 0. Columns whose values are all equal are left out.

    Args:
        features: the features of the items, or None.
        items: the id map of the items.
        components: the largest number of principal components.

    Raises:
        ConfigError: no column is left.
        InputError: there are reviews, but too few with a score.
    """
    columns = []
    if features is not None and features.matrix.nnz:
        columns += list(principal_components(weigh_terms(features).astype(np.float64), components).T)
    if features is not None and features.reviews is not None:
        columns.append(text_scores(features, items)[1])
    columns = [column for column in columns if np.nanstd(column) > 0] if columns else []
    if not columns:
        raise ConfigError(
            "model 'bpmf': use_features needs something that differs between items: give [data] items a table with"
            " attributes, or [data] reviews."
        )
    standardized = [(column - np.nanmean(column)) / np.nanstd(column) for column in columns]
    return np.nan_to_num(np.column_stack(standardized), nan=0.0)


def principal_components(terms: csr_array, count: int) -> np.ndarray:
    """Return the first principal components of items with terms, float64[items, k], where k ≤ ``count``.

    Components that are constant up to rounding are left out. The row of an item without terms is
    NaN. If there are more than :data:`DENSE_TERMS` terms, their means are not subtracted before,
    so that they stay sparse.

    Args:
        terms: float64 csr (items, terms), at least one entry.
        count: the largest number of components.
    """
    has_terms = np.diff(terms.indptr) > 0
    described = terms[has_terms]
    if terms.shape[1] <= DENSE_TERMS:
        mean = described.mean(axis=0)
        covariance = (described.T @ described).toarray() / described.shape[0] - np.outer(mean, mean)
        variances, directions = linalg.eigh(covariance)
        largest = np.argsort(-variances, kind="stable")[:count]
        is_kept = variances[largest] > 1e-12 * max(variances.max(), 1e-300)
        projected = described @ directions[:, largest[is_kept]]
    elif described.shape[0] == 1:
        projected = np.empty((1, 0))
    else:
        # The start is fixed, so that a second fit gives the same numbers.
        start = np.ones(min(described.shape))
        left_vectors, values, _ = svds(described, k=min(count, len(start) - 1), v0=start)
        is_kept = values > 1e-6 * values.max()
        projected = (left_vectors * values)[:, is_kept]
    components = np.full((terms.shape[0], projected.shape[1]), np.nan)
    components[has_terms] = projected
    return components


def draw_noise_precision(errors: np.ndarray, rng: np.random.Generator) -> float:
    """Draw the precision of normal noise, given the errors, with a Gamma(1, 1) prior.

    The posterior is Gamma with shape 1 + n/2 and rate 1 + Σ errors² / 2.

    Args:
        errors: float64[n], ratings minus their predictions, or an array of other numbers of mean 0.
        rng: the source of the random numbers.
    """
    return float(rng.gamma(1 + errors.size / 2, 1 / (1 + (errors**2).sum() / 2)))
