"""A fixed set of images, as networks take them: without augmentation, in batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.data import Augmenter, Batch

Rows = slice | np.ndarray
"""Which of the images: a slice of them, or their numbers, int64 [n]."""


@dataclass(frozen=True)
class ImageSet:
    """Some images of one split.

    Attributes:
        batch: all of them.
        places: int64 [N], where they stand in their split, ascending.
        size: how many are computed at once.
        augmenter: normalises them, on its device.
        device: where they go.
    """

    batch: Batch
    places: np.ndarray
    size: int
    augmenter: Augmenter
    device: torch.device

    def pixels(self, rows: Rows = slice(None)) -> Tensor:
        """Return some of the images, float32 [N, C, H, W] in [0, 1], on the device."""
        return self.augmenter.evaluation_pixels(replace(self.batch, images=self.batch.images[rows]))

    def inputs(self, rows: Rows = slice(None)) -> Tensor:
        """Return what networks take of some of the images: normalised, float32 [N, C, H, W], on the device."""
        return self.augmenter.normalise(self.pixels(rows))

    def labels(self, rows: Rows = slice(None)) -> Tensor:
        """Return the labels of some of the images, int64 [N], on the device."""
        return torch.tensor(self.batch.labels[rows], device=self.device)

    def slices(self) -> list[slice]:
        """Return the images as batches."""
        count = len(self.places)
        return [slice(start, min(start + self.size, count)) for start in range(0, count, self.size)]
