"""Are pictures with label maps that have several sizes kept, cropped and evaluated as they are?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.data import open_source
from engine.errors import DataError
from engine.recipes import SGD, Augmentation, Backbone, Constant, Data, EndToEnd, Recipe, Segmentation

IGNORED = 255


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_LEARNING_CACHE", str(tmp_path / "cache"))


def data(root: Path, **changes: Any) -> Data:
    return Data(name="label_maps", root=str(root), batch_size=4, evaluation_batch_size=4, **changes)


def varied_set(place: Path, label_map_set: Callable[..., Path]) -> Path:
    """Return a set whose second pictures are larger than the others."""
    root = label_map_set(place, {"train": 4, "test": 4})
    wide = label_map_set(place / "wide", {"train": 4, "test": 4}, size=(40, 64), seed=1)
    for kind in ("images", "labels"):
        for split in ("train", "test"):
            (wide / kind / f"{split}/001.png").replace(root / kind / f"{split}/001.png")
    return root


def test_pictures_of_several_sizes_are_brought_to_one(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    source = open_source(data(varied_set(tmp_path, label_map_set), image_size=(16, 24)), 0)
    (batch,) = source.evaluation_batches("train")
    assert batch.images.shape == (4, 3, 16, 24)
    assert batch.labels.shape == (4, 16, 24)
    # Labels are where their colours are, and never between two classes.
    assert set(np.unique(batch.labels)) <= {0, 1, 2, IGNORED}
    red = (batch.images[:, 0].astype(int) - batch.images[:, 2]) > 80
    assert ((batch.labels == 2) & red).sum() > 0.9 * (batch.labels == 2).sum()


def test_pictures_of_several_sizes_are_evaluated_whole(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = varied_set(tmp_path, label_map_set)
    with pytest.raises(
        DataError, match=r"several sizes, up to 40 x 64, .* set data\.augmentation\.crop, or data\.image"
    ):
        open_source(data(root), 0)
    cropped = data(root, augmentation=Augmentation(crop=(20, 30)))
    for _ in range(2):  # decoded, and read again
        source = open_source(cropped, 0)
        assert source.facts.evaluated_shape == (3, 40, 64)
        assert source.batch(0, 0).images.shape[2:] == (20, 30)
        batches = list(source.evaluation_batches("test"))
        assert [batch.indices.tolist() for batch in batches] == [[0], [1], [2, 3]]
        for batch in batches:
            for place, image, labels in zip(batch.indices.tolist(), batch.images, batch.labels, strict=True):
                path = f"test/{place:03}.png"
                assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(root / "images" / path)))
                assert np.array_equal(labels, np.asarray(Image.open(root / "labels" / path)))
        source.close()


@pytest.mark.parametrize("large", ["first", "second"])
def test_the_room_for_pictures_of_several_sizes_is_that_of_all(
    large: str, tmp_path: Path, label_map_set: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = varied_set(tmp_path, label_map_set)
    for kind in ("images", "labels"):
        train = root / kind / "train"
        if large == "first":
            (train / "000.png").rename(train / "last.png")
    cropped, needed = data(root, augmentation=Augmentation(crop=(20, 30))), 3 * (40 * 64 + 3 * 24 * 32)
    monkeypatch.setattr("engine.data.cache.free_bytes", lambda _: needed - 1)
    with pytest.raises(DataError, match=f"the decoded images need {needed:,} bytes, but the disk"):
        open_source(cropped, 0)
    monkeypatch.setattr("engine.data.cache.free_bytes", lambda _: needed)
    open_source(cropped, 0).close()


def test_the_mean_of_pictures_of_several_sizes_is_that_of_their_pixels(
    tmp_path: Path, label_map_set: Callable[..., Path]
) -> None:
    root = varied_set(tmp_path, label_map_set)
    pictures = [np.asarray(Image.open(path)).reshape(-1, 3) for path in sorted((root / "images/train").glob("*.png"))]
    source = open_source(data(root, augmentation=Augmentation(crop=(20, 30))), 0)
    assert source.facts.mean == pytest.approx(tuple(np.concatenate(list(pictures)).mean(axis=0) / 255))
    found = [batch.labels.size for batch in source.evaluation_batches("train")]
    assert found == [24 * 32, 40 * 64, 2 * 24 * 32]


def test_a_network_is_scored_on_pictures_of_several_sizes(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = varied_set(tmp_path, label_map_set)
    recipe = Recipe(
        name="varied",
        method=EndToEnd(),
        task=Segmentation(evaluation_scales=(0.5, 1.0)),
        backbone=Backbone(name="fcn_resnet18", output_stride=8),
        data=data(root, augmentation=Augmentation(crop=(16, 24))),
        optimizer=SGD(learning_rate=0.1),
        schedule=Constant(),
        epochs=1,
    )
    run = engine.load(engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run").run_dir)
    whole = engine.evaluate(run)
    assert whole["test/images"] == 4
    # Alone, each picture counts the same pixels.
    assert engine.evaluate(run, changes=["data.evaluation_batch_size=1"]) == whole
