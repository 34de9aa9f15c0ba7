"""Does what is said of a bucket that cannot be read make it readable? A server here stands in for the clouds."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from engine.data.remote.copies import fetched

Refused = Callable[..., re.Match[str]]

KEY = "AKIASTANDIN"
FILES = {"set/train/a.bin": b"first", "set/val/b.bin": b"second, and longer"}
OTHERS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "GOOGLE_APPLICATION_CREDENTIALS"),
)


class Cloud(BaseHTTPRequestHandler):
    """As much of the protocols of S3 and of Google's storage as reading a folder needs; it holds one bucket.

    Under S3 it is open to whoever signs with the key, under Google's to whoever does not sign at all.
    """

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        if path.startswith("/storage/v1/b/"):
            return self._google(path.removeprefix("/storage/v1/b/"), asked)
        if f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
            return self._send(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        bucket, _, name = path.strip("/").partition("/")
        if bucket != "pictures":
            return self._send(404, b"<Error><Code>NoSuchBucket</Code><Message>no</Message></Error>")
        if name in FILES:
            return self._send(200, FILES[name])
        if name:
            return self._send(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{len(held)}</Size></Contents>"
            for key, held in FILES.items()
            if key.startswith(asked.get("prefix", ""))
        )
        found = f"<KeyCount>{rows.count('<Key>')}</KeyCount><IsTruncated>false</IsTruncated>{rows}"
        return self._send(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())

    def _google(self, path: str, asked: dict[str, str]) -> None:
        if "Authorization" in self.headers:
            return self._send(401, b'{"error": {"code": 401, "message": "no"}}')
        bucket, _, name = path.partition("/o")
        name = name.strip("/")
        if bucket != "pictures" or (name and name not in FILES):
            return self._send(404, b'{"error": {"code": 404, "message": "not found"}}')
        if name and asked.get("alt") == "media":
            return self._send(200, FILES[name])
        rows = [
            {"kind": "storage#object", "name": key, "bucket": bucket, "size": str(len(held)), "generation": "1"}
            for key, held in FILES.items()
            if key.startswith(asked.get("prefix", ""))
        ]
        if name:
            return self._send(200, json.dumps(next(row for row in rows if row["name"] == name)).encode())
        return self._send(200, json.dumps({"kind": "storage#objects", "items": rows}).encode())

    def _send(self, code: int, held: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        total = len(held)
        if code == 200 and wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or total - 1), total - 1)
            code, held = 206, held[first : last + 1]
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        self.send_header("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(held)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(held)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Words that lead a URI to a server here; nothing that this machine knows of clouds is found."""
    for name in OTHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"endpoint_override=127.0.0.1:{server.server_address[1]}&scheme=http"
    server.shutdown()
    server.server_close()


def read(uri: str) -> dict[str, bytes]:
    folder = fetched(uri, lambda text, share: None)
    return {f"set/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("remedy", ["variables", "file"])
def test_a_bucket_of_amazon_without_credentials(
    remedy: str, cloud: str, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = f"s3://pictures/set?region=us-east-1&{cloud}"
    found = refused(
        r"this machine's credentials \(a role, (~/\.aws), or (\w+) and (\w+)\)",
        lambda: read(uri),
    )
    if remedy == "file":
        folder = Path(found[1]).expanduser()
        folder.mkdir()
        (folder / "credentials").write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = secret\n")
    else:
        monkeypatch.setenv(found[2], KEY)
        monkeypatch.setenv(found[3], "secret")
    assert read(uri) == FILES


def test_a_bucket_of_amazon_that_is_not_there(cloud: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    refused("check the bucket's name", lambda: read(f"s3://picture/set?region=us-east-1&{cloud}"))
    assert read(f"s3://pictures/set?region=us-east-1&{cloud}") == FILES


def test_a_public_bucket_of_google(cloud: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    found = refused(r"(gs://anonymous@)BUCKET/\.\.\. for public ones", lambda: read(f"gs://pictures/set?{cloud}"))
    assert read(f"{found[1]}pictures/set?{cloud}") == FILES
