"""A whole data set that has been opened, before any subset is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.data.images import Images
from engine.data.inventory import Inventory, Survey, take_inventory, take_pixel_inventory
from engine.data.normalisation import Statistics


@dataclass(frozen=True)
class Opened:
    """A whole data set, before any subset is chosen."""

    images: dict[str, Images]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    measured: Statistics
    content: dict[str, str]
    """By split, a hash of the images and labels."""
    survey: Survey
    cropped_while_decoding: bool = False
    evaluation_shape: tuple[int, int, int] | None = None
    """Largest shape of the images that are evaluated, where it is another than `image_shape`."""
    pixels: dict[str, tuple[int, ...]] | None = None
    """By split, how many pixels hold each value of its label maps, 256 numbers; None without label maps."""

    @property
    def strata(self) -> dict[str, np.ndarray]:
        """By split, int64 [N]: the classes that subsets are stratified by; one for all pictures with label maps."""
        if self.pixels is not None:
            return {split: np.zeros(len(images.labels), np.int64) for split, images in self.images.items()}
        return {split: images.labels for split, images in self.images.items()}

    def inventory(self) -> Inventory:
        """Return what was found, used or not."""
        if self.pixels is not None:
            numbers = {split: len(images.labels) for split, images in self.images.items()}
            return take_pixel_inventory(self.survey, self.class_names, numbers, self.pixels)
        labels = {split: images.labels for split, images in self.images.items()}
        return take_inventory(self.survey, self.class_names, labels)
