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
# The same for what JAX compiles, however short that takes.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "recsys" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

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
    """Under pytest-xdist the tests of Spark come early, since they take longest, but its jobs come last among them.

    What compiles many kernels comes before them: each process of Spark would compile them for itself. The first file
    of all is that of mypy, which takes half a minute in a fresh clone: at the end the other workers would wait for it.
    """

    def turn(item):
        if item.path.name == "test_static.py":
            return (-1, False)
        if item.path.name in ("test_cli.py", "test_agreement.py"):
            return (0, False)
        spark, process = (item.get_closest_marker(name) is not None for name in ("spark", "subprocess"))
        return (1, process) if spark else (2, not process)

    if hasattr(config, "workerinput"):
        items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each file whole to one worker, and what needs Spark to two workers: a session takes a minute to warm up."""
    from xdist.scheduler import LoadScopeScheduling

    class FewSessions(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            if "spark" not in nodeid.lower():
                return file
            return f"Spark, {'first' if Path(file).name < 'test_spark_s' else 'second'} half of the files"

    return FewSessions(config, log)


@pytest.fixture(scope="session")
def spark(request):
    """One local session on two cores for each process of pytest; skipped, with the reason, where Spark cannot run."""
    assert "not spark" not in request.config.getoption("markexpr"), "give this test the marker spark"
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from cluster import SHORT_LIVED

    from recsys.config import SparkSettings
    from recsys.errors import MissingExtra
    from recsys.spark.session import session

    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "3", "spark.default.parallelism": "2"}
    conf["spark.driver.extraJavaOptions"] = SHORT_LIVED
    # The tests of a session repeat some hundred queries. By default, Spark keeps the compiled code of 100 expressions.
    conf["spark.sql.codegen.cache.maxEntries"] = "5000"
    try:
        found = session(SparkSettings(master="local[2]", driver_memory="1g", conf=conf))
    except MissingExtra as error:
        pytest.skip(str(error))
    yield found
    found.stop()


@pytest.fixture(scope="module", autouse=True)
def figures(request):
    """Leave figures of reports blank, except in the tests of reports and pages and in those of ``make test-all``.

    All of the report is made, and each figure is built from its numbers. But matplotlib lays out and draws nothing,
    which would take three quarters of the time of a run on a small log.
    """
    everywhere = settings.get_current_profile_name() == "full"
    if everywhere or request.path.parent.name in ("report", "browser"):
        yield
        return
    from builders import blank_figures

    with pytest.MonkeyPatch.context() as patch:
        blank_figures(patch)
        yield


@pytest.fixture
def mount(spark, tmp_path):
    """The URI of a folder of this machine on Hadoop's view of other file systems."""
    folder = tmp_path / "remote"
    folder.mkdir()
    host = f"host{abs(hash(str(tmp_path)))}"
    spark.sparkContext._jsc.hadoopConfiguration().set(f"fs.viewfs.mounttable.{host}.link./logs", f"file://{folder}")
    return folder, f"viewfs://{host}/logs"


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
