"""What tests share: one Spark session, a small film world, and where the real data is."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports numba: the clones of this machine share what they compiled, and so do the processes that
# tests start. Threads that wait must sleep, because the other worker of pytest needs their core.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE / "recsys" / "numba"))
os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", "recsys.kernel_cache.ByContent,InTreeCacheLocator")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest.register_assert_rewrite("contract")

# Property tests take their number of examples from a profile (--hypothesis-profile), never by themselves.
# No test may fail because the machine is busy.
for profile, examples in {"quick": 10, "standard": 40, "full": 400}.items():
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=profile != "full",  # a test that turns red is red for the change at hand; `full` draws anew
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("standard")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(config, items):
    """Under pytest-xdist the tests of Spark, which take longest, come first, then those that start processes."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not item.get_closest_marker("spark"), not item.get_closest_marker("subprocess")))


@pytest.fixture(scope="session")
def spark():
    """One local session on two cores for each process of pytest; skipped, with the reason, where Spark cannot run."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from cluster import SHORT_LIVED

    from recsys.config import SparkSettings
    from recsys.errors import MissingExtra
    from recsys.spark.session import session

    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "3", "spark.default.parallelism": "2"}
    conf["spark.driver.extraJavaOptions"] = SHORT_LIVED
    try:
        found = session(SparkSettings(master="local[2]", driver_memory="1g", conf=conf))
    except MissingExtra as error:
        pytest.skip(str(error))
    yield found
    found.stop()


@pytest.fixture(scope="session")
def world():
    """A film world small enough for every engine: about 150 users, 60 films, 2,500 events."""
    from recsys.data.synthetic import film_world

    return film_world(users=150, items=60, events=2_500, seed=3)


@pytest.fixture(scope="session")
def world_files(world, tmp_path_factory):
    """The world's tables as CSV files, by name."""
    from recsys.data.synthetic import write_world

    return write_world(world, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data beside the project, or a skip: no test may need it."""
    folder = Path(os.environ.get("RECSYS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECSYS_DATA")
    return folder
