"""Do label maps go where the pixels of their images go?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.data import Augmenter, Batch, Facts
from engine.recipes.data import Augmentation

FACTS = Facts("x", 2, ("a", "b"), (1, 12, 9), (0.5,), (0.25,), {"train": 40, "test": 9}, "f")
IGNORED = 255


def batch(images: np.ndarray) -> Batch:
    """Return images whose label maps show the same values."""
    return Batch(images[:, None], images, np.arange(len(images)), "train", 1, 2)


def both(given: Batch, augmentation: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pixels, 0 to 255, and the labels of the augmented images."""
    augmenter = Augmenter(augmentation, FACTS, 3, torch.device("cpu"))
    return augmenter.training_pixels(given)[:, 0] * 255, augmenter.moved_labels(given, IGNORED)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (40, 12, 9), dtype=np.uint8)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_padding_is_labelled_as_nothing(padding: int, flip: bool) -> None:
    pixels, labels = both(batch(noise()), Augmentation(crop_padding=padding, padding_mode="zeros", flip=flip))
    assert labels.dtype == torch.uint8
    added = labels == IGNORED
    assert bool(added.any()) == (padding > 0)
    # No pixel is 0 that was not added.
    assert torch.equal(added, pixels == 0)
    assert torch.equal(labels[~added], pixels[~added].round().to(torch.uint8))


def test_what_is_reflected_keeps_its_label() -> None:
    pixels, labels = both(batch(noise()), Augmentation(crop_padding=3, padding_mode="reflect", flip=True))
    assert torch.equal(labels, pixels.round().to(torch.uint8))


@pytest.mark.parametrize("axis", [1, 2])
def test_resized_crops_take_the_nearest_label(axis: int) -> None:
    # The value of a pixel is its own row or column, so bilinear values are places and the nearest label their rounding.
    places = np.indices((12, 9)).astype(np.uint8)[axis - 1]
    given = batch(np.broadcast_to(places, (40, 12, 9)).copy())
    pixels, labels = both(given, Augmentation(crop_padding=0, random_resized_crop=True, flip=True))
    assert not torch.equal(labels, torch.from_numpy(given.labels))
    assert float((labels - pixels).abs().max()) < 0.5 + 1e-3
