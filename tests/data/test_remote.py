"""Is a data set under a URI the same as in a folder, fetched once, noticed when it changes, and never half there?"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine.data.remote.copies
from engine.data import Source, cache_root, open_source
from engine.data.remote.copies import fetched
from engine.errors import DataError
from engine.recipes import recipe_from_dict, recipe_identity, recipe_to_dict, with_absolute_paths
from engine.recipes.data import Data
from engine.recipes.recipe import Recipe
from tests.data.remote_sets import MemoryStore, content, copies, leftovers, silent


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


def test_the_same_recipe_under_a_uri_keeps_its_identity(tiny_recipe: Callable[..., Recipe]) -> None:
    here, there = (
        with_absolute_paths(tiny_recipe(data={"name": "folder", "root": root})) for root in ("set", "s3://bucket/set")
    )
    assert there.data.root == "s3://bucket/set"
    assert recipe_identity(here) == recipe_identity(there)
    assert recipe_from_dict(json.loads(json.dumps(recipe_to_dict(there)))) == there


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget which copies this process has compared already."""
    return engine.data.remote.copies._verified.clear


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
