"""The operations of a folder on another file system, through pyarrow on S3 and through Spark: the same promises."""

import pytest
from s3_server import s3_server

from recsys import storage
from recsys.errors import RunFolderError
from recsys.locations import Uri
from recsys.storage import ArrowFolder


@pytest.fixture
def s3(monkeypatch):
    """The objects of an S3 server, bucket/key -> content, that this process uses instead of Amazon's."""
    with s3_server() as (url, objects):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield objects


@pytest.fixture(
    params=["pyarrow", *(pytest.param(name, marks=pytest.mark.spark) for name in ("spark", "objects on spark"))]
)
def folder(request):
    """A folder that does not exist yet, whose name has a blank and what looks like an escape."""
    if request.param == "pyarrow":
        request.getfixturevalue("s3")
        return ArrowFolder.open(Uri("s3a://bucket/runs/a b%20c"))
    from recsys.spark import hadoop_folder
    from recsys.spark.hadoop_client import HadoopClient

    _, uri = request.getfixturevalue("mount")
    if request.param == "objects on spark":
        # Where a rename is a copy, a file is written under its name at once.
        request.getfixturevalue("monkeypatch").setattr(hadoop_folder, "RENAMING_SCHEMES", ())
    client = HadoopClient.of_session(request.getfixturevalue("spark"))
    return hadoop_folder.HadoopFolder(Uri(f"{uri}/runs/a b%20c"), client)


def test_files_are_written_listed_read_and_removed(folder, tmp_path):
    assert folder.list_files() == {}
    assert not folder.is_file()
    folder.write_text("metrics.json", "{}")
    folder.write_text("split/ä.json", "ä" * 100_000)
    (tmp_path / "a b").write_bytes(bytes(range(256)) * 10_000)
    folder.upload(tmp_path / "a b", "model/als/x_.npy")
    sizes = {name: status.size for name, status in folder.list_files().items()}
    assert sizes == {"metrics.json": 2, "split/ä.json": 200_000, "model/als/x_.npy": 2_560_000}
    assert folder.read_text("split/ä.json") == "ä" * 100_000
    folder.download("model/als/x_.npy", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(range(256)) * 10_000
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a b", "copy"]
    assert folder.subfolder("split").list_files().keys() == {"ä.json"}
    assert folder.subfolder("split/ä.json").is_file()
    assert not folder.subfolder("split").is_file()
    folder.remove("split")
    folder.remove("metrics.json")
    folder.remove("nothing")
    assert folder.list_files().keys() == {"model/als/x_.npy"}


def test_a_file_is_replaced_as_a_whole(folder, tmp_path):
    for text in ("old and long", "new", ""):
        folder.write_text("current.json", text)
        assert folder.read_text("current.json") == text
        (tmp_path / "file").write_text(text)
        folder.upload(tmp_path / "file", "uploaded")
        assert folder.read_text("uploaded") == text
    assert folder.list_files().keys() == {"current.json", "uploaded"}


def test_a_missing_file_is_told_from_other_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        folder.read_text("nothing")
    with pytest.raises(FileNotFoundError):
        folder.download("nothing", tmp_path / "copy")


def test_an_older_change_is_earlier(folder):
    folder.write_text("a", "")
    assert folder.list_files()["a"].changed > 1.7e9


@pytest.mark.parametrize("uri", ["nothing://host/run", "hdfs://host/run"])
def test_a_file_system_that_nobody_reads_is_one_sentence(uri):
    with pytest.raises(RunFolderError, match=f"{uri}: this file system cannot be read without Spark: ") as refusal:
        ArrowFolder.open(Uri(uri))
    assert "\n" not in str(refusal.value)


@pytest.mark.spark
def test_without_a_session_a_folder_is_read_through_a_java_of_its_own(tmp_path):
    from recsys.spark.hadoop_folder import open_without_session

    (tmp_path / "a b%20c").mkdir()
    (tmp_path / "a b%20c" / "metrics.json").write_text("{}")
    folder = open_without_session(Uri(f"file://{tmp_path}/a b%20c"))
    assert folder.read_text("metrics.json") == "{}"
    with pytest.raises(RunFolderError, match=r'nothing://host/run: .* No FileSystem for scheme "nothing"') as refusal:
        open_without_session(Uri("nothing://host/run"))
    assert "\n" not in str(refusal.value)


def test_java_is_asked_only_for_what_pyarrow_cannot_read(s3, monkeypatch):
    asked = []
    monkeypatch.setattr(storage, "_spark_opener", None)
    monkeypatch.setattr(storage, "_java_opener", asked.append)
    assert isinstance(storage.open_folder(Uri("s3a://bucket/run")), ArrowFolder)
    # The opener returns None, as it does without pyspark: then the error is that of pyarrow.
    with pytest.raises(RunFolderError, match="cannot be read without Spark"):
        storage.open_folder(Uri("nothing://host/run"))
    assert asked == [Uri("nothing://host/run")]
