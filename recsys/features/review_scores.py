"""Predict the scores of reviews from their words, by ridge regression on TF-IDF weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import Ridge

from recsys.data.hashing import id_hash
from recsys.errors import InputError
from recsys.linalg import one_blas_thread

STRENGTHS = (0.3, 0.6, 1.0, 2.0, 4.0)
"""The strengths of the ridge penalty that are tried."""

FOLDS = 5

LEAST_REVIEWS = 50
"""Smallest number of reviews with a score from which the scores of other texts are predicted."""


@dataclass
class ReviewScores:
    """Predicts the score of a review from its words and pairs of neighbouring words.

    :meth:`fit` divides the reviews into five folds by a hash of the text, so equal texts are in the
    same fold. Each fold is predicted from the other four. Of the ridge penalties in
    :data:`STRENGTHS`, the one with the smallest error is used. This error is the smallest of five,
    so it is slightly too small for new reviews.

    If all scores of :meth:`fit` are whole numbers, :meth:`whole_scores` rounds predictions by
    cut-offs. These are chosen so that each whole score has the same share among the rounded
    predictions as among the scores of :meth:`fit`.

    Attributes:
        record: name -> number: ``reviews``, the number of reviews with a score; ``strength``, the
            chosen penalty; and over the five folds ``rmse`` and ``pearson`` of the predictions, and
            ``rmse_of_mean``, the error if every score is predicted by the mean.
        held_out: float64[n], the prediction of each review of :meth:`fit` from the other four folds,
            within the range of the scores. It is NaN if none of the words of the review is in at
            least two reviews with a score in these folds.
        levels: float64[levels], the distinct whole scores, ascending. None if scores are not whole.
        cut_offs: float64[levels - 1], ascending, the limits between neighbouring levels. None if
            scores are not whole.
    """

    record: dict[str, float] = field(default_factory=dict)
    held_out: np.ndarray = field(default_factory=lambda: np.empty(0))
    levels: np.ndarray | None = None
    cut_offs: np.ndarray | None = None

    def fit(
        self, texts: Sequence[str] | np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
    ) -> ReviewScores:
        """Learn the weights of words from reviews with a score.

        Args:
            texts: one text per review.
            scores: float64[n]. NaN for a review without a score, from which nothing is learned.
            groups: the item of each review. Then all reviews of one item are in one fold, so
                ``held_out`` and the errors are those for items without any known score. None: folds
                are made by a hash of the texts.

        Raises:
            InputError: there are fewer than ``LEAST_REVIEWS`` reviews with a score, all scores are
                equal, they are in a single fold, or no word is in two of them.
        """
        documents = pd.Series(list(texts), dtype=object).to_numpy()
        scores = np.asarray(scores, dtype=np.float64)
        has_score = np.isfinite(scores)
        known_scores = scores[has_score]
        if len(known_scores) < LEAST_REVIEWS or len(np.unique(known_scores)) < 2:
            raise InputError(
                f"{len(known_scores):,} reviews with {len(np.unique(known_scores)):,} different scores: at least"
                f" {LEAST_REVIEWS} reviews with two scores are needed to learn what words say."
            )
        fold = (id_hash(documents if groups is None else groups, seed=0) * FOLDS).astype(int)
        if len(np.unique(fold[has_score])) < 2:
            raise InputError("the reviews with a score are of too few items to be divided into folds: add items.")
        self._range = float(known_scores.min()), float(known_scores.max())
        self._counter, counts = _count_words(documents)
        predicted = np.full((len(STRENGTHS), len(scores)), np.nan)
        has_words = np.zeros(len(scores), dtype=bool)
        for number in np.unique(fold):
            in_fold = fold == number
            # Words are counted once; what is weighted by them is learned from the other folds alone.
            weights = _WordWeights(counts[has_score & ~in_fold])
            train = weights.transform(counts[has_score & ~in_fold])
            test = weights.transform(counts[in_fold])
            has_words[in_fold] = np.diff(test.indptr) > 0
            for row, strength in enumerate(STRENGTHS):
                predicted[row, in_fold] = _fit_ridge(train, scores[has_score & ~in_fold], strength).predict(test)
        errors = np.sqrt(((predicted[:, has_score] - known_scores) ** 2).mean(axis=1))
        best_row = int(errors.argmin())
        self.held_out = np.where(has_words, np.clip(predicted[best_row], *self._range), np.nan)
        predicted_scores = predicted[best_row, has_score]
        self.record = {
            "reviews": len(known_scores),
            "strength": STRENGTHS[best_row],
            "rmse": float(errors[best_row]),
            "rmse_of_mean": float(known_scores.std()),
            "pearson": _correlation(predicted_scores, known_scores),
        }
        self.levels, self.cut_offs = None, None
        if (known_scores == np.round(known_scores)).all():
            self.levels, level_counts = np.unique(known_scores, return_counts=True)
            shares = np.cumsum(level_counts)[:-1] / len(known_scores)
            self.cut_offs = np.quantile(predicted_scores, shares)
        self._weights = _WordWeights(counts[has_score])
        self._ridge = _fit_ridge(self._weights.transform(counts[has_score]), known_scores, STRENGTHS[best_row])
        return self

    def predict(self, texts: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return the predicted score of each text, float64[n], within the range of the given scores.

        The prediction is NaN if none of the words of the text is in at least two of the reviews
        with a score.
        """
        # scikit-learn refuses to transform no texts at all.
        if not len(texts):
            return np.empty(0)
        matrix = self._transform(list(texts))
        predicted = np.clip(self._ridge.predict(matrix), *self._range)
        return np.where(np.diff(matrix.indptr) > 0, predicted, np.nan)

    def whole_scores(self, predicted: np.ndarray) -> np.ndarray:
        """Round predictions to whole scores by the cut-offs, and return them: float64[n].

        NaN stays NaN. All predictions are unchanged if the scores of :meth:`fit` were not whole.

        Args:
            predicted: float64[n], the predictions.
        """
        if self.levels is None or self.cut_offs is None:
            return predicted
        level = np.searchsorted(self.cut_offs, predicted, side="right").clip(max=len(self.levels) - 1)
        return np.where(np.isnan(predicted), np.nan, self.levels[level])

    def explain(self, text: str) -> dict[str, float]:
        """Return what each word of a text adds to its predicted score, as a dict: word -> number.

        The keys are the words and the pairs of neighbouring words that have a weight, those with
        the largest absolute effect first. The numbers and :attr:`constant` add up to the
        prediction, before it is limited to the range of the scores.
        """
        row = self._transform([text])
        names = self._names
        parts = {
            names[column]: float(value * self._ridge.coef_[column])
            for column, value in zip(row.indices, row.data, strict=True)
        }
        return dict(sorted(parts.items(), key=lambda part: -abs(part[1])))

    def _transform(self, texts: list[str]) -> csr_array:
        return self._weights.transform(csr_array(self._counter.transform(texts)))

    @property
    def _names(self) -> np.ndarray:
        """The words and pairs that have a weight, in the order of the columns."""
        return np.asarray(self._counter.get_feature_names_out())[self._weights.columns]

    @property
    def constant(self) -> float:
        """The score of a text before any word is counted: the intercept of the regression."""
        return float(self._ridge.intercept_)

    def strongest_words(self, count: int) -> tuple[list[str], list[str]]:
        """Return the words and pairs of words with the largest weights, and with the smallest.

        Each of the two lists begins with the most extreme weight.

        Args:
            count: the length of each list. It is shorter if there are fewer words.
        """
        names = self._names
        order = np.argsort(self._ridge.coef_, kind="stable")
        return names[order[::-1][:count]].tolist(), names[order[:count]].tolist()


def scores_of_items(item_ids: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Estimate the mean score of each item by empirical Bayes, and return one row per item.

    The columns are ``item_id`` (ascending), ``score``, ``error`` and ``reviews`` (the number n of
    reviews of the item). With the variance σ² of scores within an item and the variance τ² of the
    true means of items:

        score = m + w · (mean of the item − m)            w = τ² / (τ² + σ²/n)
        error = √((1 − w) τ² + (1 − w)² V)                V = variance of m

    m is the mean of the means of all items, with the weights 1 / (τ² + σ²/n). So the score of an
    item with few reviews is close to m. ``error`` is the standard deviation of the true mean around
    ``score``. It ignores that σ² and τ² are estimates.

    σ² is the mean square within items. τ² is estimated from the sum of squares between items; the
    estimate is unbiased for any numbers of reviews, and a negative one is replaced by 0.

    If every item has equal scores, σ² cannot be estimated: ``score`` is the plain mean and
    ``error`` is NaN. If there is only one item, τ² cannot be estimated: ``score`` is the plain mean
    and ``error`` is the standard error σ / √n.

    Source: DerSimonian and Laird, Controlled Clinical Trials 1986; Henderson, Biometrics 1975.

    Args:
        item_ids: the item of each of r reviews.
        scores: float64[r], finite.
    """
    item, ids = pd.factorize(np.asarray(item_ids), sort=True)
    n = np.bincount(item)
    mean = np.bincount(item, scores) / n
    table = pd.DataFrame({"item_id": ids, "score": mean, "error": np.nan, "reviews": n})
    smallest = np.full(len(n), np.inf)
    np.minimum.at(smallest, item, scores)
    if (scores == smallest[item]).all():
        return table
    within_variance = float(((scores - mean[item]) ** 2).sum()) / (len(scores) - len(n))
    if len(n) == 1:
        return table.assign(error=np.sqrt(within_variance / n))
    between_sum = float((n * (mean - np.average(mean, weights=n)) ** 2).sum())
    # The expectation of the sum is (items - 1) within_variance + (reviews - sum of n^2 / reviews)
    # between_variance.
    coefficient = len(scores) - (n**2).sum() / len(scores)
    between_variance = max((between_sum - (len(n) - 1) * within_variance) / coefficient, 0.0)
    precision = 1 / (between_variance + within_variance / n)
    overall = float(np.average(mean, weights=precision))
    weight = between_variance * precision
    error = np.sqrt((1 - weight) * between_variance + (1 - weight) ** 2 / precision.sum())
    return table.assign(score=overall + weight * (mean - overall), error=error)


class _WordWeights:
    """TF-IDF with the words that are in two of some documents or more, and their frequencies there.

    Attributes:
        columns: int[words], the columns of these words among all counted ones.
    """

    def __init__(self, counts: csr_array) -> None:
        """Learn the frequencies of words from the counts of some documents.

        Raises:
            InputError: no word is in two of them.
        """
        self.columns = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]) >= 2)
        if not len(self.columns):
            raise InputError(_WITHOUT_WORDS)
        self._tfidf = TfidfTransformer(sublinear_tf=True).fit(counts[:, self.columns])

    def transform(self, counts: csr_array) -> csr_array:
        """Return the weighted counts of the words, rows of length 1."""
        return csr_array(self._tfidf.transform(counts[:, self.columns]))


_WITHOUT_WORDS = "the texts have no words to learn from: no word is in two of the reviews with a score."


def _count_words(documents: np.ndarray) -> tuple[CountVectorizer, csr_array]:
    """Return the counter of words and pairs that are in two documents or more, and its counts."""
    counter = CountVectorizer(ngram_range=(1, 2), min_df=2, dtype=np.float64)
    try:
        return counter, csr_array(counter.fit_transform(documents))
    except ValueError as error:
        raise InputError(_WITHOUT_WORDS) from error


def _correlation(predicted: np.ndarray, scores: np.ndarray) -> float:
    """Return Pearson's correlation, 0 if all predictions are equal."""
    if np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(predicted, scores)[0, 1])


def _fit_ridge(matrix: csr_array, scores: np.ndarray, strength: float) -> Ridge:
    # The vectors of conjugate gradients are short: several threads of BLAS would only wait for each other.
    with one_blas_thread():
        return Ridge(alpha=strength, solver="sparse_cg", tol=1e-4).fit(matrix, scores)
