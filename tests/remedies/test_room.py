"""Does what is said of a cache without room, or of a set that is too large, lead to a training on all images?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import engine.data.cache
import engine.data.remote.copies
from engine.data import open_source
from engine.errors import DataError
from engine.recipes import Data

Open = Callable[..., int]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A set of 8 training and 4 test pictures of 16 x 16 pixels, in two classes."""
    for number in range(12):
        path = tmp_path / "set" / ("train" if number < 8 else "test") / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(path)
    return tmp_path / "set"


@pytest.fixture
def opened(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A function: open the set with other fields or another limit, and return how many training images it has."""
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "small"))

    def run(limit: int = 10**9, **fields: Any) -> int:
        data = Data(**{"name": "folder", "root": str(pictures), "batch_size": 2, **fields})
        source = open_source(data, 0, stored_limit_bytes=limit)
        try:
            source.batch(0, 0)
            return source.facts.sizes["train"]
        finally:
            source.close()

    return run


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function: how many bytes are free on the disk of the folder "small"; elsewhere there is room."""

    def arrange(number: int) -> None:
        def found(folder: Path) -> int:
            return number if "small" in str(folder) else shutil.disk_usage(folder).free

        for module in (engine.data.cache, engine.data.remote.copies):
            monkeypatch.setattr(module, "free_bytes", found)

    return arrange


def refused(words: str, call: Callable[[], Any]) -> re.Match[str]:
    """See a call refused with words that match, and return the match."""
    with pytest.raises(DataError) as found:
        call()
    match = re.search(words, str(found.value), re.DOTALL)
    assert match, f"the message no longer says {words!r}: {found.value}"
    return match


def test_decoded_images_without_room(
    opened: Open, free: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(2000)
    words = "make room, set (LOCAL_LEARNING_CACHE) to a folder on another disk, or give a smaller (data.image_size)"
    variable = refused(words, opened)[1]
    assert opened(image_size=8) == 8
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(variable, str(tmp_path / "large"))
        assert opened() == 8
    free(10**9)
    assert opened() == 8


def test_fetched_files_without_room(
    opened: Open, pictures: Path, free: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(10)
    words = "make room, or set (LOCAL_LEARNING_CACHE) to a folder on another disk"
    variable = refused(words, lambda: opened(root=pictures.as_uri()))[1]
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv(variable, str(tmp_path / "large"))
        assert opened(root=pictures.as_uri()) == 8
    free(10**9)
    assert opened(root=pictures.as_uri()) == 8


@pytest.mark.parametrize("limit", [100, 6000])
def test_a_set_that_is_too_large_to_be_kept_decoded(limit: int, opened: Open) -> None:
    """Seen by its encoded bytes, and by its decoded ones."""
    field = refused(r"set data\.(image_size), and they are decoded while the training runs", lambda: opened(limit))[1]
    assert opened(limit, **{field: 8}) == 8
    assert opened(100, **{field: 8}) == 8


def test_an_entry_that_is_damaged_while_it_is_written(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as damaged:
        damaged.setattr("engine.data.cache._whole", lambda folder, progress: None)
        entry = refused(r"the cache entry (\S+) was damaged .*remove it and start again", opened)[1]
    shutil.rmtree(entry)
    assert opened() == 8
