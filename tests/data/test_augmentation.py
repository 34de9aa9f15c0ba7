"""Does the vectorised augmentation equal a plain loop over images, and is it a pure function of the batch?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Augmenter, Batch, Facts
from engine.data.draws import TRIES, crop_boxes, draw
from engine.errors import RecipeError
from engine.recipes import load_recipe, recipe_to_dict
from engine.recipes.data import Augmentation

CPU = torch.device("cpu")


def facts(shape: tuple[int, int, int], cropped: bool = False) -> Facts:
    channels = shape[0]
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Facts("x", 2, ("a", "b"), shape, mean, std, {"train": 9, "test": 9}, "f", cropped)


def batch(shape: tuple[int, int, int], number: int = 9, epoch: int = 1, step: int = 2) -> Batch:
    images = np.random.default_rng(0).integers(0, 256, (number, *shape), dtype=np.uint8)
    labels = np.zeros(number, dtype=np.int64)
    return Batch(images, labels, labels, "train", epoch, step)


def augment(given: Batch, cropped: bool = False, seed: int = 0, **fields: Any) -> Tensor:
    shape = (given.images.shape[1], given.images.shape[2], given.images.shape[3])
    return Augmenter(Augmentation(**fields), facts(shape, cropped), seed, CPU).training_pixels(given)


def moved_one_by_one(given: Batch, seed: int, padding: int, mode: str, flip: bool) -> np.ndarray:
    """Pad, cut and mirror each image by itself."""
    draws = draw(len(given.images), seed, given.epoch, given.step)
    height, width = given.images.shape[2:]
    results = []
    for number, image in enumerate(given.images):
        margins = ((0, 0), (padding, padding), (padding, padding))
        padded = np.pad(image, margins, mode="reflect" if mode == "reflect" else "constant")
        down, across = (int(value * (2 * padding + 1)) for value in draws.shift[:, number].tolist())
        cut = padded[:, down : down + height, across : across + width]
        results.append(cut[:, :, ::-1] if flip and draws.mirror[number] < 0.5 else cut)
    return np.stack(results)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 9, 14), (1, 12, 5)])
@pytest.mark.parametrize("mode", ["reflect", "zeros"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 4])
def test_crop_and_flip_equal_the_plain_loop_exactly(
    shape: tuple[int, int, int], mode: str, flip: bool, padding: int
) -> None:
    given = batch(shape, number=300 if padding == 4 else 9)  # more than one block
    found = augment(given, seed=7, crop_padding=padding, padding_mode=mode, flip=flip)
    expected = moved_one_by_one(given, 7, padding, mode, flip).astype(np.float32) / np.float32(255)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_all_shifts_and_both_sides_occur() -> None:
    image = np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8).repeat(2000, axis=0)
    labels = np.zeros(2000, dtype=np.int64)
    found = augment(Batch(image, labels, labels, "train", 0, 0), crop_padding=2, padding_mode="zeros", flip=True)
    assert len(torch.unique(found, dim=0)) == 5 * 5 * 2


def test_nothing_asked_changes_nothing_and_evaluation_never_does() -> None:
    given = batch((3, 8, 8))
    plain = torch.from_numpy(given.images) / 255
    assert torch.equal(augment(given), plain)
    augmenter = Augmenter(Augmentation(crop_padding=3, flip=True, color_jitter=0.5), facts((3, 8, 8)), 0, CPU)
    assert torch.equal(augmenter.evaluation_pixels(given), plain)


@pytest.mark.parametrize(
    "fields",
    [{"crop_padding": 4, "flip": True}, {"color_jitter": 0.4}, {"random_resized_crop": True, "flip": True}],
)
def test_a_pure_function_of_seed_epoch_and_step(fields: dict[str, Any]) -> None:
    given = batch((3, 16, 16))
    state = torch.get_rng_state()
    first = augment(given, **fields)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, augment(given, **fields))
    for other in (augment(given, seed=1, **fields), augment(batch((3, 16, 16), epoch=2), **fields)):
        assert not torch.equal(first, other)
    assert not torch.equal(first, augment(batch((3, 16, 16), step=3), **fields))


def test_read_only_images_are_left_alone() -> None:
    given = batch((3, 8, 8))
    before = given.images.copy()
    given.images.flags.writeable = False
    augment(given, crop_padding=2, flip=True, color_jitter=0.3)
    np.testing.assert_array_equal(given.images, before)


def test_turning_one_kind_on_leaves_the_others() -> None:
    given = batch((3, 16, 16))
    shifted = augment(given, crop_padding=2)
    flipped = augment(given, crop_padding=2, flip=True)
    mirrored = draw(9, 0, 1, 2).mirror < 0.5
    assert torch.equal(flipped[~mirrored], shifted[~mirrored])


def jittered_one_by_one(given: Batch, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation as torchvision defines them, in double precision."""
    color = draw(len(given.images), 0, given.epoch, given.step).color.numpy()
    weights = np.array([0.2989, 0.587, 0.114])[:, None, None]
    results = []
    for image, (bright, contrast, saturation) in zip(given.images / 255, color.T, strict=True):
        bright, contrast, saturation = (1 - strength + 2 * strength * u for u in (bright, contrast, saturation))
        image = np.clip(image * bright, 0, 1)
        grey = image[0] if len(image) == 1 else (weights * image).sum(axis=0)
        image = np.clip(contrast * image + (1 - contrast) * grey.mean(), 0, 1)
        if len(image) == 3:
            image = np.clip(saturation * image + (1 - saturation) * (weights * image).sum(axis=0), 0, 1)
        results.append(image)
    return np.stack(results)


@pytest.mark.parametrize("channels", [1, 3])
def test_color_jitter_equals_the_plain_loop(channels: int) -> None:
    given = batch((channels, 10, 7))
    found = augment(given, color_jitter=0.6)
    np.testing.assert_allclose(found.numpy(), jittered_one_by_one(given, 0.6), atol=2e-6)
    assert found.min() >= 0
    assert found.max() <= 1


def sampled(image: np.ndarray, box: np.ndarray, mirror: bool) -> np.ndarray:
    """Resize one area of an image bilinearly, pixel by pixel."""
    _channels, height, width = image.shape
    left, upper, right, lower = box
    result = np.zeros(image.shape)
    for row in range(height):
        for column in range(width):
            along = width - 1 - column if mirror else column
            y = np.clip(upper + (row + 0.5) * (lower - upper) / height - 0.5, 0, height - 1)
            x = np.clip(left + (along + 0.5) * (right - left) / width - 0.5, 0, width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = image[:, y0, x0] * (1 - x + x0) + image[:, y0, x1] * (x - x0)
            bottom = image[:, y1, x0] * (1 - x + x0) + image[:, y1, x1] * (x - x0)
            result[:, row, column] = top * (1 - y + y0) + bottom * (y - y0)
    return result


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 8, 13)])
def test_resized_crop_equals_the_plain_loop(shape: tuple[int, int, int]) -> None:
    given = batch(shape)
    found = augment(given, random_resized_crop=True, flip=True)
    draws = draw(9, 0, 1, 2)
    ones = torch.ones(9, dtype=torch.float64)
    boxes = crop_boxes(draws.crop, ones * shape[1], ones * shape[2]).numpy()
    mirrors = (draws.mirror < 0.5).tolist()
    expected = [sampled(i / 255, box, m) for i, box, m in zip(given.images, boxes, mirrors, strict=True)]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-5)


def test_images_that_the_source_has_cropped_are_only_mirrored() -> None:
    given = batch((3, 8, 8))
    found = augment(given, cropped=True, random_resized_crop=True, flip=True)
    assert torch.equal(found, augment(given, flip=True))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (10, 200), (200, 10), (2, 2)])
def test_crops_lie_inside_and_have_the_documented_area_and_aspect(height: int, width: int) -> None:
    crop = torch.rand((2 + 2 * TRIES, 2000), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ones = torch.ones(2000, dtype=torch.float64)
    left, upper, right, lower = crop_boxes(crop, ones * height, ones * width).T
    assert (left >= 0).all()
    assert (upper >= 0).all()
    assert (right <= width).all()
    assert (lower <= height).all()
    widths, heights = right - left, lower - upper
    assert (widths >= 1).all()
    assert (heights >= 1).all()
    if (height, width) == (32, 32):
        areas = widths * heights / 1024
        assert areas.min() < 0.12
        assert areas.max() > 0.9
        assert 0.45 < areas.mean() < 0.6
        assert (widths / heights).max() < 1.6
        assert (heights / widths).max() < 1.6
        assert {0} < set(left.long().tolist())
    if (height, width) == (10, 200):
        assert (widths <= 14).all()


def test_normalise() -> None:
    given = batch((3, 8, 8))
    augmenter = Augmenter(Augmentation(), facts((3, 8, 8)), 0, CPU)
    pixels = augmenter.evaluation_pixels(given)
    kept = pixels.clone()
    expected = (given.images / 255 - np.array([0.4, 0.5, 0.6])[:, None, None]) / np.array([0.2, 0.25, 0.3])[
        :, None, None
    ]
    np.testing.assert_allclose(augmenter.normalise(pixels).numpy(), expected, atol=1e-5)
    assert torch.equal(pixels, kept)


def test_reflection_needs_images_larger_than_the_padding() -> None:
    Augmenter(Augmentation(crop_padding=7), facts((1, 8, 9)), 0, CPU)
    Augmenter(Augmentation(crop_padding=20, padding_mode="zeros"), facts((1, 8, 9)), 0, CPU)
    with pytest.raises(RecipeError, match=r"crop_padding=8, but images of 8 x 9 pixels can be reflected by 7 pixels"):
        Augmenter(Augmentation(crop_padding=8), facts((1, 8, 9)), 0, CPU)


@pytest.mark.parametrize("shape", [(3, 32, 16), (1, 8, 24)])
def test_erasing_covers_one_rectangle_with_the_mean_and_changes_nothing_else(shape: tuple[int, int, int]) -> None:
    given = batch(shape, number=200)
    plain, found = augment(given, flip=True), augment(given, flip=True, random_erasing=0.5)
    mean = torch.tensor(facts(shape).mean).view(-1, 1, 1)
    changed = 0
    for before, after in zip(plain, found, strict=True):
        different = (before != after).any(dim=0)
        if not different.any():
            continue
        changed += 1
        rows, columns = different.any(dim=1).nonzero()[:, 0], different.any(dim=0).nonzero()[:, 0]
        box = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        torch.testing.assert_close(after[box], mean.expand_as(after[box]))
        share = after[box][0].numel() / (shape[1] * shape[2])
        assert 0.005 < share < 0.5
    assert 60 < changed < 140
    torch.testing.assert_close(found, augment(given, flip=True, random_erasing=0.5), rtol=0, atol=0)
    assert (augment(given, flip=True, random_erasing=0.5, seed=1) != found).any()


def test_recipes_that_erase_nothing_are_written_as_ever() -> None:
    recipe = load_recipe("infopro_digits")
    assert "random_erasing" not in recipe_to_dict(recipe)["data"]["augmentation"]
    assert "last_stride" not in recipe_to_dict(recipe)["backbone"]
