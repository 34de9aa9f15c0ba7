"""Is a data set under a URI the same as in a folder, fetched once, noticed when it changes, and never half there?"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.fs
import pytest

import engine.data.remote
import engine.data.uris
from engine.data import Source, cache_root, open_source
from engine.data.remote import fetched
from engine.data.uris import FileTooLargeError, Place, without_secret
from engine.errors import DataError, RecipeError
from engine.recipes import recipe_from_dict, recipe_identity, recipe_to_dict, with_absolute_paths
from engine.recipes.data import Data
from engine.recipes.recipe import Recipe


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    for place, split in enumerate(("train", "val")):
        writers.folder(tmp_path / "set", split, {name: writers.images(5, 8, place) for name in ("a", "b")})
    return tmp_path / "set"


def silent(text: str, share: float) -> None:
    """Show no progress."""


def copies() -> list[Path]:
    return sorted((cache_root() / "remote").glob("*"))


def leftovers() -> list[Path]:
    return sorted((cache_root() / "remote").glob(".*"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class MemoryStore(pyarrow.fs.FileSystemHandler):
    """What object stores are like: names and bytes, no folders, no times; a read may fail."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.failing: str | None = None
        self.reads = 0

    def get_type_name(self) -> str:
        return "memory"

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pyarrow.fs.FileInfo:
        if path in self.objects:
            return pyarrow.fs.FileInfo(path, pyarrow.fs.FileType.File, size=len(self.objects[path]))
        kind = pyarrow.fs.FileType
        below = any(name.startswith(f"{path}/") for name in self.objects)
        return pyarrow.fs.FileInfo(path, kind.Directory if below else kind.NotFound)

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        return [self._info(name) for name in self.objects if name.startswith(f"{selector.base_dir}/")]

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        self.reads += 1
        if path == self.failing:
            raise OSError("connection reset by peer")
        return pyarrow.BufferReader(self.objects[path])

    open_input_file = open_input_stream

    def _refuse(self, *arguments: Any) -> None:
        raise NotImplementedError

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = normalize_path = _refuse


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The folder `root` as an object store, under any URI."""
    handler = MemoryStore({f"bucket/set/{name}": held for name, held in content(root).items()})
    place = Place(pyarrow.fs.PyFileSystem(handler), "bucket/set")
    monkeypatch.setattr(engine.data.remote, "connect", lambda uri: place)
    return handler


def assert_same_source(first: Source, second: Source) -> None:
    assert first.facts == second.facts
    for step in range(first.steps_per_epoch()):
        np.testing.assert_array_equal(first.batch(0, step).images, second.batch(0, step).images)
        np.testing.assert_array_equal(first.batch(0, step).labels, second.batch(0, step).labels)


def test_an_image_folder_under_a_uri_is_the_folder_itself(root: Path) -> None:
    here = open_source(Data(name="folder", root=str(root), batch_size=4), 0)
    there = open_source(Data(name="folder", root=root.as_uri(), batch_size=4), 0)
    assert_same_source(here, there)
    assert len(copies()) == 1


def test_a_set_that_is_decoded_ahead_has_the_fingerprint_of_its_folder(root: Path) -> None:
    data: dict[str, Any] = {"name": "folder", "batch_size": 4, "image_size": 8}
    here = open_source(Data(**data, root=str(root)), 0, stored_limit_bytes=0)
    there = open_source(Data(**data, root=root.as_uri()), 0, stored_limit_bytes=0)
    try:
        assert_same_source(here, there)
    finally:
        here.close()
        there.close()


def test_cifar_files_and_parquet_shards_are_read_under_a_uri(writers: Any, tmp_path: Path) -> None:
    labels = np.arange(20) % 10
    splits = {"train": (writers.images(20), labels), "test": (writers.images(20, seed=1), labels)}
    cifar = writers.cifar_binary(tmp_path / "cifar", "cifar10", splits)
    for split, (images, _) in splits.items():
        writers.parquet(tmp_path / "shards" / f"{split}-00000-of-00001.parquet", images, labels)
    for name, root in (("cifar10", cifar), ("parquet", tmp_path / "shards")):
        sources = [
            open_source(Data(name=name, root=place, batch_size=4), 0, strict_counts=False)  # type: ignore[arg-type]
            for place in (str(root), root.as_uri())
        ]
        assert_same_source(*sources)


def test_an_object_store_is_read_whole_and_once(root: Path, store: MemoryStore) -> None:
    first = fetched("s3://bucket/set", silent)
    assert content(first) == content(root)
    assert store.reads == 20
    assert fetched("s3://bucket/set", silent) == first
    assert store.reads == 20


def test_packed_files_arrive_as_they_are(store: MemoryStore) -> None:
    store.objects["bucket/set/labels.gz"] = b"\x1f\x8b, and not really packed"
    folder = fetched("s3://bucket/set", silent)
    assert (folder / "labels.gz").read_bytes() == b"\x1f\x8b, and not really packed"


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
    monkeypatch.setattr(engine.data.uris, "_BLOCK_BYTES", 1 << 10)
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
        monkeypatch.setattr(engine.data.uris, name, 0.1)
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


def test_links_in_the_place_of_copies_are_not_followed(root: Path, tmp_path: Path) -> None:
    folder = fetched(root.as_uri(), silent)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert fetched(root.as_uri(), silent) == folder
    assert not folder.is_symlink()
    assert content(tmp_path / "elsewhere") == content(root)
    picture = folder / "train" / "a" / "a_0.png"
    picture.rename(tmp_path / "picture")
    picture.symlink_to(tmp_path / "picture")
    fetched(root.as_uri(), silent)
    assert picture.is_file() and not picture.is_symlink()
    shutil.rmtree(cache_root())
    cache_root().mkdir()
    (tmp_path / "outside").mkdir()
    (cache_root() / "remote").symlink_to(tmp_path / "outside")
    with pytest.raises(
        DataError, match="cache/remote: is a symbolic link, and the cache follows none; remove the link"
    ):
        fetched(root.as_uri(), silent)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_changed_source_is_fetched_anew(root: Path) -> None:
    first = fetched(root.as_uri(), silent)
    picture = root / "train" / "a" / "a_0.png"
    os.utime(picture, ns=(1, 1))
    second = fetched(root.as_uri(), silent)
    picture.write_bytes(b"other")
    third = fetched(root.as_uri(), silent)
    assert len({first, second, third}) == 3
    assert (third / "train" / "a" / "a_0.png").read_bytes() == b"other"
    assert len(copies()) == 3


def test_a_copy_that_lost_a_file_is_fetched_anew(root: Path) -> None:
    folder = fetched(root.as_uri(), silent)
    (folder / "train" / "a" / "a_0.png").unlink()
    assert fetched(root.as_uri(), silent) == folder
    assert content(folder) == content(root)


def test_an_interrupted_fetch_leaves_nothing(store: MemoryStore, root: Path) -> None:
    store.failing = "bucket/set/val/b/b_3.png"
    with pytest.raises(DataError, match=r"^data.root=s3://bucket/set: connection reset by peer; check the bucket's"):
        fetched("s3://bucket/set", silent)
    assert copies() == leftovers() == []

    def stop(text: str, share: float) -> None:
        raise KeyboardInterrupt

    store.failing = None
    with pytest.raises(KeyboardInterrupt):
        fetched("s3://bucket/set", stop)
    assert copies() == leftovers() == []
    assert content(fetched("s3://bucket/set", silent)) == content(root)


def test_a_file_that_is_shorter_than_listed_is_refused(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "bucket/set/val/b/b_3.png"
    ordinary = store._info
    longer = pyarrow.fs.FileInfo(name, pyarrow.fs.FileType.File, size=5000)
    monkeypatch.setattr(store, "_info", lambda path: longer if path == name else ordinary(path))
    with pytest.raises(DataError, match=r"val/b/b_3.png has [\d]+ bytes, but was listed with 5,000"):
        fetched("s3://bucket/set", silent)
    assert copies() == []


def test_progress_is_told_by_share_of_the_bytes(root: Path) -> None:
    told: list[tuple[str, float]] = []
    fetched(root.as_uri(), lambda text, share: told.append((text, share)))
    shares = [share for _, share in told]
    assert {text for text, _ in told} == {"fetching the data set"}
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0
    told.clear()
    fetched(root.as_uri(), lambda text, share: told.append((text, share)))
    assert told == []


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


def test_a_full_disk_is_said_before_anything_is_fetched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2000, 1990, 10))
    with pytest.raises(DataError, match=r"have [\d,]+ bytes, but the disk .* has 10 free.*LOCAL_LEARNING_CACHE"):
        fetched(root.as_uri(), silent)
    assert copies() == leftovers() == []


def test_a_cache_that_cannot_be_written_is_said(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file/remote: cannot be written .*; set LOCAL_LEARNING_CACHE"):
        fetched(root.as_uri(), silent)


def test_what_killed_runs_left_behind_is_removed_after_a_week(root: Path) -> None:
    old, new = (cache_root() / "remote" / f".unfinished-{age}" for age in ("old", "new"))
    for folder in (old, new):
        (folder / "train").mkdir(parents=True)
    os.utime(old, (1, 1))
    fetched(root.as_uri(), silent)
    assert not old.exists()
    assert new.exists()


def test_download_into_a_uri_is_refused(root: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.download=true .*: give a folder"):
        open_source(Data(name="cifar10", root=root.as_uri(), download=True), 0)


def test_the_same_recipe_under_a_uri_keeps_its_identity(tiny_recipe: Callable[..., Recipe]) -> None:
    here, there = (
        with_absolute_paths(tiny_recipe(data={"name": "folder", "root": root})) for root in ("set", "s3://bucket/set")
    )
    assert there.data.root == "s3://bucket/set"
    assert recipe_identity(here) == recipe_identity(there)
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(there)))) == there


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


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget which copies this process has compared already."""
    return engine.data.remote._verified.clear


def flip_a_bit(path: Path) -> None:
    """Change a file as a disk does: its size and time stay what they are."""
    state, damaged = path.stat(), bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_copy_with_a_flipped_bit_is_told_and_fetched_again(
    root: Path, store: MemoryStore, another_process: Callable[[], None]
) -> None:
    remarks: list[str] = []

    def tell(text: str, share: float | None) -> None:
        remarks.extend([text] if share is None else [])

    folder = fetched("s3://bucket/set", tell)
    another_process()
    assert fetched("s3://bucket/set", tell) == folder
    assert (store.reads, remarks) == (20, [])
    flip_a_bit(folder / "val" / "b" / "b_3.png")
    another_process()
    assert fetched("s3://bucket/set", tell) == folder
    assert content(folder) == content(root)
    assert store.reads == 40
    assert remarks == [
        f"{folder}/val/b/b_3.png holds other bytes than were received from data.root=s3://bucket/set, or cannot be "
        "read; all files are fetched again"
    ]
    assert fetched("s3://bucket/set", tell) == folder
    assert (store.reads, len(copies()), leftovers()) == (40, 1, [])


def test_a_file_that_is_written_to_is_noticed_by_the_same_process(root: Path, store: MemoryStore) -> None:
    folder = fetched("s3://bucket/set", silent)
    picture = folder / "val" / "b" / "b_3.png"
    picture.write_bytes(bytes(picture.stat().st_size))
    assert content(fetched("s3://bucket/set", silent)) == content(root)


def test_a_copy_of_an_earlier_version_is_used_and_watched_from_now_on(
    root: Path, store: MemoryStore, another_process: Callable[[], None]
) -> None:
    folder = fetched("s3://bucket/set", silent)
    shutil.rmtree(cache_root() / "remote_digests")
    another_process()
    assert fetched("s3://bucket/set", silent) == folder
    assert store.reads == 20
    flip_a_bit(folder / "val" / "b" / "b_3.png")
    another_process()
    fetched("s3://bucket/set", silent)
    assert store.reads == 40
    assert content(folder) == content(root)


@pytest.mark.parametrize("change", [lambda held: held[:-1], lambda held: b"?" + held[1:], lambda held: b""])
def test_digests_that_are_damaged_cost_one_fetch_at_most(
    change: Callable[[bytes], bytes], root: Path, store: MemoryStore, another_process: Callable[[], None]
) -> None:
    folder = fetched("s3://bucket/set", silent)
    (digests,) = (cache_root() / "remote_digests").iterdir()
    digests.write_bytes(change(digests.read_bytes()))
    for _ in range(2):
        another_process()
        assert content(fetched("s3://bucket/set", silent)) == content(root)
    assert store.reads <= 40
    assert digests.read_bytes() == b"".join(
        hashlib.sha256(held).digest() for _, held in sorted(content(folder).items())
    )


def test_no_more_is_read_of_a_file_than_its_reader_wants(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.data.uris, "_BLOCK_BYTES", 1 << 10)
    store.objects["bucket/set/large"] = bytes(1 << 20)
    place = engine.data.remote.connect("s3://bucket/set")
    assert place.read("large", 1 << 20) == bytes(1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(FileTooLargeError, match=r"^large has more than 5,000 bytes, and no more are read of it$"):
            place.read("large", 5000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()
