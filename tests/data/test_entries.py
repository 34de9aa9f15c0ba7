"""Is every byte of a kept entry compared with what was written, and is a damaged entry built again, in words?"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data import Source, cache_root, entries, open_source
from engine.data.entries import MANIFEST
from engine.errors import DataError
from engine.recipes.data import Data


def open_told(root: Path, **limits: Any) -> tuple[Source, list[str]]:
    told: list[str] = []
    data = Data(name="folder", root=str(root), batch_size=4, image_size=8)
    source = open_source(data, 0, lambda text, share: told.append(text), **limits)
    return source, [*remarks(source), *told]


def remarks(source: Source) -> list[str]:
    """Return what is said of the cache, and kept in the run folder."""
    return [note for note in source.inventory.to_json()["notes"] if "cache entry" in note]


def the_entry() -> Path:
    (found,) = cache_root().glob(f"*/{MANIFEST}")
    return found.parent


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def all_images(source: Source) -> np.ndarray:
    return np.concatenate([batch.images for batch in source.evaluation_batches("train")])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train.images.npy", -1),
        ("train.images.npy", 20),
        ("train.labels.npy", -8),
        ("test.labels.npy", 15),
        ("test.images.npy", 300),
    ],
)
def test_a_flipped_bit_in_any_file_is_found_and_the_entry_built_again(root: Path, name: str, place: int) -> None:
    first, _ = open_told(root)
    images = all_images(first)
    flip(the_entry() / name, place)
    second, told = open_told(root)
    assert (
        f"the cache entry {the_entry()} is damaged ({name} holds other bytes than were written); it was built again"
        in (told)
    )
    assert told.count("decoding the train images") > 0
    assert second.facts == first.facts
    np.testing.assert_array_equal(all_images(second), images)
    assert open_told(root)[1] == []


def test_values_of_a_manifest_that_were_changed_are_found(root: Path) -> None:
    first, _ = open_told(root)
    path = the_entry() / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["splits"]["train"]["mean"][0] += 1e-9
    path.write_text(json.dumps(manifest))
    second, told = open_told(root)
    assert "manifest.json holds other values than were written" in told[0]
    assert second.facts == first.facts


def test_an_entry_of_an_earlier_version_has_no_digests_and_is_built_again(root: Path) -> None:
    first, _ = open_told(root)
    path = the_entry() / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["sha256"], manifest["manifest_sha256"]
    path.write_text(json.dumps(manifest, indent=1))
    second, told = open_told(root)
    assert told[0] == (
        f"the cache entry {the_entry()} was written by an earlier version, without digests of its files; "
        "it was built again"
    )
    assert second.facts == first.facts
    assert "sha256" in json.loads((the_entry() / MANIFEST).read_text())


def test_no_link_is_followed(root: Path, tmp_path: Path) -> None:
    first, _ = open_told(root)
    entry = the_entry()
    shutil.move(entry, tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    second, told = open_told(root)
    assert "is no folder of its own, but a link or a file" in told[0]
    assert second.facts == first.facts
    assert not entry.is_symlink()
    assert (tmp_path / "elsewhere" / "train.images.npy").is_file()
    os.rename(entry / "test.labels.npy", tmp_path / "labels")
    (entry / "test.labels.npy").symlink_to(tmp_path / "labels")
    assert "test.labels.npy is no regular file" in open_told(root)[1][0]
    assert (tmp_path / "labels").is_file()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(root: Path) -> None:
    first, _ = open_told(root)
    (the_entry() / "train.images.npy").unlink()
    os.mkfifo(the_entry() / "train.images.npy")
    (index,) = (cache_root() / "index").iterdir()
    index.unlink()
    os.mkfifo(index)
    second, told = open_told(root)
    assert any("train.images.npy is no regular file" in text for text in told)
    assert second.facts == first.facts


@pytest.mark.parametrize("name", ["index", "manifest", "train.images.npy"])
def test_a_folder_in_the_place_of_a_file_is_replaced(root: Path, name: str) -> None:
    first, _ = open_told(root)
    (index,) = (cache_root() / "index").iterdir()
    path = {"index": index, "manifest": the_entry() / MANIFEST}.get(name, the_entry() / name)
    path.unlink()
    path.mkdir()
    for _ in range(2):
        second, _ = open_told(root)
        assert second.facts == first.facts
    assert path.is_file()


def test_folders_of_the_cache_that_are_links_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    cache_root().mkdir()
    (cache_root() / "index").symlink_to(tmp_path / "outside")
    with pytest.raises(
        DataError, match=r"cache/index: is a symbolic link, and the cache follows none; remove the link"
    ):
        open_told(root)
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_index_names_entries_only(root: Path, tmp_path: Path) -> None:
    first, _ = open_told(root)
    shutil.copytree(the_entry(), tmp_path / "other")
    (index,) = (cache_root() / "index").iterdir()
    index.write_text(json.dumps({"entry": "../other"}))
    assert open_told(root)[0].facts == first.facts
    assert json.loads(index.read_text()) == {"entry": the_entry().name}


def test_a_process_compares_an_entry_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Path] = []
    ordinary = entries._compare
    monkeypatch.setattr(entries, "_compare", lambda folder, *rest: compared.append(folder) or ordinary(folder, *rest))
    for _ in range(3):
        open_told(root)
    assert compared == [the_entry()]
    monkeypatch.setattr(entries, "_verified", {})
    open_told(root)
    assert len(compared) == 2


def test_digests_of_files_of_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_BLOCK_BYTES", 8)
    monkeypatch.setattr(entries, "_READ_AT_ONCE", 4)
    (tmp_path / "entry").mkdir()
    path = tmp_path / "entry" / "x"
    path.write_bytes(bytes(range(21)))
    (tmp_path / "entry" / MANIFEST).write_text(json.dumps(entries.seal(tmp_path / "entry", {"a": [1.5]})))
    for place in range(21):
        flip(path, place)
        with pytest.raises(entries.DamagedEntry, match="x holds other bytes"):
            entries.open_entry(tmp_path / "entry", lambda share: None)
        flip(path, place)
    found = entries.open_entry(tmp_path / "entry", lambda share: None)
    assert found is not None
    assert found.manifest["a"] == [1.5]


def open_packed(writers: Any, root: Path) -> tuple[Source, list[str]]:
    if not root.exists():
        for place, split in enumerate(("train", "test")):
            writers.parquet(root / f"{split}.parquet", writers.images(12, 8, place), [0, 1] * 6)
    told: list[str] = []
    data = Data(name="parquet", root=str(root), batch_size=4, image_size=8)
    source = open_source(data, 0, lambda text, share: told.append(text), stored_limit_bytes=10)
    return source, [*remarks(source), *told]


@pytest.mark.parametrize("name", ["train.offsets.npy", "train.checksums.npy", "test.labels.npy"])
def test_flipped_bits_beside_packed_pictures_are_found_when_they_are_opened(
    writers: Any, tmp_path: Path, name: str
) -> None:
    first, _ = open_packed(writers, tmp_path / "set")
    flip(the_entry() / name, -1)
    second, told = open_packed(writers, tmp_path / "set")
    assert f"({name} holds other bytes than were written)" in told[0]
    assert second.facts == first.facts


def test_a_flipped_bit_of_a_packed_picture_is_found_when_it_is_read_and_the_remedy_works(
    writers: Any, tmp_path: Path
) -> None:
    first, _ = open_packed(writers, tmp_path / "set")
    images = all_images(first)
    flip(the_entry() / "train.pictures", -1)
    second, _ = open_packed(writers, tmp_path / "set")
    with pytest.raises(DataError, match=r"train.pictures: picture 11 holds other bytes .*give the same command again"):
        all_images(second)
    for source in (first, second):
        source.close()
    third, told = open_packed(writers, tmp_path / "set")
    assert "it was built again" in told[0]
    assert third.facts == first.facts
    np.testing.assert_array_equal(all_images(third), images)
    third.close()
