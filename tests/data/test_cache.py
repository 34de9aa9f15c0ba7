"""Is a decoded set used again, found again after a copy, rebuilt when damaged, and never half written?"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Source, cache, cache_root, open_source, storing
from engine.data.entries import Entry
from engine.errors import DataError
from engine.recipes.data import Data


def open_folder(root: Path, **fields: Any) -> Source:
    reported = fields.pop("progress", None)
    return open_source(Data(name="folder", root=str(root), batch_size=4, **fields), 0, reported)


def entries() -> list[Path]:
    return sorted(path.parent for path in cache_root().glob("*/manifest.json"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the places of all pictures that are decoded."""
    places: list[str] = []
    ordinary = storing.decoded

    def watched(picture: Any) -> Any:
        places.append(picture.where)
        return ordinary(picture)

    monkeypatch.setattr(storing, "decoded", watched)
    return places


def test_second_opening_neither_decodes_nor_reads_the_source(root: Path, decoded: list[str]) -> None:
    reports: list[tuple[str, float]] = []
    first = open_folder(root, progress=lambda text, fraction: reports.append((text, fraction)))
    assert len(decoded) == 20
    assert ("decoding the train images", 1.0) in reports
    assert ("reading the source files", 1.0) in reports
    reports.clear()
    second = open_folder(root, progress=lambda text, fraction: reports.append((text, fraction)))
    assert len(decoded) == 20
    assert reports == []
    assert first.facts == second.facts
    np.testing.assert_array_equal(first.batch(0, 1).images, second.batch(0, 1).images)


def test_a_copy_or_touched_files_find_the_same_entry(root: Path, decoded: list[str], tmp_path: Path) -> None:
    first = open_folder(root)
    shutil.copytree(root, tmp_path / "copy")
    os.utime(root / "train" / "a" / "a_0.png", (1, 1))
    assert open_folder(tmp_path / "copy").facts == open_folder(root).facts == first.facts
    assert len(decoded) == 20
    assert len(entries()) == 1


def test_changed_content_and_changed_parameters_get_entries_of_their_own(
    root: Path, writers: Any, decoded: list[str]
) -> None:
    first = open_folder(root)
    open_folder(root, image_size=16)
    (root / "train" / "a" / "a_0.png").write_bytes(writers.png(writers.images(1, 8, seed=77)[0]))
    changed = open_folder(root)
    assert len(entries()) == 3
    assert len(decoded) == 60
    assert changed.facts.fingerprint != first.facts.fingerprint


@pytest.mark.parametrize("damage", ["cut", "removed", "manifest", "index"])
def test_damaged_entries_are_built_again(root: Path, decoded: list[str], damage: str) -> None:
    first = open_folder(root)
    (entry,) = entries()
    images = entry / "train.images.npy"
    if damage == "cut":
        images.write_bytes(images.read_bytes()[:-1])
    elif damage == "removed":
        images.unlink()
    elif damage == "manifest":
        (entry / "manifest.json").write_text('{"files": {')
    else:
        for path in (cache_root() / "index").iterdir():
            path.write_text("not json")
    second = open_folder(root)
    assert len(decoded) == (20 if damage == "index" else 40)
    assert second.facts == first.facts
    np.testing.assert_array_equal(first.batch(0, 0).labels, second.batch(0, 0).labels)
    assert len(entries()) == 1
    assert not list(cache_root().glob(".unfinished*"))


def test_a_failed_build_leaves_nothing(root: Path) -> None:
    (root / "val" / "b" / "b_4.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b_4.png cannot be decoded"):
        open_folder(root)
    assert entries() == []
    assert not list(cache_root().glob(".unfinished*"))


def test_concurrent_writers(root: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: open_folder(root), range(4)))
    assert len({source.facts.fingerprint for source in sources}) == 1
    assert len(entries()) == 1
    assert not list(cache_root().glob(".unfinished*"))
    for source in sources:
        np.testing.assert_array_equal(source.batch(0, 0).images, sources[0].batch(0, 0).images)


def test_what_a_killed_run_left_is_removed_after_a_day(root: Path) -> None:
    for name, age in ((".unfinished-old", 2 * 24 * 3600), (".unfinished-new", 60)):
        folder = cache_root() / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    open_folder(root)
    assert [path.name for path in cache_root().glob(".unfinished*")] == [".unfinished-new"]


def test_full_disk_is_found_before_writing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2000, 1000, 1000))
    with pytest.raises(DataError, match=r"need 1,920 bytes, but the disk .* has 1,000 free.*LOCAL_LEARNING_CACHE"):
        open_folder(root)


def test_disk_that_fills_up_while_writing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match=r"disk of the cache .* is full \([\d,]+ bytes free\): make room"):
        open_folder(root)
    assert entries() == []


def test_a_cache_that_cannot_be_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"The cache is .*file; set LOCAL_LEARNING_CACHE"):
        open_folder(root)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() != Path("/x/local-learning")
    monkeypatch.delenv("LOCAL_LEARNING_CACHE")
    assert cache_root() == Path("/x/local-learning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_root() == Path("/h/.cache/local-learning")


def test_a_cache_below_the_home_folder_and_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", "~/c")
    assert cache_root() == Path("/h/c")
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", "c")
    assert cache_root() == Path.cwd() / "c"
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", "~nobody-of-this-name/c")
    with pytest.raises(
        DataError, match=r"^LOCAL_LEARNING_CACHE=.*the home folder of ~nobody-of-this-name is not known"
    ):
        cache_root()
    monkeypatch.delenv("LOCAL_LEARNING_CACHE")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match=r"^there is no home folder for the cache; set LOCAL_LEARNING_CACHE"):
        cache_root()


def test_a_pipe_among_the_source_files_is_not_waited_for(root: Path) -> None:
    (root / "train" / "a" / "a_0.png").unlink()
    os.mkfifo(root / "train" / "a" / "a_0.png")
    with pytest.raises(DataError, match=r"a_0.png.* is no regular file"):
        open_folder(root)


def test_stored_images_are_mapped_and_read_only(root: Path) -> None:
    open_folder(root)
    (entry,) = entries()
    images, labels = storing.open_stored(Entry(entry, {}), "train")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert images.shape == (10, 3, 8, 8)
    assert labels.dtype == np.int64


def test_a_note_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write_note(tmp_path / "note.json", {"entry": 1})
    assert list(tmp_path.iterdir()) == []


def test_notes_that_killed_runs_were_writing_are_removed_after_a_day(root: Path) -> None:
    index = cache_root() / "index"
    index.mkdir(parents=True)
    old, young = index / ".a.json-123-0a1b2c3d", index / ".b.json-123-0a1b2c3d"
    for path in (old, young):
        path.write_text("{")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    open_folder(root)
    assert [path for path in index.iterdir() if path.name.startswith(".")] == [young]
