"""Do images have a height and a width everywhere, and does one number mean the square that it meant before?"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.benchmarking.batches import _random_instead
from engine.data import Batch, Source, open_source
from engine.data.datasets import open_images
from engine.data.pictures.fitting import Fitting, fit, fit_block
from engine.data.readers.digits import load_digits
from engine.errors import RecipeError
from engine.planning.known_images import known_facts
from engine.recipes import Plan, Recipe, load_recipe, recipe_identity
from engine.recipes.data import Augmentation, Data
from engine.recipes.overrides import apply_overrides

RECTANGLE = (12, 8)
WAYS: tuple[dict[str, Any], ...] = ({}, {"first_size": (10, 4)})


def test_one_number_and_two_equal_ones_are_one_recipe() -> None:
    recipe = load_recipe("infopro_digits")
    one, _ = apply_overrides(recipe, Plan(), ["data.image_size=32"])
    two, _ = apply_overrides(recipe, Plan(), ["data.image_size=[32,32]"])
    other, _ = apply_overrides(recipe, Plan(), ["data.image_size=32,16"])
    stretched, _ = apply_overrides(other, Plan(), ["data.stretch=true"])
    assert one == two
    assert other.data.image_size == (32, 16)
    assert other.data.height_and_width == (32, 16)
    assert one.data.height_and_width == (32, 32)
    assert len({recipe_identity(each) for each in (one, two, other, stretched)}) == 3


@pytest.mark.parametrize("size", [(2, 32), (32, 2000), (32,), (1, 2, 3)])
def test_sizes_that_cannot_be_are_refused(size: Any) -> None:
    with pytest.raises(RecipeError, match="image_size"):
        Data(name="digits", image_size=size)


def coloured(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows, columns, rows + columns], axis=2).astype(np.uint8))


def test_a_picture_covers_the_image_and_loses_only_one_direction() -> None:
    tall = np.asarray(fit(coloured(48, 16), Fitting(12, 8)))
    resized = np.asarray(coloured(48, 16).resize((8, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(tall, resized[6:18])
    wide = np.asarray(fit(coloured(16, 48), Fitting(12, 8)))
    resized = np.asarray(coloured(16, 48).resize((36, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(wide, resized[:, 14:22])
    same = np.asarray(fit(coloured(24, 16), Fitting(12, 8)))
    np.testing.assert_array_equal(same, np.asarray(coloured(24, 16).resize((8, 12), Image.Resampling.BILINEAR)))


def test_a_stretched_picture_loses_nothing() -> None:
    stretched = np.asarray(fit(coloured(16, 48), Fitting(12, 8, stretch=True)))
    np.testing.assert_array_equal(stretched, np.asarray(coloured(16, 48).resize((8, 12), Image.Resampling.BILINEAR)))
    square = np.asarray(fit(coloured(16, 48), Fitting(8, 8, stretch=True)))
    np.testing.assert_array_equal(square, np.asarray(coloured(16, 48).resize((8, 8), Image.Resampling.BILINEAR)))


def test_a_picture_is_stretched_twice_where_the_recipe_says_so() -> None:
    twice = np.asarray(fit(coloured(48, 16), Fitting(12, 12, stretch=True, first_size=(10, 4))))
    by_way = coloured(48, 16).resize((4, 10), Image.Resampling.BILINEAR).resize((12, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(twice, np.asarray(by_way))
    once = Fitting(12, 12, stretch=True)
    assert once.to_json() != Fitting(12, 12, stretch=True, first_size=(10, 4)).to_json()
    assert "first_size" not in once.to_json()
    fields: dict[str, Any] = {"name": "digits", "image_size": 12, "stretch": True}
    digits = [next(iter(open_source(Data(**fields, **more), 0).evaluation_batches("test"))).images for more in WAYS]
    assert digits[0].shape == digits[1].shape
    assert not np.array_equal(*digits)
    for wrong, said in (
        ({"stretch": False}, r"data.first_size=\[10, 4\] without data.stretch=true: only whole pictures"),
        ({"augmentation": Augmentation(random_resized_crop=True)}, "beside data.augmentation.random_resized_crop=true"),
    ):
        with pytest.raises(RecipeError, match=said):
            open_source(Data(**(fields | WAYS[1] | wrong)), 0)


def test_what_a_cache_is_called_is_as_ever_for_squares() -> None:
    assert Fitting(32, 32).to_json() == [32, 32]
    assert Fitting(224, 224, 256).to_json() == [224, 256]
    ways = [Fitting(32, 16), Fitting(16, 32), Fitting(32, 32, stretch=True), Fitting(32, 16, stretch=True)]
    described = [str(way.to_json()) for way in [*ways, Fitting(32, 32)]]
    assert len(set(described)) == len(described)


@pytest.mark.parametrize("stretch", [False, True])
def test_pictures_kept_and_pictures_decoded_ahead_are_equal(writers: Any, tmp_path: Path, stretch: bool) -> None:
    for split in ("train", "val"):
        writers.folder(tmp_path, split, {name: writers.images(4, 20) for name in ("a", "b")})
    Image.fromarray(np.asarray(coloured(30, 50))).save(tmp_path / "train" / "a" / "wide.png")
    data = Data(name="folder", root=str(tmp_path), batch_size=4, image_size=RECTANGLE, stretch=stretch)
    kept, ahead = open_source(data, 0), open_source(data, 0, stored_limit_bytes=10)
    assert kept.facts.image_shape == ahead.facts.image_shape == (3, *RECTANGLE)
    for step in range(kept.steps_per_epoch()):
        np.testing.assert_array_equal(kept.batch(0, step).images, ahead.batch(0, step).images)
    for left, right in zip(kept.evaluation_batches("test"), ahead.evaluation_batches("test"), strict=True):
        np.testing.assert_array_equal(left.images, right.images)
    kept.close(), ahead.close()


def whole(source: Source, split: str) -> Batch:
    (batch,) = source.evaluation_batches(split)
    return batch


def folder_of_two_classes(root: Path, writers: Any) -> None:
    writers.folder(root, "train", {name: writers.images(4, 20, seed) for seed, name in enumerate(("a", "b"))})
    Image.new("RGBA", (30, 20), (9, 9, 9, 0)).save(root / "train" / "a" / "transparent.png")
    shutil.copytree(root / "train", root / "val")


def label_maps(root: Path, label_map_set: Callable[..., Path]) -> None:
    for kind in ("images", "labels"):
        shutil.copytree(label_map_set(root, {"train": 6}) / kind / "train", root / kind / "val")


@pytest.mark.parametrize("name", ["folder", "label_maps"])
def test_held_out_images_are_evaluated_as_those_of_the_test_are(
    name: Any, tmp_path: Path, writers: Any, label_map_set: Callable[..., Path]
) -> None:
    folder_of_two_classes(tmp_path, writers) if name == "folder" else label_maps(tmp_path, label_map_set)
    data = Data(name=name, root=str(tmp_path), batch_size=2, image_size=8, resize_size=10, validation_fraction=0.5)
    source, covering = open_source(data, 0), open_source(dataclasses.replace(data, resize_size=None), 0)
    # The test images are the training images once more.
    held_out, test = whole(source, "validation"), whole(source, "test")
    np.testing.assert_array_equal(held_out.images, test.images[held_out.indices])
    np.testing.assert_array_equal(held_out.labels, test.labels[held_out.indices])
    assert (held_out.images != whole(covering, "validation").images).any()
    np.testing.assert_array_equal(source.batch(0, 0).images, covering.batch(0, 0).images)
    transparent = [note for note in source.inventory.survey.notes if "transparent" in note]
    assert len(transparent) == (name == "folder")
    source.close(), covering.close()
    # What they hold follows from the recipe and the training images, which tell one set from another.
    for fraction in (0.5, 0.0):
        opened = open_images(dataclasses.replace(data, validation_fraction=fraction), 0, lambda *_: None, True, 1 << 30)
        assert set(opened.content) == {"train", "test"}
        assert (opened.held_out is not None) == bool(fraction)


def test_held_out_digits_are_evaluated_as_those_of_the_test_are() -> None:
    data = Data(name="digits", image_size=16, resize_size=20, validation_fraction=0.1)
    held_out = whole(open_source(data, 0), "validation")
    digits = np.concatenate(list(load_digits().parts["train"].blocks()))
    np.testing.assert_array_equal(held_out.images, fit_block(digits[held_out.indices], Fitting(16, 16, 20)))


def test_every_kind_of_images_and_the_planner_know_both() -> None:
    for name in ("digits", "synthetic"):
        source = open_source(Data(name=name, num_classes=10, image_size=RECTANGLE), 0)  # type: ignore[arg-type]
        assert source.facts.image_shape[1:] == RECTANGLE
        assert source.batch(0, 0).images.shape[2:] == RECTANGLE
    recipe = with_data(load_recipe("infopro_imagenet_resnet152"), image_size=(256, 128), resize_size=None)
    assert known_facts(recipe)[0].image_shape == (3, 256, 128)
    random = _random_instead(recipe)
    assert random is not None
    assert random[0].data.image_size == (256, 128)


def with_data(recipe: Recipe, **fields: Any) -> Recipe:
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_size": (12, 8), "resize_size": 14}, r"data.resize_size=14 is for square images.*\[12, 8\].*leave it"),
        ({"stretch": True}, "data.stretch=true needs data.image_size"),
        ({"stretch": True, "image_size": 8, "resize_size": 9}, "no data.resize_size"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        open_source(Data(name="digits", **fields), 0)
