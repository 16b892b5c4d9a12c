"""Runs on a real HDFS and through S3A, beside the same run on a disk; what is left when a driver or a worker is killed.

    python bench/stores.py FOLDER [KILLS]    FOLDER keeps what is downloaded, some 600 MB; 5 kills by default

The servers come from packages for Python, which hold what else is found on Maven alone: NameNode and DataNode of
Hadoop 2.7.3 in pyspark 2.4.8, hadoop-aws 3.3.1 in sagemaker-pyspark 1.4.5, and an S3 server, moto. All are processes
on loopback, which end with this one.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from results import table, write_section

from recsys.cli import run_verb
from recsys.errors import RunFolderError
from recsys.java import find_java
from recsys.locations import Uri
from recsys.runfolder import RunFolder
from recsys.spark.hadoop_folder import open_without_session
from recsys.storage import RemoteFolder, open_folder, use_java

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import cluster as processes

ROOT = processes.ROOT
HADOOP_PACKAGE = "pyspark-2.4.8.tar.gz"
S3A_PACKAGE = "sagemaker_pyspark-1.4.5.tar.gz"
S3A_JARS = ("hadoop-aws-3.3.1.jar", "aws-java-sdk-bundle-1.11.901.jar")
S3A_SETTINGS = {
    "path.style.access": "true",
    "connection.ssl.enabled": "false",
    "aws.credentials.provider": "com.amazonaws.auth.EnvironmentVariableCredentialsProvider",
    # Hadoop 3.5 writes these defaults with units, which hadoop-aws 3.3 does not read.
    "threads.keepalivetime": "60",
    "connection.establish.timeout": "5000",
    "connection.timeout": "200000",
    "connection.request.timeout": "0",
    "multipart.purge.age": "86400",
    "assumed.role.session.duration": "1800000",
}
KEYS = {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "anything", "AWS_REGION": "us-east-1"}
OPENED = ("java.lang", "java.util", "java.io", "java.nio", "sun.nio.ch")
"""Packages of Java that Hadoop 2.7 reaches into, which newer versions of Java hide."""

CONFIG = """
out = "{out}"
engine = "spark"
[data]
events = "{events}"
items = "{items}"
[models.als]
rank = 8
iterations = 3
[models.attributes]
rank = 8
iterations = 3
[judge]
metrics = ["ndcg@10", "recall@10"]
resamples = 200
[recommend]
k = 10
everyone = true
"""
VERBS: dict[str, list[str]] = {
    "compare": ["compare", "RUN"],
    "recommend": ["recommend", "RUN", "--user", "u001", "--user", "nobody", "-k", "5"],
    "explain": ["explain", "RUN", "--user", "u001", "--item", "f001"],
    "similar": ["similar", "RUN", "f001", "-k", "3"],
    "bundle, then recommend": ["recommend", "BUNDLE", "--user", "u001", "-k", "5"],
}


@dataclass
class Store:
    """A file system on which runs are written: its root, and what Spark needs to read it."""

    name: str
    root: str
    settings: dict[str, str] = field(default_factory=dict)


def main(folder: str, kills: str = "5") -> None:
    """Run everything, and write the section."""
    downloads = Path(folder).absolute()
    prepare(downloads)
    use_java(open_without_session)
    os.environ |= KEYS | {"AWS_EC2_METADATA_DISABLED": "true", "JAVA_HOME": find_java().home}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        run_verb(["data", "make", str(place / "world"), "--users", "400", "--items", "150"])
        disk = Store("a disk", str(place))
        seconds = run_job(disk, place, disk.root + "/world")
        rows.append([disk.name, f"{seconds:.0f}", *[""] * 5])
        expected = RunFolder.open(place / "run")
        for server in (hdfs, s3):
            with server(downloads, place / server.__name__) as store:
                rows.append(try_store(store, place, expected, int(kills)))
                print(rows[-1], flush=True)
    heads = ["out", "seconds", "equal files", "equal answers of verbs", "whole after kills of the driver"]
    heads += ["left by them", "lists after the loss of a worker"]
    body = (
        "A made-up film world of 400 × 150, `als` and `attributes` with lists for everyone, spark-submit on `local[2]`;"
        " events and items are at the URI too. HDFS: NameNode and DataNode of Hadoop 2.7.3, the client of pyspark. S3:"
        " hadoop-aws 3.3.1 and the server of moto. Files are equal if text files are the same but for the name of the"
        " run and the times, and tables have the same rows. A driver is killed by SIGKILL at a random moment, over an"
        " older whole run; a worker of a standalone cluster is killed while it makes lists.\n\n" + table(heads, rows)
    )
    write_section("stores", "Runs on HDFS and S3", "python bench/stores.py FOLDER", body)


def try_store(store: Store, place: Path, expected: RunFolder, kills: int) -> list[str]:
    """Return the row of a store: a run there beside that on the disk, verbs, kills, and a lost worker."""
    inputs = open_folder(Uri(f"{store.root}/world"))
    for file in sorted((place / "world").iterdir()):
        inputs.upload(file, file.name)
    seconds = run_job(store, place, str(inputs.uri))
    uri = f"{store.root}/run"
    differing = differing_files(RunFolder.open(uri), expected)
    for name in differing:
        print(f"{store.name}: {name} differs", flush=True)
    answers = equal_answers(place, uri)
    whole, leftovers = kill_drivers(store, place, kills)
    share = lose_worker(store, place, expected)
    count = len(files_of(expected))
    return [
        store.name,
        f"{seconds:.0f}",
        f"{count - len(differing)} of {count}",
        f"{sum(answers.values())} of {len(answers)}",
        f"{whole} of {kills}",
        leftovers,
        f"{share:.2%} equal",
    ]


def write_config(store: Store, place: Path, world: str) -> Path:
    """Write the config of a run in a store, and return its path."""
    config = place / "job.toml"
    config.write_text(CONFIG.format(out=f"{store.root}/run", events=f"{world}/events.csv", items=f"{world}/items.csv"))
    return config


def start_job(store: Store, place: Path, world: str) -> subprocess.Popen[str]:
    """Start the job under spark-submit in a group of processes of its own."""
    settings = {"spark.log.level": "ERROR", "spark.master": "local[2]"} | store.settings
    words = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    command = ["spark-submit", "--driver-memory", "1g", *words, str(ROOT / "jobs" / "train_als.py")]
    return subprocess.Popen(
        [*command, "--config", str(write_config(store, place, world))],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_job(store: Store, place: Path, world: str) -> float:
    """Run the job to its end, and return its seconds."""
    start = time.monotonic()
    job = start_job(store, place, world)
    errors = job.communicate()[1]
    if job.returncode:
        raise SystemExit(f"{store.name}: {errors[-3000:]}")
    return time.monotonic() - start


def files_of(run: RunFolder) -> set[str]:
    """Return the text files and the tables of a run, a table by the name of its folder."""
    if run.version is None:
        names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    else:
        names = set(run.version.files)
    shortened = {re.sub(r"(\.parquet)/.*", r"\1", name) for name in names if not name.endswith(".crc")}
    return shortened - {"_SUCCESS"}


def differing_files(run: RunFolder, expected: RunFolder) -> list[str]:
    """Return the names of the files and tables that are not the same in two runs."""
    names = files_of(run) | files_of(expected)
    return sorted(name for name in names if not same_file(run, expected, name))


def same_file(run: RunFolder, expected: RunFolder, name: str) -> bool:
    """Return whether a file or a table of two runs has the same content."""
    if name.endswith(".parquet"):
        tables = []
        for folder in (run, expected):
            rows = pd.read_parquet(folder.local(name))
            # Lists are no keys of a sort, so they are compared as their text.
            rows = rows.map(lambda value: str(list(value)) if hasattr(value, "__len__") else value)
            tables.append(rows.sort_values(list(rows.columns), ignore_index=True))
        return bool(tables[0].equals(tables[1]))
    texts = [masked(folder.local(name).read_text()) for folder in (run, expected)]
    if name.endswith(".json"):
        # Costs are listed by their size, which differs from run to run.
        texts = [json.dumps(json.loads(text), sort_keys=True, indent=1) for text in texts]
    for line in difflib.unified_diff(texts[1].splitlines(), texts[0].splitlines(), lineterm="", n=0):
        print(f"{name}: {line[:300]}", flush=True)
    return texts[0] == texts[1]


def masked(text: str) -> str:
    """Return a text without what two equal runs may differ in: places, digests of inputs, times and seconds."""
    text = re.sub(r"(hdfs|s3a)://[^\s\"'<,]*|/[^\s\"'<,]*/(run|world)[^\s\"'<,]*", "PLACE", text)
    # Inputs on another file system have no digest, because the driver would have to read them for it.
    text = re.sub(r"sha256:[0-9a-f]+|not computed: on another file system", "DIGEST", text)
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "0", text)


def equal_answers(place: Path, uri: str) -> dict[str, bool]:
    """Return for each verb whether it prints the same for the run at a URI and for that on the disk."""
    equal = {}
    for name, words in VERBS.items():
        texts = []
        for number, run in enumerate((str(place / "run"), uri)):
            bundle = str(place / f"bundle{number}-{Uri(uri).text[:2]}")
            if "BUNDLE" in words:
                printed(["bundle", run, bundle])
            texts.append(printed([{"RUN": run, "BUNDLE": bundle}.get(word, word) for word in words]))
        equal[name] = texts[0] == texts[1]
        if not equal[name]:
            print(f"{name} at {uri}: {texts}", flush=True)
    return equal


def printed(words: list[str]) -> str:
    """Return what a verb prints to stdout."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run_verb(words)
    if code:
        raise SystemExit(f"recsys {' '.join(words)}: exit code {code}")
    # The table of seconds and memory is about this machine.
    return output.getvalue().partition("Guardrails")[0]


def kill_drivers(store: Store, place: Path, kills: int) -> tuple[int, str]:
    """Kill drivers at random moments over a whole run; return after how many it was whole, and what they left."""
    rng = random.Random(kills)
    uri = f"{store.root}/run"
    seconds = run_job(store, place, f"{store.root}/world")
    whole = 0
    for _ in range(kills):
        job = start_job(store, place, f"{store.root}/world")
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(rng.uniform(0.4, 1.0) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        try:
            RunFolder.open(uri).read_json("metrics.json")
        except RunFolderError as error:
            print(f"{store.name}: {error}", flush=True)
        else:
            whole += 1
    versions = {name.partition("/")[0] for name in open_folder(Uri(uri)).list_files() if name.startswith("run-")}
    return whole, f"{len(versions) - 2} versions"


def lose_worker(store: Store, place: Path, expected: RunFolder) -> float:
    """Lose a worker of a cluster while lists are made; return the share of lists that are those of the disk."""
    with processes.running(place / "cluster" / store.name, "1g") as cluster:
        cluster.start()
        config = write_config(store, place, f"{store.root}/world")
        words = [f"{key}={value}" for key, value in store.settings.items()]
        job = cluster.submit(*words, "--config", str(config))
        log = cluster.place / "submit.log"
        processes.wait_for(lambda: processes.jobs_described(cluster.events(), "recommend als"), job, log, 1200)
        cluster.lose_worker(job)
        if job.wait(timeout=1200):
            raise SystemExit(log.read_text()[-3000:])
    lists = [lists_of(RunFolder.open(location)) for location in (Uri(f"{store.root}/run"), expected.path)]
    return sum(lists[0].get(user) == items for user, items in lists[1].items()) / len(lists[1])


def lists_of(run: RunFolder) -> dict[Any, list[Any]]:
    """Return user -> items, best first, of the model als."""
    rows = pd.read_parquet(run.local("topk/als.parquet")).sort_values(["user_id", "rank"])
    return {user: list(items) for user, items in rows.groupby("user_id")["item_id"]}


@contextmanager
def hdfs(downloads: Path, place: Path) -> Iterator[Store]:
    """Run a NameNode and a DataNode until the end of the block."""
    ports = [processes.free_port() for _ in range(5)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    settings = {
        "dfs.namenode.name.dir": f"file://{place}/names",
        "dfs.datanode.data.dir": f"file://{place}/blocks",
        "dfs.namenode.http-address": addresses[1],
        "dfs.datanode.address": addresses[2],
        "dfs.datanode.http.address": addresses[3],
        "dfs.datanode.ipc.address": addresses[4],
        "dfs.replication": "1",
        "dfs.webhdfs.enabled": "false",
        "dfs.permissions.enabled": "false",
    }
    # The jar of the servers refers to web pages that it does not contain.
    for server in ("hdfs", "datanode"):
        pages = place / "webapps" / server / "WEB-INF"
        pages.mkdir(parents=True)
        (pages / "web.xml").write_text("<web-app></web-app>")
    (place / "core-site.xml").write_text(site({"fs.defaultFS": f"hdfs://{addresses[0]}"}))
    (place / "hdfs-site.xml").write_text(site(settings))
    opened = [word for package in OPENED for word in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")]
    java = [f"{find_java().home}/bin/java", "-Xmx512m", *opened, "-cp", f"{place}:{downloads}/hadoop/*"]
    servers = "org.apache.hadoop.hdfs.server"
    name_node, data_node = f"{servers}.namenode.NameNode", f"{servers}.datanode.DataNode"
    with (place / "format.log").open("wb") as log:
        subprocess.run([*java, name_node, "-format", "-nonInteractive"], stdout=log, stderr=log, check=True)
    with serving([*java, name_node], place / "names.log"), serving([*java, data_node], place / "blocks.log"):
        store = Store("HDFS", f"hdfs://{addresses[0]}")
        probe = open_folder(Uri(store.root))
        wait_until_written(probe)
        yield store


def site(settings: dict[str, str]) -> str:
    """Return a settings file of Hadoop."""
    rows = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in settings.items()]
    return f"<configuration>{''.join(rows)}</configuration>"


@contextmanager
def s3(downloads: Path, place: Path) -> Iterator[Store]:
    """Run an S3 server with an empty bucket until the end of the block."""
    place.mkdir()
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    os.environ["AWS_ENDPOINT_URL"] = url
    jars = ",".join(str(downloads / "s3a" / jar) for jar in S3A_JARS)
    settings = {f"spark.hadoop.fs.s3a.{key}": value for key, value in S3A_SETTINGS.items()}
    settings |= {"spark.jars": jars, "spark.hadoop.fs.s3a.endpoint": url}
    with serving([f"{downloads}/python/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)], place / "s3.log"):
        bucket = "import boto3; boto3.client('s3').create_bucket(Bucket='shop')"
        for _ in range(60):
            if not subprocess.run([f"{downloads}/python/bin/python", "-c", bucket], capture_output=True).returncode:
                break
            time.sleep(1)
        yield Store("S3", "s3a://shop", settings)


@contextmanager
def serving(words: list[str], log: Path) -> Iterator[None]:
    """Run a server until the end of the block."""
    with log.open("wb") as stream:
        server = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    finally:
        processes.end(server)


def wait_until_written(folder: RemoteFolder, seconds: float = 120) -> None:
    """Wait until a file can be written, which takes a DataNode."""
    until = time.monotonic() + seconds
    while True:
        try:
            folder.write_text("probe", "x")
            folder.remove("probe")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(1)
        else:
            return


def prepare(downloads: Path) -> None:
    """Download the packages with the servers and the libraries, unless they are there."""
    downloads.mkdir(parents=True, exist_ok=True)
    python = downloads / "python" / "bin" / "python"
    if not python.exists():
        venv.create(downloads / "python", with_pip=True)
        # The newest setuptools cannot read the old package.
        pip(python, "install", "setuptools<66", "wheel", "moto[server]")
    for package, pattern, target in (
        (HADOOP_PACKAGE, r".*/deps/jars/[^/]+\.jar", downloads / "hadoop"),
        (S3A_PACKAGE, r".*/({})".format("|".join(map(re.escape, S3A_JARS))), downloads / "s3a"),
    ):
        if target.exists():
            continue
        name, _, version = package.removesuffix(".tar.gz").rpartition("-")
        pip(python, "download", "--no-deps", "--no-build-isolation", "--dest", str(downloads), f"{name}=={version}")
        with tempfile.TemporaryDirectory(dir=downloads) as part, tarfile.open(downloads / package) as archive:
            for member in archive:
                if re.fullmatch(pattern, member.name):
                    member.name = Path(member.name).name
                    archive.extract(member, part, filter="data")
            Path(part).rename(target)
            Path(part).mkdir()


def pip(python: Path, *words: str) -> None:
    """Run pip in the environment of the servers."""
    subprocess.run([str(python), "-m", "pip", "--quiet", *words], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
