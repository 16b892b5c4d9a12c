"""What tests share: one Spark session, a small film world, and where the real data is."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from recsys.data.synthetic import film_world, write
from recsys.errors import MissingExtra

pytest.register_assert_rewrite("contract")
settings.register_profile("untimed", deadline=None)  # no test may fail because the machine is busy
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def spark():
    """One local session on two cores for all tests; skipped, with the reason, where Spark cannot run."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from recsys.config import SparkSettings
    from recsys.spark.session import session

    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "3", "spark.default.parallelism": "2"}
    try:
        found = session(SparkSettings(master="local[2]", driver_memory="1g", conf=conf))
    except MissingExtra as error:
        pytest.skip(str(error))
    yield found
    found.stop()


@pytest.fixture(scope="session")
def world():
    """A film world small enough for every engine: about 150 users, 60 films, 2,500 events."""
    return film_world(users=150, items=60, events=2_500, seed=3)


@pytest.fixture(scope="session")
def world_files(world, tmp_path_factory):
    """The world's tables as CSV files, by name."""
    return write(world, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data beside the project, or a skip: no test may need it."""
    folder = Path(os.environ.get("RECSYS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECSYS_DATA")
    return folder
