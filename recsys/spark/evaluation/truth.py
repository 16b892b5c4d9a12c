"""The truth on Spark: tested users, their histories and relevant items, once for all models."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from recsys.errors import ConfigError
from recsys.evaluation.settings import EvaluationSettings, choose_ranked_items
from recsys.locations import Location
from recsys.schema import VALUE
from recsys.spark.data.split import SparkSplit, write_and_read

PROPENSITY = "propensity"
"""Column with the chance that the relevance of an item is observed, in (0, 1]."""


@dataclass(frozen=True)
class Truth:
    """The relevant items of tested users, by which lists are judged, as DataFrames.

    The local engine has ``recsys.evaluation.truth.Truth``. The columns ``user`` and ``item`` have
    row numbers, or ids of any kind.

    Attributes:
        tested: columns (user, n_history, history: array of (item, value)), one row per tested user,
            with or without relevant items. ``history`` is null for a user without one. After
            :meth:`write` also ``user_id`` and the columns of :meth:`add_relevant`.
        relevant: columns (user, item, value), one row per relevant pair, and ``propensity`` if a
            metric of the settings is debiased.
        counts: name -> number of pairs: ``seen_pairs_removed``, and in a run ``relevant_pairs`` and
            ``relevant_outside_candidates``; ``warm_pairs_removed`` if only new items are ranked.
        settings: the section ``[judge]``.
        exclude_seen: whether lists leave out the items of the history.
        ranked_items: bool[candidates], the items that the lists rank. None: all.
    """

    tested: DataFrame
    relevant: DataFrame
    counts: dict[str, int]
    settings: EvaluationSettings
    exclude_seen: bool
    ranked_items: np.ndarray | None = None

    @classmethod
    def from_split(
        cls, split: SparkSplit, settings: EvaluationSettings, *, exclude_seen: bool, work: Location
    ) -> Truth:
        """Return the truth of the users of ``split.test``, written to a folder.

        Args:
            split: the split of the run.
            settings: the section ``[judge]``: what is relevant, and which items lists rank.
            exclude_seen: whether relevant pairs that are in the history are removed and counted.
            work: the folder to which the truth is written, and from which all models read it.

        Raises:
            InputError: lists rank only items without events in train, and there are none.
        """
        # Where no pair is in both parts, there is nothing that the history could remove.
        repeats = bool(split.about["repeated_pairs"])
        trained = split.train.select("item").distinct()
        candidates = settings.candidates_for(split.about["rule"])
        ranked_items = None
        warm = None
        if candidates != "items":
            is_trained = np.zeros(split.candidates, dtype=bool)
            is_trained[trained.toPandas()["item"].to_numpy()] = True
            ranked_items = choose_ranked_items(candidates, is_trained)
        if candidates == "cold":
            warm = trained
        # Seen pairs are removed below, where Spark counts them while it writes.
        truth = cls.from_pairs(split.test, split.history, settings, exclude_seen=False, warm=warm)
        truth = replace(truth, exclude_seen=exclude_seen, ranked_items=ranked_items)
        if settings.debiased:
            truth = truth.with_propensity(split.train)
        is_outside = F.col("item") >= split.candidates
        relevant = truth.relevant
        if candidates == "train":
            relevant = relevant.join(F.broadcast(trained.withColumn("trained", F.lit(True))), "item", "left")
            is_outside = F.col("trained").isNull()
        relevant = relevant.withColumn("outside", is_outside).drop("trained").withColumn("seen", F.lit(False))
        if exclude_seen and repeats:
            seen = split.history.select("user", "item", F.lit(True).alias("seen"))
            relevant = relevant.drop("seen").join(seen, ["user", "item"], "left").fillna(False, ["seen"])
        unseen = relevant.where(~F.col("seen")).drop("outside", "seen")
        users = split.users.withColumnRenamed("row", "user")
        return replace(truth, relevant=unseen)._write_marked(relevant, work, users)

    @classmethod
    def from_pairs(
        cls,
        test: DataFrame,
        history: DataFrame,
        settings: EvaluationSettings,
        *,
        exclude_seen: bool = True,
        warm: DataFrame | None = None,
    ) -> Truth:
        """Return the truth of the users of ``test``, without propensities.

        Its DataFrames are not computed yet; only the removed pairs are counted.

        Args:
            test, history: (user, item, value), each pair once.
            settings: the section ``[judge]``: what is relevant.
            exclude_seen: whether relevant pairs that are in the history are removed and counted.
            warm: (item), the items whose relevant pairs are removed and counted. None: no items.
        """
        relevant = test.where(settings.is_relevant(F.col(VALUE).cast("float"))).select("user", "item", VALUE)
        users = test.select("user").distinct()
        counts = {}
        removed = 0
        if warm is not None:
            counts["warm_pairs_removed"] = relevant.join(warm, "item", "left_semi").count()
            relevant = relevant.join(warm, "item", "left_anti").select("user", "item", VALUE)
        if exclude_seen:
            seen = history.select("user", "item")
            removed = relevant.join(seen, ["user", "item"], "left_semi").count()
            if removed:
                relevant = relevant.join(seen, ["user", "item"], "left_anti")
        # Only histories of tested users are collected into arrays.
        histories = (
            history.join(users, "user", "left_semi")
            .groupBy("user")
            .agg(F.count(F.lit(1)).alias("n_history"), F.collect_list(F.struct("item", VALUE)).alias("history"))
        )
        tested = users.join(histories, "user", "left").fillna(0, ["n_history"])
        return cls(
            tested,
            relevant,
            counts | {"seen_pairs_removed": removed},
            settings,
            exclude_seen,
        )

    def with_propensity(self, train: DataFrame) -> Truth:
        """Return the truth with the propensity of each relevant item, as estimated from ``train``.

        The propensity of an item that n users like is (n + 1) / (max n + 1), where the maximum is
        over all items (``recsys.evaluation.truth.propensity_of_counts``).

        Args:
            train: columns (user, item, value), the pairs of train.
        """
        likes = train.where(F.col(VALUE) > 0).groupBy("item").agg(F.count(F.lit(1)).alias("likes"))
        most_likes = likes.agg(F.max("likes")).first()[0] or 0
        relevant = self.relevant.join(likes, "item", "left").fillna(0, ["likes"])
        propensity = (F.col("likes") + 1) / F.lit(most_likes + 1)
        return replace(self, relevant=relevant.withColumn(PROPENSITY, propensity).drop("likes"))

    def write(self, work: Location, users: DataFrame) -> Truth:
        """Write the tested users below the folder ``work``, and return a truth that reads them there.

        So all models read them instead of computing them again. What judging a list needs of a user
        is written into one row of ``tested``: also the relevant items and the id.

        Args:
            work: the folder.
            users: columns (user, user_id) of the users.
        """
        tested = self.add_relevant().join(users, "user")
        return replace(self, tested=write_and_read(tested, work / "tested"))

    def _write_marked(self, marked: DataFrame, work: Location, users: DataFrame) -> Truth:
        """Do the same as :meth:`write`, without seen pairs, and count the pairs.

        Args:
            marked: ``relevant`` before seen pairs are removed, with the further columns ``seen`` and
                ``outside`` (bool): whether the pair is in the history, and whether its item is no
                candidate.
            work, users: as for :meth:`write`.
        """
        seen = F.col("seen")
        conditions = {
            "seen_pairs_removed": seen,
            "relevant_pairs": ~seen,
            "relevant_outside_candidates": ~seen & F.col("outside"),
        }
        marks = [F.count_if(condition).alias(name) for name, condition in conditions.items()]
        tested = self.tested.join(_group_relevant(marked, ~seen, marks), "user", "left").join(users, "user")
        observed = Observation()
        # One stage writes, so rows of a task that runs again are not counted twice.
        tested = tested.observe(observed, *(F.sum(name).alias(name) for name in conditions)).drop(*conditions)
        written = write_and_read(tested, work / "tested")
        counts = {name: observed.get[name] or 0 for name in conditions}
        return replace(self, tested=written, counts=self.counts | counts)

    def add_relevant(self) -> DataFrame:
        """Return the tested users with their relevant items: ``tested`` with three more columns.

        They are arrays with an element per relevant item: ``relevant`` has the items, ``gain`` their
        values and ``propensity`` their propensities, which is empty without propensities. All are null
        or empty for a user without relevant items.
        """
        if "gain" in self.tested.columns:
            return self.tested
        return self.tested.join(_group_relevant(self.relevant, F.lit(True), []), "user", "left")

    def require_propensity(self) -> None:
        """Check that debiased metrics have the propensities they need.

        Raises:
            ConfigError: a metric is debiased, and ``relevant`` has no propensities.
        """
        if self.settings.debiased and PROPENSITY not in self.relevant.columns:
            raise ConfigError("debiased metrics (ips) need item popularity: give the table of what users chose before.")


def _group_relevant(relevant: DataFrame, is_kept: Column, further: list[Column]) -> DataFrame:
    """Return the relevant items of each user, as :meth:`Truth.add_relevant` describes them.

    Args:
        relevant: the columns of ``Truth.relevant``.
        is_kept: which of the pairs are collected. A user without any has empty arrays.
        further: further aggregates of the pairs of a user.
    """
    propensity = F.col(PROPENSITY) if PROPENSITY in relevant.columns else F.lit(None)
    columns = {"relevant": F.col("item"), "gain": F.col(VALUE).cast("double"), PROPENSITY: propensity.cast("double")}
    # Nulls are not collected.
    arrays = [F.collect_list(F.when(is_kept, column)).alias(name) for name, column in columns.items()]
    return relevant.groupBy("user").agg(*arrays, *further)
