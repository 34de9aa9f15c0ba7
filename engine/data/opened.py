"""A whole data set that has been opened, before any subset is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.cache import cached
from engine.data.images import Images, StoredImages
from engine.data.inventory import Inventory, Survey, take_inventory, take_pixel_inventory
from engine.data.mapped_images import MappedImages
from engine.data.normalisation import Statistics
from engine.data.parts import Found, Loaded, Progress
from engine.data.pictures.fitting import Fitting
from engine.data.storing import open_stored, open_stored_maps, store
from engine.recipes.data import Data


@dataclass(frozen=True)
class Opened:
    """A whole data set, before any subset is chosen."""

    images: dict[str, Images]
    """By split: train, test, and validation where the set brings its own."""
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    measured: Statistics
    content: dict[str, str]
    """By split, a hash of the images and labels; of validation also where there are images in `held_out`."""
    survey: Survey
    cropped_while_decoding: bool = False
    evaluation_shape: tuple[int, int, int] | None = None
    """Largest shape of the images that are evaluated, where it is another than `image_shape`."""
    pixels: dict[str, tuple[int, ...]] | None = None
    """By split, how many pixels hold each value of its label maps, 256 numbers; None without label maps."""
    held_out: Images | None = None
    """All training images as evaluations see those that are held out; None where the training's are no other ones."""

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


def held_out_differ(data: Data) -> bool:
    """Tell whether images that are kept decoded for the training are no good for an evaluation of those held out."""
    return bool(data.validation_fraction) and data.resize_size not in (None, data.image_size)


def with_held_out(
    data: Data,
    opened: Opened,
    found: Found,
    fittings: Mapping[str, Fitting | None],
    parameters: Mapping[str, Any],
    progress: Progress,
) -> Opened:
    """Return a set that is kept decoded, whose held-out images are fitted as those of the test are.

    Args:
        data: the recipe's part about data.
        opened: the set.
        found: its files.
        fittings: by split, what pictures are brought to.
        parameters: what is behind the key of the set's entry in the cache.
        progress: told how much is decoded.

    Raises:
        DataError: a file or the cache cannot be read or written, or the disk is full.
    """
    if not held_out_differ(data) or "validation" in opened.images:
        return opened

    def build(folder: Path) -> dict[str, Any]:
        loaded = found.load()
        # Of all training images, so that another share or seed of the subsets needs no other entry.
        again = Loaded(loaded.class_names, {"validation": loaded.parts["train"]})
        # Transparent pictures were counted with the whole set.
        return store(again, dict(fittings), folder, None, progress) | {"transparent": 0}

    entry = cached(found, {**parameters, "held_out": True}, build, progress)
    images: Images = StoredImages(*open_stored(entry, "validation"))
    if found.label_maps:
        images = MappedImages(*open_stored_maps(entry, "validation"), None)
    # Their content follows from that of the training images, and from the recipe.
    return replace(opened, held_out=images)
