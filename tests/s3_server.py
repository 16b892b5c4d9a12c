"""A small S3 server on loopback, for the client of pyarrow: objects, listings, uploads in parts, no signatures."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape


@dataclass
class Bucket:
    """The objects by key (bucket/name), and the parts of the uploads that are not complete."""

    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    changed: datetime = field(default_factory=lambda: datetime.now(UTC))


def _read_chunks(stream: Any) -> bytes:
    """Return the data of a stream of chunks: of HTTP, or those in which S3 clients send checksums."""
    data = b""
    while size := int(stream.readline().partition(b";")[0], 16):
        data += stream.read(size)
        stream.readline()
    while stream.readline().strip():
        pass
    return data


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the body of an answer waits until the client has acknowledged its head, after 40 ms.
    disable_nagle_algorithm = True
    bucket: Bucket

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def setup(self) -> None:
        super().setup()
        self.bucket = self.server.bucket  # type: ignore[attr-defined]

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/")

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query, True).items()}

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = _read_chunks(self.rfile)
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = _read_chunks(io.BytesIO(content))
        return content

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(content))))
        self.send_header("Last-Modified", self.bucket.changed.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        self.send_header("ETag", '"0"')
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_xml(self, status: int, text: str) -> None:
        self.answer(status, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), Content_Type="application/xml")

    def do_HEAD(self) -> None:
        content = self.bucket.objects.get(self.key)
        if "/" not in self.key:
            self.answer(200, x_amz_bucket_region="us-east-1")
        elif content is None:
            self.answer(404)
        else:
            self.answer(200, length=str(len(content)))

    def do_GET(self) -> None:
        if "/" not in self.key:
            self.answer_xml(200, self.listing())
            return
        content = self.bucket.objects.get(self.key)
        if content is None:
            self.answer_xml(404, "<Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>")
            return
        span = self.headers.get("Range")
        if span is None:
            self.answer(200, content)
            return
        first, last = span.removeprefix("bytes=").split("-")
        end = min(int(last), len(content) - 1)
        part = content[int(first) : end + 1]
        self.answer(206, part, Content_Range=f"bytes {first}-{end}/{len(content)}")

    def listing(self) -> str:
        prefix = self.query.get("prefix", "")
        delimiter = self.query.get("delimiter")
        names = [key.removeprefix(f"{self.key}/") for key in self.bucket.objects if key.startswith(f"{self.key}/")]
        names = sorted(name for name in names if name.startswith(prefix))
        folders = set()
        if delimiter:
            inside = [name for name in names if delimiter in name[len(prefix) :]]
            folders = {prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter for name in inside}
            names = [name for name in names if name not in inside]
        names = names[: int(self.query.get("max-keys", 1000))]
        changed = self.bucket.changed.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        contents = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{changed}</LastModified>"
            f"<Size>{len(self.bucket.objects[f'{self.key}/{name}'])}</Size></Contents>"
            for name in names
        )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        count = len(names) + len(folders)
        head = f"<Name>{self.key}</Name><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult>{head}{contents}{common}</ListBucketResult>"

    def do_PUT(self) -> None:
        content = self.body()
        if "partNumber" in self.query:
            self.bucket.uploads[self.query["uploadId"]][int(self.query["partNumber"])] = content
        elif "/" in self.key:
            self.bucket.objects[self.key] = content
        self.answer(200)

    def do_POST(self) -> None:
        content = self.body()
        if "uploads" in self.query:
            name = str(len(self.bucket.uploads))
            self.bucket.uploads[name] = {}
            result = f"<UploadId>{name}</UploadId>"
            self.answer_xml(200, f"<InitiateMultipartUploadResult>{result}</InitiateMultipartUploadResult>")
        elif "uploadId" in self.query:
            parts = self.bucket.uploads[self.query["uploadId"]]
            self.bucket.objects[self.key] = b"".join(parts[number] for number in sorted(parts))
            etag = "<ETag>0</ETag>"
            self.answer_xml(200, f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>")
        else:
            for element in ElementTree.fromstring(content).iter():
                if element.tag.rpartition("}")[2] == "Key":
                    self.bucket.objects.pop(f"{self.key}/{element.text}", None)
            self.answer_xml(200, "<DeleteResult></DeleteResult>")

    def do_DELETE(self) -> None:
        self.bucket.objects.pop(self.key, None)
        self.answer(204)


@contextmanager
def s3_server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Run a server during the block, and yield its URL and its objects, bucket/key -> content."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.bucket = Bucket()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # looks for an end so often
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.bucket.objects  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
