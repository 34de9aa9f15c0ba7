"""Are unusable URIs refused without telling a secret, and is what a storage must not list or send never taken?"""

from __future__ import annotations

import shutil
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

import engine.data.remote.copies
import engine.data.remote.uris
from engine.data import cache_root, open_source
from engine.data.remote.copies import fetched
from engine.data.remote.uris import FileTooLargeError, without_secret
from engine.errors import DataError, RecipeError
from engine.recipes.data import Data
from tests.data.remote_sets import MemoryStore, content, copies, leftovers, silent


def test_names_that_lead_out_of_the_folder_and_hidden_ones_are_left_out(root: Path, store: MemoryStore) -> None:
    store.objects["bucket/set/../../outside"] = b"?"
    store.objects["bucket/set/.cache/secret"] = b"?"
    assert content(fetched("s3://bucket/set", silent)) == content(root)
    assert list(cache_root().rglob("outside")) == []


@pytest.mark.parametrize("name", ["bucket/other/file", "/etc/file", "bucket/set/a/../../../b", "bucket/set/a\0b"])
def test_what_is_listed_elsewhere_is_left_out(root: Path, store: MemoryStore, monkeypatch: Any, name: str) -> None:
    ordinary = store.get_file_info_selector
    strange = pyarrow.fs.FileInfo(name, pyarrow.fs.FileType.File, size=1)
    monkeypatch.setattr(store, "get_file_info_selector", lambda selector: [*ordinary(selector), strange])
    assert content(fetched("s3://bucket/set", silent)) == content(root)


def test_names_that_would_be_one_file_are_refused(store: MemoryStore) -> None:
    store.objects["bucket/set/train//a/a_0.png"] = b"?"
    with pytest.raises(DataError, match=r"two files would be called train/a/a_0.png in a folder"):
        fetched("s3://bucket/set", silent)
    assert copies() == leftovers() == []


def test_an_object_that_is_also_a_folder_is_refused(store: MemoryStore) -> None:
    store.objects["bucket/set/train/a"] = b"?"
    with pytest.raises(DataError, match=r"^data.root=s3://bucket/set: "):
        fetched("s3://bucket/set", silent)
    assert copies() == leftovers() == []


def test_an_endless_object_is_not_read_on(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.data.remote.uris, "_BLOCK_BYTES", 1 << 10)
    name = "bucket/set/val/b/b_3.png"
    ordinary = store._info
    listed = pyarrow.fs.FileInfo(name, pyarrow.fs.FileType.File, size=len(store.objects[name]))
    store.objects[name] = bytes(1 << 20)
    monkeypatch.setattr(store, "_info", lambda path: listed if path == name else ordinary(path))
    with pytest.raises(DataError, match=r"val/b/b_3.png has more than \d+ bytes, but was listed with"):
        fetched("s3://bucket/set", silent)
    assert copies() == leftovers() == []


@pytest.mark.parametrize("silent_at", ["get_file_info", "get_file_info_selector", "open_input_stream"])
def test_a_storage_that_does_not_answer_is_given_up(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, silent_at: str
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(store, silent_at, lambda *arguments: ended.wait() and [])
    for name in ("ANSWER_SECONDS", "_LISTING_SECONDS"):
        monkeypatch.setattr(engine.data.remote.uris, name, 0.1)
    with pytest.raises(DataError, match=r"^data.root=s3://bucket/set: there was no answer within 0 seconds; check the"):
        fetched("s3://bucket/set", silent)
    ended.set()
    assert copies() == leftovers() == []


@pytest.mark.slow
def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"endpoint_override=127.0.0.1:{server.getsockname()[1]}&scheme=http&region=us-east-1"
        with pytest.raises(DataError, match=r"^data.root=s3://bucket/set: .*; check the bucket's name"):
            fetched(f"s3://bucket/set?{address}", silent)


def test_a_file_that_is_shorter_than_listed_is_refused(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "bucket/set/val/b/b_3.png"
    ordinary = store._info
    longer = pyarrow.fs.FileInfo(name, pyarrow.fs.FileType.File, size=5000)
    monkeypatch.setattr(store, "_info", lambda path: longer if path == name else ordinary(path))
    with pytest.raises(DataError, match=r"val/b/b_3.png has [\d]+ bytes, but was listed with 5,000"):
        fetched("s3://bucket/set", silent)
    assert copies() == []


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "ftp://host/set",
            r"Unrecognized filesystem type.*expected a URI that begins with one of s3://, gs://, abfs://",
        ),
        ("file:///nowhere/at/all", "there is nothing at this address; .* check that it exists"),
        ("file:///with a space", r"Cannot parse URI"),
        ("s3:///set", "Missing bucket name"),
        ("s3://key:geheim@bucket/set", "holds a password or key, which would be stored"),
        ("abfs://c@account.dfs.core.windows.net/set?client_secret=geheim", "holds a password or key"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_with_a_remedy(uri: str, said: str) -> None:
    with pytest.raises(DataError, match=f"(?s)^data.root=.*{said}") as refused:
        open_source(Data(name="folder", root=uri), 0)
    assert "geheim" not in str(refused.value)
    assert copies() == []


def test_a_uri_of_one_file_or_of_an_empty_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is one file, expected the folder that holds it"):
        fetched((root / "train" / "a" / "a_0.png").as_uri(), silent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no files below this address"):
        fetched((tmp_path / "empty").as_uri(), silent)


def test_a_bucket_without_permission_is_refused(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: list[str]) -> None:
        raise PermissionError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")

    monkeypatch.setattr(store, "get_file_info", refuse)
    with pytest.raises(DataError, match=r"^data.root=s3://bucket/set: .*ACCESS_DENIED.*; check .* credentials"):
        fetched("s3://bucket/set", silent)


def test_what_the_reader_of_a_format_misses_is_said_of_the_uri(root: Path) -> None:
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match=rf"holds train/ only.* is a copy of data.root={root.as_uri()}: mend it there$"):
        open_source(Data(name="folder", root=root.as_uri()), 0)


def test_download_into_a_uri_is_refused(root: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.download=true .*: give a folder"):
        open_source(Data(name="cifar10", root=root.as_uri(), download=True), 0)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:geheim@bucket/set?region=x", "s3://bucket/set"),
        ("abfs://container@account/set", "abfs://container@account/set"),
        ("/a/folder", "/a/folder"),
    ],
)
def test_what_is_shown_of_a_uri_holds_no_password(uri: str, shown: str) -> None:
    assert without_secret(uri) == shown


def test_no_more_is_read_of_a_file_than_its_reader_wants(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.data.remote.uris, "_BLOCK_BYTES", 1 << 10)
    store.objects["bucket/set/large"] = bytes(1 << 20)
    place = engine.data.remote.copies.connect("s3://bucket/set")
    assert place.read("large", 1 << 20) == bytes(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(FileTooLargeError, match=r"^large has more than 5,000 bytes, and no more are read of it$"):
            place.read("large", 5000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()
