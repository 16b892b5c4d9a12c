"""Fetching from a server on loopback that does what servers do: break off, lie, ignore ranges, serve other things."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recsys.cli import run_verb
from recsys.data.reading import fetch as fetching
from recsys.data.reading.fetch import fetch_data_set
from recsys.errors import ConfigError, InputError

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"{u},{u % 7},4.0,{1000 + u}\n" for u in range(5000))


def archive(folder="ml-latest-small", text=RATINGS):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr(f"{folder}/ratings.csv", text)
    return packed.getvalue()


class Site:
    """Files by path, and how to misbehave: ``cuts`` = bytes after which the next answers break off."""

    def __init__(self):
        self.files, self.cuts, self.ranges, self.claim, self.status = {}, [], True, None, None
        self.asked = []

    def answer(self, request):
        name = request.path.rsplit("/", 1)[-1]
        start = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        self.asked.append((name, start))
        if self.status or name not in self.files:
            return request.send_error(self.status or 404)
        data = self.files[name]
        if start and self.ranges:
            if start >= len(data):
                return request.send_error(416)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            data = data[start:]
        else:
            request.send_response(200)
        lie = self.claim if name.endswith(".zip") else None
        request.send_header("Content-Length", str(len(data) if lie is None else lie))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts and name.endswith(".zip") else len(data)
        request.wfile.write(data[:cut])


@pytest.fixture
def site(monkeypatch):
    here = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.close_connection = True
            here.answer(self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(fetching, "SITE", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publish(here, archive())
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def publish(site, data, name="ml-latest-small"):
    site.files = {
        f"{name}.zip": data,
        f"{name}.zip.md5": f"MD5 ({name}.zip) = {hashlib.md5(data).hexdigest()}\n".encode(),
    }


def whole(place):
    return (place / "ratings.csv").read_text() == RATINGS


def test_fetches_checks_and_unpacks(site, tmp_path):
    seen = []
    place = fetch_data_set(
        "ml-latest-small", tmp_path / "data", progress=lambda done, total: seen.append((done, total))
    )
    assert whole(place)
    size = len(site.files["ml-latest-small.zip"])
    assert seen[-1] == (size, size)
    assert sorted(path.name for path in place.parent.iterdir()) == ["ml-latest-small"]


def test_what_is_there_is_not_fetched_again(site, tmp_path):
    fetch_data_set("ml-latest-small", tmp_path)
    site.asked.clear()
    fetch_data_set("ml-latest-small", tmp_path)
    assert site.asked == []


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_after_broken_connections(site, tmp_path, ranges):
    site.ranges, site.cuts = ranges, [100, 3000]
    assert whole(fetch_data_set("ml-latest-small", tmp_path))
    starts = [start for name, start in site.asked if name.endswith(".zip")]
    assert starts == ([0, 100, 3100] if ranges else [0, 100, 3000])


def test_a_second_call_goes_on_where_the_first_gave_up(site, tmp_path):
    site.cuts = [500] + [0] * fetching.TRIES
    with pytest.raises(InputError, match=r"the same command resumes it"):
        fetch_data_set("ml-latest-small", tmp_path)
    assert not (tmp_path / "ml-latest-small").exists()
    site.asked.clear()
    assert whole(fetch_data_set("ml-latest-small", tmp_path))
    assert ("ml-latest-small.zip", 500) in site.asked


def test_a_claimed_length_that_is_too_long_is_found_out(site, tmp_path):
    site.claim = 10 + len(site.files["ml-latest-small.zip"])
    assert whole(fetch_data_set("ml-latest-small", tmp_path))


def test_a_claimed_length_that_is_too_short_fails_the_checksum(site, tmp_path):
    site.claim = len(site.files["ml-latest-small.zip"]) - 10
    with pytest.raises(InputError, match=r"not the published archive: its MD5 is"):
        fetch_data_set("ml-latest-small", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused_and_deleted(site, tmp_path):
    site.files["ml-latest-small.zip"] = b"<html>please log in to the hotel's network</html>"
    with pytest.raises(InputError, match=r"ml-latest-small\.zip: this is not the published archive"):
        fetch_data_set("ml-latest-small", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_pinned_checksum_does_not_trust_the_site(site, tmp_path):
    publish(site, archive("ml-1m"), name="ml-1m")
    with pytest.raises(InputError, match=fetching.MD5["ml-1m"]):
        fetch_data_set("ml-1m", tmp_path)


def test_no_checksum_no_archive(site, tmp_path):
    site.files["ml-latest-small.zip.md5"] = b"<html>not found</html>"
    with pytest.raises(InputError, match="it contains no MD5"):
        fetch_data_set("ml-latest-small", tmp_path)


def test_the_folder_is_named_by_the_data_set_whatever_the_archive_says(site, tmp_path, monkeypatch):
    monkeypatch.setitem(fetching.MD5, "ml-10m", None)
    publish(site, archive("ml-10M100K"), name="ml-10m")
    assert whole(fetch_data_set("ml-10m", tmp_path))


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (503, fetching.TRIES)])
def test_a_site_that_answers_with_an_error(site, tmp_path, status, tries, monkeypatch):
    monkeypatch.setitem(fetching.MD5, "ml-1m", "0" * 32)
    site.status = status
    with pytest.raises(InputError, match=r"cannot be fetched"):
        fetch_data_set("ml-1m", tmp_path)
    assert len(site.asked) == tries


def test_offline_says_what_to_do_and_exits_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "SITE", "http://127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert run_verb(["data", "fetch", "ml-100k", "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "http://127.0.0.1:9/ml-100k.zip" in said
    assert "recsys data make" in said


def test_the_command_prints_where_it_is(site, tmp_path, capsys):
    assert run_verb(["data", "fetch", "ml-latest-small", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ml-latest-small")


def test_an_unknown_name_is_told_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'ml-25m'"):
        fetch_data_set("ml-25", tmp_path)


def test_a_folder_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Choose another --folder"):
        fetch_data_set("ml-latest-small", tmp_path / "file")
