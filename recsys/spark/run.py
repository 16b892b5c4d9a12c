"""The large path on one screen: read, split, fit, recommend, judge, write. ``recsys.experiment`` has the same hops."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recsys import run_files
from recsys.config import Config
from recsys.errors import ConfigError
from recsys.evaluation.beyond import Catalogue
from recsys.evaluation.groups import HISTORY
from recsys.evaluation.judging.metrics import parse_all
from recsys.evaluation.summary import Facts, Layout, document
from recsys.features.segment_popularity import Segments, describe_users
from recsys.meter import Meter
from recsys.ranking.business_rules import load
from recsys.runfolder import RunFolder
from recsys.schema import ITEM, RANK, SCORE, SOURCE, TIME, USER
from recsys.spark.data import audit
from recsys.spark.data.read import read_tables
from recsys.spark.data.split import Split, keep, split
from recsys.spark.errors import told
from recsys.spark.evaluation import beyond, evaluate
from recsys.spark.evaluation.truth import Truth
from recsys.spark.features import attributes, segment_popularity
from recsys.spark.ranking.business_rules import Ruled, deny, in_rows, under_rules, why_short
from recsys.spark.ranking.recommend import Scorer, histories, popular, recent, top_k
from recsys.spark.session import session
from recsys.spark.training import als
from recsys.spark.training.training_curve import Curve

Steps = Callable[[str, int, int], None]
"""Called with (step, done, total)."""


def run(config: Config, *, progress: Steps | None = None, spark: SparkSession | None = None) -> dict[str, Any]:
    """Do everything that ``config`` says on Spark, write its run folder, and return its metrics.json.

    Raises:
        InputError, ConfigError, RunFolderError: with what, where and what to do; nothing half-written stays.
    """
    step = progress or (lambda name, done, total: None)
    params = als_params(config)
    wanted = load(config.recommend.rules) if config.recommend.rules else None
    started = datetime.now(UTC)
    with Meter() as meter, RunFolder.writing(config.out, "run", config.sources) as folder, told(config.out):
        work = folder.path.resolve() / ".work"
        with meter.hop("start"):
            spark = spark or session(config.spark)
            meter.announce = spark.sparkContext.setJobDescription  # so that Spark's own pages name the hop of a job
            if config.spark.checkpoint_dir:
                spark.sparkContext.setCheckpointDir(config.spark.checkpoint_dir)
        with meter.hop("read"):
            tables = read_tables(spark, config.data, work)
            attributes.require_items(params.values(), tables.item_table)
            tables.refusals.write_csv(folder.path / run_files.REFUSED_ROWS)
            columns = config.recommend.segment
            people = describe_users(tables.user_table, columns) if columns else None
            sizes = {
                n: len(t) for n, t in (("items", tables.item_table), ("users", tables.user_table)) if t is not None
            }
            folder.write_json(
                run_files.DATA_CARD, audit.card(tables.events, tables.refusals, sizes) | {"source": config.data.events}
            )
        with meter.hop("split"):
            parts = split(
                tables.events,
                config.rule(timed=TIME in tables.events.columns),
                weighting=config.weigh,
                filters=config.filter,
                items=tables.items,
                work=work,
            )
            folder.write_json(run_files.SPLIT_CARD, parts.about)
            items = _candidates(parts, tables.item_table)
            folder.write_table(run_files.ITEMS, items)
            rules = None if wanted is None else in_rows(wanted, parts.users, items)
            if rules:
                folder.write_json(run_files.RULES_CARD, rules[0].about)
            for name, pairs in parts.named.items():
                pairs.write.parquet(_uri(folder, run_files.split_part(name)))
            if "history" not in parts.named:
                _link(folder.path / run_files.TRAIN, folder.path / run_files.HISTORY)
            seen = config.recommend.exclude_seen
            truth = Truth.of(parts, config.judge, exclude_seen=seen, work=work)
            likes = popular(parts.train, parts.candidates)
            known = beyond.catalogue(parts, tables, likes, config.judge)
            groups, inside = beyond.user_groups(spark, tables, config.judge)
            segments = segment_popularity.fit_segments(parts, people, config.recommend)
            if segments is not None:
                segments.save(folder.path)
        k = config.recommend.k
        judged, about, of_all = {}, {}, {}
        scorers = lineup(parts, items, config, params, likes, segments, meter, folder, work)
        metrics = parse_all(config.judge.metrics)
        layout = Layout(
            tuple(scorers),
            tuple(map(str, metrics)),
            config.judge.baseline,
            (HISTORY, *(found.grouping for found in groups)),
            tuple(found.grouping for found in known.groups),
            known.measures,
        )
        for place, (name, (scorer, users)) in enumerate(scorers.items()):
            step("recommend and judge", place, len(scorers))
            with meter.hop(f"recommend {name}"):
                lists, why = _recommend(name, scorer, users, parts, config, rules, truth.tested, folder, work)
            with meter.hop(f"judge {name}"):
                judged[name] = _judge(name, lists, why, truth, parts, k, work, known, layout)
                of_all[name] = beyond.exposure(lists, truth.tested, parts.candidates)
                about[name] = evaluate.counts(judged[name], config.judge, k) | truth.counts
        with meter.hop("summarise"):
            _write_per_user(judged, layout, folder)
            resamples = config.judge.resamples
            sums = evaluate.sums(judged, layout, resamples=resamples, seed=config.seed, membership=inside)
            definitions = {str(metric): metric.definition for metric in metrics}
            result = document(layout, sums, Facts("spark", definitions, about, of_all))
            folder.write_json(run_files.METRICS, result)
        shutil.rmtree(work, ignore_errors=True)
        folder.write_text(run_files.CONFIG, config.to_toml())
        inputs = [Path(path) for path in (config.data.events, config.data.items, config.data.users) if path]
        folder.write_manifest(seed=config.seed, inputs=inputs, hops=meter.hops, started=started)
    return result


def lineup(
    parts: Split,
    items: pd.DataFrame,
    config: Config,
    params: dict[str, als.Params],
    likes: np.ndarray,
    segments: Segments | None,
    meter: Meter,
    folder: RunFolder,
    work: Path,
) -> dict[str, tuple[Scorer, DataFrame | None]]:
    """Return name -> (scorer, what it is told of users or None): the baselines, then each ALS, trained here, with its
    fallback. Users come as (user, features), and their segment where there are any."""
    with meter.hop("fit baselines"):
        scorers: dict[str, tuple[Scorer, DataFrame | None]] = {
            "random": (Scorer("random", seed=0), None),
            "popular": (Scorer("popular", same=likes), None),
        }
        newest = recent(parts.train, parts.candidates) if parts.timed else None
        if newest is not None:
            scorers["recent"] = (Scorer("recent", same=newest), None)
    fallback = "popular" if segments is not None else config.recommend.fallback
    groups = None if segments is None else (segments.scores, segments.row_sources)
    same = {"popular": likes, "recent": newest if newest is not None else likes, "none": None}[fallback]
    curves: dict[str, Curve] = {}
    for name, settings in params.items():
        with meter.hop(f"fit {name}"):
            own = attributes.terms(items, settings) if isinstance(settings, attributes.Params) else None
            model = als.fit(parts.train, parts.candidates, settings, work / name)
            if model.curve:
                curves[name] = model.curve
            if isinstance(settings, attributes.Params) and own is not None:
                model = attributes.place_cold(model, parts.train, own, likes, settings, work / name)
            _write_factors(model, parts, folder, name)
            folder.write_json(run_files.spark_params(name), {"model": settings.kind} | settings.model_dump())
        users = model.users
        if segments is not None:
            users = users.join(segment_popularity.members(parts, segments), "user", "full")
        scorers[name] = (
            Scorer(
                name, factors=model.items, fallback="" if fallback == "none" else fallback, same=same, groups=groups
            ),
            users,
        )
    _write_curves(curves, folder)
    return scorers


def als_params(config: Config) -> dict[str, als.Params]:
    """Return name -> parameters of every ALS that the config asks for; the baselines come by themselves."""
    found = {}
    for name, settings in config.models.items():
        chosen = dict(settings)
        kind = chosen.pop("model", name)
        if kind in ("random", "popular", "recent"):
            continue
        if kind not in ("als", "attributes"):
            raise ConfigError(f"model '{kind}' does not run on Spark: use 'als' or 'attributes', or engine = 'local'.")
        found[name] = attributes.parse(kind, {"seed": config.seed} | chosen)
    return found


def _recommend(
    name: str,
    scorer: Scorer,
    factors: DataFrame | None,
    parts: Split,
    config: Config,
    rules: Ruled | None,
    tested: DataFrame,
    folder: RunFolder,
    work: Path,
) -> tuple[DataFrame, DataFrame | None]:
    """Return the lists, and under rules why the list of each user would be short."""
    everyone = config.recommend.everyone and factors is not None
    wanted = parts.users.select(F.col("row").alias("user")) if everyone else tested.select("user")
    seen = work / ("seen-of-all" if everyone else "seen-of-tested")  # grouped once, read by every model
    if not seen.exists():
        past = parts.history if config.recommend.exclude_seen else parts.history.limit(0)
        histories(past, wanted).write.parquet(str(seen))
    users, why = wanted.sparkSession.read.parquet(str(seen)), None
    k, width = config.recommend.k, parts.candidates
    if rules:
        judged = users.join(tested.select("user"), "user", "left_semi") if everyone else users
        why = why_short(_joined(judged, factors), scorer, k, width)
        scorer, users = under_rules(scorer, rules[0]), deny(users, rules[0].denied, rules[1])
    lists = top_k(_joined(users, factors), scorer, k, items=width, memory_mb=config.recommend.memory_mb)
    place = work / f"lists-{name}"
    lists.write.parquet(str(place))
    lists = lists.sparkSession.read.parquet(str(place))
    _with_ids(lists, parts).sortWithinPartitions(USER, RANK).write.parquet(_uri(folder, run_files.topk(name)))
    return lists, why


def _joined(users: DataFrame, factors: DataFrame | None) -> DataFrame:
    return users if factors is None else users.join(factors, "user", "left")


def _judge(
    name: str,
    lists: DataFrame,
    why: DataFrame | None,
    truth: Truth,
    parts: Split,
    k: int,
    work: Path,
    known: Catalogue,
    layout: Layout,
) -> DataFrame:
    further = (beyond.columns_of(known, truth, k), layout.columns[len(layout.metrics) :])
    frame = evaluate.per_user(lists, truth, k, further=further)
    named = frame.join(parts.users.withColumnRenamed("row", "user"), "user")
    listed = F.col("n_listed")
    reason = evaluate.shortfall(listed, k, parts.candidates)
    if why is not None:
        named, reason = named.join(why, "user"), F.when(listed >= k, "none").otherwise(F.col("why"))
    return keep(named.withColumn("shortfall", reason).drop("user", "why"), work / f"judged-{name}")


def _write_per_user(judged: dict[str, DataFrame], layout: Layout, folder: RunFolder) -> None:
    metrics = [f"`{column}`" for column in layout.columns]
    columns = [USER, "n_relevant", "n_history", "shortfall", *metrics]
    for name, frame in judged.items():
        frame.select(F.lit(name).alias("model"), *columns).write.mode("append").parquet(
            _uri(folder, run_files.PER_USER)
        )


def _write_factors(model: als.Model, parts: Split, folder: RunFolder, name: str) -> None:
    """Write factors under external ids: user_factors.parquet, item_factors.parquet (id, features)."""
    spark = model.users.sparkSession
    users = model.users.join(parts.users.withColumnRenamed("row", "user"), "user").select(USER, "features")
    users.write.parquet(_uri(folder, run_files.user_factors(name)))
    known = np.flatnonzero(~np.isnan(model.items).all(axis=1))
    rows = [(int(row), model.items[row].tolist()) for row in known]
    items = spark.createDataFrame(rows, "row int, features array<float>").join(parts.items, "row")
    items.select(ITEM, "features").write.parquet(_uri(folder, run_files.item_factors(name)))


def _write_curves(curves: dict[str, Curve], folder: RunFolder) -> None:
    """Write training.json, the objective after each sweep as a local run does, and watched.json."""
    if curves:
        folder.write_json(run_files.TRAINING, {name: curve.losses for name, curve in curves.items()})
    if watched := {name: curve for name, curve in curves.items() if curve.watched}:
        told = {n: {"measure": c.measure, "users": c.watched, "quality": c.quality} for n, c in watched.items()}
        folder.write_json(run_files.WATCHED, told)


def _with_ids(frame: DataFrame, parts: Split) -> DataFrame:
    users = parts.users.withColumnRenamed("row", "user")
    items = F.broadcast(parts.items.withColumnRenamed("row", "item"))
    return frame.join(users, "user").join(items, "item").select(USER, ITEM, RANK, SCORE, SOURCE)


def _candidates(parts: Split, table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the candidates by id, with what the items table says of them."""
    found = parts.items.where(F.col("row") < parts.candidates).orderBy("row").select(ITEM).toPandas()
    if table is None:
        return found
    if found[ITEM].dtype == object and table[ITEM].dtype != object:
        table = table.assign(**{ITEM: table[ITEM].astype(str)})
    return found.merge(table, on=ITEM, how="left")


def _link(source: Path, target: Path) -> None:
    """Make a second name for a folder of files, or a copy where a disk knows no second names."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copyfile(a, b)

    shutil.copytree(source, target, copy_function=link)


def _uri(folder: RunFolder, name: str) -> str:
    return str(folder.path.resolve() / name)
