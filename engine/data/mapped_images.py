"""Stored images with label maps, of which training batches are augmented crops."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from engine.data.map_augmentation import MapAugmentation
from engine.data.threads import num_threads
from engine.data.varied_sizes import VariedImages


class MappedImages:
    """Images of one split that lie decoded in an array, and their label maps in another.

    Args:
        images: N of them, uint8 [3, H, W] each.
        labels: uint8 [H, W] each.
        sizes: int64 [N, 2], heights and widths; None where all have one size.
        augmentation: of training batches; None where they are whole images.
    """

    look_ahead = True

    def __init__(
        self,
        images: np.ndarray | VariedImages,
        labels: np.ndarray | VariedImages,
        sizes: np.ndarray | None,
        augmentation: MapAugmentation | None,
    ) -> None:
        self._images = images
        self.labels: Any = labels
        self.sizes = sizes
        self._augmentation = augmentation
        self._pool = ThreadPoolExecutor(num_threads(), thread_name_prefix="augment")

    def evaluation_images(self, positions: np.ndarray) -> np.ndarray:
        """Return copies of the images at these positions, which have one size."""
        return self._images[positions]

    def training_images(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """Return the images of `training_pairs`."""
        return self.training_pairs(positions, epoch, step)[0]

    def training_pairs(self, positions: np.ndarray, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the images, uint8 [B, 3, h, w], and label maps, uint8 [B, h, w], of one training batch.

        They are a pure function of (positions, seed, epoch, step).
        """
        augmentation = self._augmentation
        if augmentation is None:
            return self._images[positions], self.labels[positions]
        draws = augmentation.draws(len(positions), epoch, step)
        pairs = list(
            self._pool.map(
                lambda row, position: augmentation(self._images[position], self.labels[position], draws[row]),
                range(len(positions)),
                positions.tolist(),
            )
        )
        return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
