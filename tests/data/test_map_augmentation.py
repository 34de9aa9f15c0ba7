"""Do label maps go where their pixels go when both are scaled and cropped, and which crops are taken?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data import open_source
from engine.data.map_augmentation import MapAugmentation, distorted
from engine.errors import RecipeError
from engine.recipes import Augmentation, Data

PADDING = np.array([10, 20, 30], np.uint8)


def augmented(
    image: np.ndarray, labels: np.ndarray, size: tuple[int, int], number: int = 40, **fields: object
) -> list[tuple[np.ndarray, np.ndarray]]:
    way = MapAugmentation(Augmentation(crop=size, **fields), size, PADDING, seed=5)
    return [way(image, labels, draws) for draws in way.draws(number, 0, 0)]


def ramp(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture whose channels are its rows, its columns and 200, and a map of its rows."""
    rows, columns = np.indices((height, width)).astype(np.uint8)
    return np.stack([rows, columns, np.full_like(rows, 200)]), rows


def test_crops_without_a_scale_are_pieces_of_picture_and_map() -> None:
    image, labels = ramp(40, 60)
    seen = set()
    for pixels, found in augmented(image, labels, (16, 24)):
        upper, left = int(pixels[0, 0, 0]), int(pixels[1, 0, 0])
        assert np.array_equal(pixels, image[:, upper : upper + 16, left : left + 24])
        assert np.array_equal(found, labels[upper : upper + 16, left : left + 24])
        seen.add((upper, left))
    assert len(seen) > 20
    assert {min(place[0] for place in seen), max(place[0] for place in seen)} <= {*range(4), *range(21, 25)}


def test_scaled_labels_lie_under_their_pixels_and_are_never_between_two() -> None:
    image, labels = ramp(40, 60)
    labels = 2 * labels
    sizes = set()
    for pixels, found in augmented(image, labels, (30, 30), scale=(0.5, 2.0)):
        inside = found != 255
        assert not (found[inside] % 2).any()
        # The interpolated row of a pixel is within one of the row that it is labelled with.
        assert np.abs(pixels[0].astype(int) - found // 2)[inside].max() <= 1
        assert (pixels[:, ~inside] == PADDING[:, None]).all()
        sizes.add(int(inside.sum()))
    # Pictures smaller than the crop are filled up, others are not.
    assert max(sizes) == 30 * 30 > min(sizes)


def test_a_crop_that_one_class_covers_is_drawn_again() -> None:
    image, _ = ramp(32, 64)
    labels = np.zeros((32, 64), np.uint8)
    labels[:, 32:] = 1
    labels[:4] = 255

    def shares(**fields: object) -> list[float]:
        found = []
        for _, crop in augmented(image, labels, (16, 16), 200, **fields):
            counts = np.bincount(crop.ravel(), minlength=256)[:255]
            found.append(counts.max() / counts.sum())
        return found

    # About one crop in six holds enough of both classes; of eleven, one nearly always does.
    assert np.mean(np.array(shares()) < 0.75) < 0.3
    assert np.mean(np.array(shares(largest_class_share=0.75)) < 0.75) > 0.7
    # Nothing can be done where no crop holds two classes: the eleventh is taken.
    assert len(augmented(image, np.zeros_like(labels), (16, 16), 3, largest_class_share=0.75)) == 3


def test_distortion_changes_colours_by_what_the_numbers_say() -> None:
    pixels = np.random.default_rng(0).integers(40, 200, (3, 8, 9), dtype=np.uint8)
    off = np.full(9, 0.9)
    assert np.array_equal(distorted(pixels, off), pixels)
    brighter = off.copy()
    brighter[:2] = 0.0, 1.0
    assert np.array_equal(distorted(pixels, brighter), pixels + 32)
    contrast = off.copy()
    contrast[2:4] = 0.0, 0.0
    assert np.array_equal(distorted(pixels, contrast), pixels // 2)
    grey = np.broadcast_to(pixels[:1], pixels.shape)
    colours = off.copy()
    colours[[5, 6, 7, 8]] = 0.0, 1.0, 0.0, 1.0
    # Grey has neither saturation nor hue.
    assert np.array_equal(distorted(grey, colours), grey)
    assert not np.array_equal(distorted(pixels, colours), pixels)
    around = off.copy()
    around[7:] = 0.0, 0.0
    red = np.zeros((3, 2, 2), np.uint8)
    red[0] = 255
    # A tenth of the circle backwards from red lies between red and magenta.
    found = distorted(red, around)
    assert found[0, 0, 0] == 255
    assert 120 < found[2, 0, 0] < 180


def test_batches_are_a_function_of_seed_epoch_and_step(tmp_path: Path, label_map_set: Callable[..., Path]) -> None:
    root = label_map_set(tmp_path, {"train": 6, "test": 1})
    changes = Augmentation(crop=(16, 20), scale=(0.5, 2.0), largest_class_share=0.75, photometric_distortion=True)
    data = Data(name="label_maps", root=str(root), batch_size=3, augmentation=changes)
    one, other, third = open_source(data, 1), open_source(data, 1), open_source(data, 2)
    assert one.facts.image_shape == (3, 16, 20)
    # In another order: nothing hangs on what was read before.
    second, first = other.batch(1, 1), other.batch(0, 0)
    for place, expected in (((0, 0), first), ((1, 1), second)):
        found = one.batch(*place)
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)
    assert first.images.shape == (3, 3, 16, 20)
    assert not np.array_equal(third.batch(0, 0).images, first.images)
    (whole,) = one.evaluation_batches("test")
    assert whole.images.shape == (1, 3, 24, 32)
    for source in (one, other, third):
        source.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": (0.5, 2.0)}, "scale is about random crops: give their height and width as crop"),
        ({"crop": (16, 16), "scale": (2.0, 0.5)}, "scale is the smallest and the largest factor"),
        ({"crop": (16, 16), "crop_padding": 4}, "crop and crop_padding are two ways to crop"),
        ({"photometric_distortion": True, "color_jitter": 0.4}, "are two ways to change colours"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Augmentation(**fields)
