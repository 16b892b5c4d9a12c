"""The engine of a run with ``[judge] task = "ratings"``.

It fits models, predicts the ratings of the test, and judges the errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from recsys import models, run_files
from recsys.config import Config
from recsys.data.hashing import hash_words
from recsys.data.rating_pairs import rating_per_pair
from recsys.data.reading.read import Tables
from recsys.data.splitting.split import split
from recsys.data.splitting.strategies import AnyRule, Folds
from recsys.data.weigh import (
    WeightSettings,
    aggregate_events,
    filter_events,
    interactions_to_table,
)
from recsys.engine import Engine
from recsys.errors import ConfigError, InputError
from recsys.evaluation.error_parts import describe_refits
from recsys.evaluation.rating_summary import (
    PredictedRatings,
    RatedPairs,
    errors_per_user,
    summarise_ratings,
)
from recsys.evaluation.settings import RATING_BASELINES, TEXT_FALLBACK
from recsys.features.encoding import encode_features
from recsys.features.reviews import add_reviewed_items, fill_ratings, reviews_of_train
from recsys.local_engine import read_tables_of_run
from recsys.models.ratings.stack import keep_entries
from recsys.parameters import build_each, is_class_path
from recsys.rating_model import RatingModel, predict_ratings
from recsys.runfolder import RunFolder
from recsys.schema import FOLD, ITEM, SCORE, SOURCE, SPREAD, TIME, USER
from recsys.types import Features, IdMap, Interactions, Split

ONE_PER_PAIR = WeightSettings(aggregate="max")
"""How ratings are aggregated. Each pair has only one rating, which stays as it is."""


REFIT_QUARTERS = {0.25: ((0,), (2,)), 0.5: ((0, 1), (2, 3))}
"""Share of train -> the quarters of the two parts on which models are fitted again, for ``[judge] refits``.

The two parts share no rating, so that their fits are independent.
"""

REFIT_SALT = 0x726566697473
"""Hashed with the rows of a pair to divide train into quarters (the letters of "refits")."""


@dataclass(frozen=True, eq=False)
class TestPart:
    """The tested pairs of one split, with users and items as rows of its train part.

    Attributes:
        fold: the number of the fold; 1 if there is only one split.
        train: the ratings that models learn from.
        users, items: int[n], the rows of the users and of the items of the tested pairs in train,
            -1 if train does not have them.
        features: the features of the items of train. None if there are none.
    """

    fold: int
    train: Interactions
    users: np.ndarray
    items: np.ndarray
    features: Features | None


class RatingsEngine(Engine):
    """The engine that runs a config with ``[judge] task = "ratings"`` in this process.

    With ``[split] rule = "folds"`` every model is fitted once per fold, and once on all ratings.
    The model of all ratings is saved. With another rule, a model is fitted once, on train.

    Attributes:
        tables: the checked tables. Set by :meth:`read_events`.
        parts: the test part of each fold. Set by :meth:`split_events`.
        pairs: the tested pairs of all folds, with their true ratings. Set by :meth:`split_events`.
        scale: the smallest and the largest rating. Predictions are clipped to this range. Set by
            :meth:`split_events`.
    """

    prediction_hop = "predict"

    tables: Tables
    parts: list[TestPart]
    pairs: RatedPairs
    scale: tuple[float, float]

    def __init__(self, config: Config) -> None:
        """Check the configured models before anything is read.

        Raises:
            ConfigError: a kind of model does not exist or predicts no ratings, or a parameter is
                unknown or not valid. The message names all of them.
        """
        super().__init__(config)
        self._builders: dict[str, Callable[[], RatingModel]] = {}
        baselines = list(RATING_BASELINES)
        if config.data.reviews is not None:
            baselines.append(TEXT_FALLBACK)
        self._fallback_name = baselines[-1]
        for name in dict.fromkeys([*baselines, *config.models]):
            self._builders[name] = lambda name=name: configured_model(name, config)  # type: ignore[misc]
        build_each(lambda name: self._builders[name](), self._builders)
        self._require_reviews()
        self._uses_features = any(build().uses_features for build in self._builders.values())
        self._fitted: list[RatingModel] = []
        self._fallbacks: list[RatingModel] = []
        self._predictions: dict[str, PredictedRatings] = {}
        self._refits: dict[str, dict[str, Any]] = {}
        self._all_ratings: TestPart | None = None

    def _require_reviews(self) -> None:
        """Raise ConfigError if a model needs reviews, and the config names none."""
        needy = [name for name, build in self._builders.items() if build().NEEDS_REVIEWS]
        if needy and self.config.data.reviews is None:
            raise ConfigError(f"model '{needy[0]}' learns from reviews: give [data] reviews a table, or remove it.")

    def read_events(self) -> None:
        """Read and check the tables, and write the refused rows and the data card.

        Raises:
            InputError: a table cannot be read, or too many of its rows are refused.
        """
        self.tables = read_tables_of_run(self.config, self.folder)

    def split_events(self) -> None:
        """Keep one rating per (user, item) pair, split the ratings, and write the parts.

        Raises:
            InputError: all ratings have one value, the split has no train or no test, or train has
                fewer than four ratings and models are to be fitted on its quarters.
        """
        config = self.config
        rule = config.rule(timed=TIME in self.tables.log)
        events, merged = rating_per_pair(self.tables.take_log())
        splits = {number: self._split(events, of_fold) for number, of_fold in folds_of(rule).items()}
        self.parts = [self._test_part(number, parts.train, parts.test) for number, parts in splits.items()]
        first = next(iter(splits.values()))
        about = first.about | {"merged_ratings": merged}
        train, test = self.parts[0].train, first.test
        if len(splits) > 1:
            filtered, _ = filter_events(events, config.filter)
            candidates = (part.train.items.ids for part in splits.values())
            items = IdMap.from_ids(filtered[ITEM], *candidates)
            train = aggregate_events(filtered, "max", IdMap.from_ids(filtered[USER]), items)
            test = aggregate_events(events, "max", IdMap.from_ids(events[USER]), IdMap.from_ids(events[ITEM]))
            self._all_ratings = self._test_part(0, train, None)
            train = self._all_ratings.train
            about["folds"] = [
                {"fold": number, "train_rows": len(parts.train), "test_rows": len(parts.test)}
                for number, parts in splits.items()
            ]
        if config.judge.refits and len(self.parts[0].train) < 4:
            raise InputError(
                f"[judge] refits = {config.judge.refits} fits models on quarters of train, and train has"
                f" {len(self.parts[0].train)} ratings: give it at least four, or set refits = 0."
            )
        about["reviews"] = self._describe_reviews()
        self.pairs = _rated_pairs(splits, self.parts)
        self.scale = config.judge.scale or _range_of([part.train for part in self.parts])
        self._write_split(about, train, test)

    @property
    def model_names(self) -> list[str]:
        """The names of the baselines and of the configured models, in the order of the run."""
        return list(self._builders)

    def fit(self, name: str) -> None:
        """Fit the model ``name`` on the train part of every fold, and save it.

        With several folds, the saved model is fitted on all ratings.
        """
        self._fitted = [self._builders[name]().fit(part.train, part.features) for part in self.parts]
        if name == self._fallback_name:
            self._fallbacks = self._fitted
        saved = self._fitted[0]
        if self._all_ratings is not None:
            saved = self._builders[name]().fit(self._all_ratings.train, self._all_ratings.features)
        models.save(saved, self.folder.path / run_files.model_folder(name))

    def recommend(self, name: str) -> None:
        """Predict the ratings of the test with the model ``name``, and write the predictions.

        Where the model has no opinion, the fallback of the same fold predicts: the biases, or with
        reviews ``text_score``. Then the predictions are clipped to :attr:`scale`.

        Raises:
            InputError: the model returned something other than float64[m], or an infinite number.
        """
        predicted = []
        fallback = []
        spread = []
        for number, (part, model) in enumerate(zip(self.parts, self._fitted, strict=True)):
            predicted.append(predict_ratings(model, part.users, part.items))
            fallback.append(np.full(len(part.users), np.nan))
            if np.isnan(predicted[-1]).any():
                fallback[-1] = self._fallbacks[number].predict(part.users, part.items)
            spread.append(model.spread(part.users, part.items))
        raw = np.concatenate(predicted)
        is_fallback = np.isnan(raw)
        raw = np.where(is_fallback, np.concatenate(fallback), raw)
        clipped = np.clip(raw, *self.scale)
        self._predictions[name] = PredictedRatings(
            clipped,
            is_fallback,
            clipped != raw,
            np.concatenate(spread) if self._fitted[0].HAS_SPREAD else None,
        )
        self._write_predictions(name)
        self._fitted = []

    def judge(self, name: str) -> None:
        """Fit the model again on parts of train, if the config asks for it.

        The errors of all models are computed together, by :meth:`summarise`.
        """
        if not self.config.judge.refits:
            return
        part = self.parts[0]
        is_of_part = self.pairs.fold == part.fold
        refits: dict[float, list[list[np.ndarray]]] = {share: [] for share in REFIT_QUARTERS}
        for number in range(self.config.judge.refits):
            quarter = quarter_of_entries(part.train, self.config.seed, number)
            for share, two_parts in REFIT_QUARTERS.items():
                predictions = [self._predict_from_part(name, np.isin(quarter, quarters)) for quarters in two_parts]
                refits[share].append(predictions)
        predicted = self._predictions[name].predicted[is_of_part]
        of_shares = {share: np.array(predictions) for share, predictions in refits.items()}
        self._refits[name] = describe_refits(of_shares, predicted, self.pairs.rating[is_of_part])

    def _predict_from_part(self, name: str, keep: np.ndarray) -> np.ndarray:
        """Return the predictions, for the first test part, of a fit on the entries ``keep`` of its train part."""
        part = self.parts[0]
        train = keep_entries(part.train, keep)
        predicted = predict_ratings(self._builders[name]().fit(train, part.features), part.users, part.items)
        is_missing = np.isnan(predicted)
        if is_missing.any():
            fallback = self._builders[self._fallback_name]().fit(train, part.features)
            predicted = np.where(is_missing, fallback.predict(part.users, part.items), predicted)
        return np.clip(predicted, *self.scale)

    def summarise(self) -> dict[str, Any]:
        """Write the errors per user and the metrics, and return the content of metrics.json."""
        self.folder.write_table(run_files.PER_USER, errors_per_user(self.pairs, self._predictions))
        metrics = summarise_ratings(self.pairs, self._predictions, self.config.judge, self.scale)
        metrics["about"]["fallback"] = self._fallback_name
        if self._refits:
            metrics["about"]["refits"] = {"divisions": self.config.judge.refits, "models": self._refits}
        self.folder.write_json(run_files.METRICS, metrics)
        return metrics

    def pool_folds(self, folders: list[RunFolder]) -> dict[str, Any]:
        """Raise NotImplementedError, because a run of this engine has no rolling backtest."""
        raise NotImplementedError

    def _split(self, events: pd.DataFrame, rule: AnyRule) -> Split:
        items = add_reviewed_items(self.tables.items, self.tables.reviews)
        return split(events, rule, weighting=ONE_PER_PAIR, filters=self.config.filter, items=items)

    def _test_part(self, fold: int, train: Interactions, test: Interactions | None) -> TestPart:
        """Return the part of one fold, with what is known of its items, and filled-in ratings.

        Args:
            test: the ratings of the test. None: nothing is tested.
        """
        features = None
        if self.tables.items is not None and self._uses_features:
            features = encode_features(self.tables.items, ITEM, train.items)
        if self.tables.reviews is not None:
            reviews = reviews_of_train(self.tables.reviews, train, test)
            if self.config.data.fill_ratings:
                train, reviews = fill_ratings(train, reviews)
            nothing = Features(csr_array((len(train.items), 0), dtype=np.float32), ())
            features = replace(features or nothing, reviews=reviews)
        nobody = np.empty(0, dtype=np.int64)
        if test is None:
            return TestPart(fold, train, nobody, nobody, features)
        users = train.users.rows(test.users.ids)[test.user]
        items = train.items.rows(test.items.ids)[test.item]
        return TestPart(fold, train, users, items, features)

    def _describe_reviews(self) -> dict[str, int] | None:
        """Return the numbers of reviews that the models of the first part may learn from, or None."""
        features = self.parts[0].features
        if features is None or features.reviews is None or self.tables.reviews is None:
            return None
        reviews = features.reviews
        return {
            "rows": len(self.tables.reviews),
            "used": len(reviews),
            "with_score": int(np.isfinite(reviews.score).sum()),
            "without_user": int(self.tables.reviews[USER].isna().sum()),
            "filled_ratings": int(reviews.is_filled.sum()),
        }

    def _write_split(self, about: dict[str, Any], train: Interactions, test: Interactions) -> None:
        self.folder.write_json(run_files.SPLIT_CARD, about)
        items = pd.DataFrame({ITEM: train.items.all_ids})
        if self.tables.items is not None:
            items = items.merge(self.tables.items, on=ITEM, how="left")
        self.folder.write_table(run_files.ITEMS, items)
        for name, part in (("train", train), ("history", train), ("test", test)):
            self.folder.write_table(run_files.split_part(name), interactions_to_table(part))

    def _write_predictions(self, name: str) -> None:
        model = self._predictions[name]
        table = pd.DataFrame(
            {
                USER: self.pairs.user_ids[self.pairs.user],
                ITEM: self.pairs.item_ids[self.pairs.item],
                SCORE: model.predicted,
                SOURCE: np.where(model.is_fallback, self._fallback_name, name),
                FOLD: self.pairs.fold,
            }
        )
        if model.spread is not None:
            table[SPREAD] = model.spread
        self.folder.write_table(run_files.predictions(name), table)


def folds_of(rule: AnyRule) -> dict[int, AnyRule]:
    """Return a dict: number of a fold -> the split rule whose test is this fold.

    A rule without folds is the only entry, with the number 1. A rule with ``fold`` set has only
    that fold.
    """
    if not isinstance(rule, Folds):
        return {1: rule}
    if rule.fold is not None:
        return {rule.fold: rule}
    return {number: rule.model_copy(update={"fold": number}) for number in range(1, rule.folds + 1)}


def configured_model(name: str, config: Config) -> RatingModel:
    """Return the unfitted model ``name`` of the config, or the baseline of this name.

    A model that has a seed gets the seed of the run, unless the config sets it.

    Raises:
        ConfigError: the kind of model does not exist or predicts no ratings, or a parameter is
            unknown or not valid.
    """
    settings = dict(config.models.get(name, {}))
    kind = settings.pop("model", name)
    has_parameters = is_class_path(kind) or (isinstance(kind, str) and kind in models.RATING_KINDS)
    if has_parameters and "seed" in models.parameters(kind):
        settings.setdefault("seed", config.seed)
    return models.build_rating_model(kind, settings)


def quarter_of_entries(train: Interactions, seed: int, number: int) -> np.ndarray:
    """Divide the entries of train into quarters 0 to 3, and return the quarter of each: int8[n].

    The entries are sorted by a hash, and the sorted entries are cut into four parts. The sizes of
    the parts differ by at most 1.

    Args:
        train: the n entries.
        seed: the seed of the run.
        number: the number of the division. Another seed or number gives other quarters.
    """
    bits = hash_words(seed ^ REFIT_SALT, np.array(number), train.user, train.item)
    quarter = np.empty(len(train), dtype=np.int8)
    quarter[np.argsort(bits, kind="stable")] = np.arange(len(train)) * 4 // len(train)
    return quarter


def _rated_pairs(splits: dict[int, Split], parts: list[TestPart]) -> RatedPairs:
    """Return the tested pairs of all folds, fold by fold."""
    tests = [parts_of_fold.test for parts_of_fold in splits.values()]
    user_ids = IdMap.from_ids(*(test.users.ids for test in tests))
    item_ids = IdMap.from_ids(*(test.items.ids for test in tests))
    return RatedPairs(
        user=np.concatenate([user_ids.rows(test.users.ids)[test.user] for test in tests]),
        user_ids=user_ids.all_ids,
        item=np.concatenate([item_ids.rows(test.items.ids)[test.item] for test in tests]),
        item_ids=item_ids.all_ids,
        rating=np.concatenate([test.value.astype(np.float64) for test in tests]),
        user_ratings=np.concatenate([_support(part.train.user, part.users) for part in parts]),
        item_ratings=np.concatenate([_support(part.train.item, part.items) for part in parts]),
        fold=np.concatenate([np.full(len(part.users), part.fold) for part in parts]),
    )


def _support(rows: np.ndarray, pair_rows: np.ndarray) -> np.ndarray:
    """Return the number of entries of train with each of some rows, int64[n]; 0 for row -1.

    Args:
        rows: int[entries], the row of each entry of train.
        pair_rows: int[n].
    """
    counts = np.bincount(rows, minlength=max(int(pair_rows.max(initial=-1)) + 1, 1))
    return np.where(pair_rows >= 0, counts[pair_rows], 0)


def _range_of(parts: list[Interactions]) -> tuple[float, float]:
    """Return the smallest and the largest rating of some train parts."""
    smallest = min(float(train.value.min()) for train in parts)
    return smallest, max(float(train.value.max()) for train in parts)
