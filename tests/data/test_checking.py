"""Are all pictures that cannot be used named at once, before anything is trained, and does the remedy work?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data import Source, batches, cache_root, checking, open_source
from engine.errors import DataError
from engine.recipes import Recipe
from engine.recipes.data import Data
from engine.recipes.plan import Plan
from engine.training import train

STORED, AHEAD = 1 << 30, 10


@pytest.fixture
def root(writers: Any, tmp_path: Path) -> Path:
    for place, split in enumerate(("train", "val")):
        writers.folder(tmp_path / "set", split, {name: writers.images(6, 8, place) for name in ("cat", "dog")})
    return tmp_path / "set"


def open_folder(root: Path, limit: int, told: list[str] | None = None, **fields: Any) -> Source:
    data = Data(name="folder", root=str(root), batch_size=4, image_size=8, **fields)
    keep = told if told is not None else []
    return open_source(data, 0, lambda text, share: keep.append(text), stored_limit_bytes=limit)


def cut(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    return whole


@pytest.mark.parametrize("limit", [STORED, AHEAD], ids=["stored", "decoded ahead"])
def test_all_damaged_pictures_of_all_splits_are_named_at_once(root: Path, limit: int) -> None:
    cut(root / "train" / "cat" / "cat_0.png")
    (root / "train" / "dog" / "dog_5.png").write_bytes(b"no picture")
    cut(root / "val" / "dog" / "dog_3.png")
    with pytest.raises(DataError) as refused:
        open_folder(root, limit)
    text = str(refused.value)
    assert text.startswith("3 of 24 pictures cannot be used: ")
    for name in ("train/cat/cat_0.png", "train/dog/dog_5.png", "val/dog/dog_3.png"):
        assert str(root / name) in text
    assert text.endswith(". For each: replace or remove it")


@pytest.mark.parametrize("limit", [STORED, AHEAD], ids=["stored", "decoded ahead"])
def test_one_damaged_picture_is_named_and_many_are_counted(
    root: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.pictures.findings._NAMED", 20)
    cut(root / "val" / "dog" / "dog_5.png")
    with pytest.raises(DataError, match=r"^/.*/val/dog/dog_5.png cannot be decoded \(.*replace or remove it$"):
        open_folder(root, limit)
    for path in root.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^24 of 24 pictures cannot be used: .*; and 4 more\. For each"):
        open_folder(root, limit)


@pytest.mark.parametrize("limit", [STORED, AHEAD], ids=["stored", "decoded ahead"])
def test_a_list_of_labelled_pictures_is_said_to_count_those_that_are_removed(
    root: Path, limit: int, tmp_path: Path
) -> None:
    cut(root / "train" / "cat" / "cat_0.png")
    listed = tmp_path / "labelled.txt"
    listed.write_text("".join(f"{place}\n" for place in range(12)))
    moved = rf"remove it\. data\.labelled_indices={listed} counts pictures: .* replace it, or write the list anew$"
    with pytest.raises(DataError, match=moved):
        open_folder(root, limit, labelled_indices=str(listed))


@pytest.mark.parametrize("limit", [STORED, AHEAD], ids=["stored", "decoded ahead"])
@pytest.mark.parametrize("remedy", ["replace", "remove"])
def test_the_remedy_for_a_damaged_picture_works(root: Path, limit: int, remedy: str) -> None:
    path = root / "train" / "dog" / "dog_1.png"
    whole = cut(path)
    with pytest.raises(DataError, match="replace or remove it"):
        open_folder(root, limit)
    if remedy == "replace":
        path.write_bytes(whole)
    else:
        path.unlink()
    source = open_folder(root, limit)
    assert source.facts.sizes == {"train": 12 if remedy == "replace" else 11, "test": 12}
    source.close()


def test_pictures_are_checked_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    ordinary = checking.check
    monkeypatch.setattr(checking, "check", lambda picture: checked.append(picture.where) or ordinary(picture))
    told: list[str] = []
    open_folder(root, AHEAD, told)
    assert len(set(checked)) == len(checked) == 24
    assert "checking that all pictures can be decoded" in told
    told.clear()
    open_folder(root, AHEAD, told)
    assert len(checked) == 24
    assert told == []
    os.utime(root / "train" / "cat" / "cat_0.png", (1, 1))
    open_folder(root, AHEAD)
    assert len(checked) == 48


def test_pictures_that_are_not_used_are_not_checked(root: Path) -> None:
    first = open_folder(root, AHEAD, test_limit=4)
    used = {int(index) for batch in first.evaluation_batches("test") for index in batch.indices}
    names = [f"{name}/{name}_{number}.png" for name in ("cat", "dog") for number in range(6)]
    cut(root / "val" / names[next(place for place in range(12) if place not in used)])
    open_folder(root, AHEAD, test_limit=4)
    with pytest.raises(DataError, match="cannot be decoded"):
        open_folder(root, AHEAD)


def test_a_note_that_cannot_be_kept_or_read_costs_a_check(root: Path, tmp_path: Path) -> None:
    told: list[str] = []
    cache_root().mkdir()
    (cache_root() / "checked").symlink_to(tmp_path)
    notes = open_folder(root, AHEAD).inventory.to_json()["notes"]
    assert any(note.startswith("all pictures will be checked again next time, because") for note in notes)
    (cache_root() / "checked").unlink()
    for damage in ("{", "[]", '{"transparent": "many"}', "{}"):
        open_folder(root, AHEAD)
        (note,) = (cache_root() / "checked").iterdir()
        note.write_text(damage)
        told.clear()
        open_folder(root, AHEAD, told)
        assert "checking that all pictures can be decoded" in told


@pytest.mark.slow
@pytest.mark.parametrize("remedy", ["replace", "remove"])
def test_a_training_does_not_begin_before_all_pictures_were_checked_and_goes_on_after_the_remedy(
    root: Path,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    remedy: str,
) -> None:
    """Case L1: the damaged picture would be met in the second epoch at the latest, behind several checkpoints."""
    ordinary = batches.open_images
    monkeypatch.setattr(batches, "open_images", lambda *arguments: ordinary(*arguments[:4], AHEAD, arguments[5]))
    data = {"name": "folder", "root": str(root), "batch_size": 4, "image_size": 8}
    data |= {"train_limit": None, "test_limit": None}
    recipe, plan = tiny_recipe(data=data), Plan(executor="process", checkpoint_every_steps=1)
    path = root / "train" / "dog" / "dog_5.png"
    whole = cut(path)
    with pytest.raises(DataError, match=r"dog_5.png cannot be decoded .*replace or remove it"):
        train(recipe, plan, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    if remedy == "replace":
        path.write_bytes(whole)
    else:
        path.unlink()
    stopped = train(recipe, plan, tmp_path / "run", until_step=2)
    assert (stopped.status, stopped.steps) == ("interrupted", 2)
    assert train(recipe, plan, tmp_path / "run").status == "finished"


@pytest.mark.slow
def test_a_picture_that_is_damaged_during_a_training_does_not_cost_the_run(
    root: Path, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = batches.open_images
    monkeypatch.setattr(batches, "open_images", lambda *arguments: ordinary(*arguments[:4], AHEAD, arguments[5]))
    data = {"name": "folder", "root": str(root), "batch_size": 4, "image_size": 8}
    recipe, plan = tiny_recipe(data=data | {"train_limit": None, "test_limit": None}), Plan(executor="process")
    straight = train(recipe, plan, tmp_path / "straight")
    train(recipe, plan, tmp_path / "run", until_step=2)
    path = root / "train" / "dog" / "dog_5.png"
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[:60] + bytes(len(whole) - 60))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(
        DataError, match=r"dog_5.png cannot be decoded .*: put the same file back, and the same command"
    ):
        train(recipe, plan, tmp_path / "run")
    path.write_bytes(whole)
    ended = train(recipe, plan, tmp_path / "run")
    assert (ended.status, ended.weights_sha256) == ("finished", straight.weights_sha256)
