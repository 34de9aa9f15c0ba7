"""Opens sets with label maps: stored images and labels, and the way to those of training batches."""

from __future__ import annotations

import numpy as np

from engine.data.entries import Entry
from engine.data.map_augmentation import MapAugmentation
from engine.data.mapped_images import MappedImages
from engine.data.opened import Opened
from engine.data.parts import Found
from engine.data.storing import open_stored_maps
from engine.errors import DataError, RecipeError
from engine.recipes.data import Data

NAMES = ("label_maps", "cityscapes")
"""Of the sets whose pictures have label maps."""


def with_label_maps(data: Data, found: Found, entry: Entry, seed: int) -> Opened:
    """Open stored images with label maps, of which those of evaluation may have another size than those of training."""
    splits = entry.manifest["splits"]
    measured = (tuple(splits["train"]["mean"]), tuple(splits["train"]["std"]))
    sizes = [made["shape"][2:] for made in splits.values()]
    # Held-out images are evaluated at the size that they are stored in, too.
    largest = (3, max(height for height, _ in sizes), max(width for _, width in sizes))
    size, crop = tuple(splits["train"]["shape"][2:]), data.augmentation.crop
    if "varied" in splits["train"] and crop is None:
        raise DataError(
            f"the training pictures of {found.root} have several sizes, up to {size[0]} x {size[1]}, which do not make "
            "a batch: set data.augmentation.crop, or data.image_size for all pictures"
        )
    augmentation = None
    if data.augmentation.of_label_maps:
        padding = np.rint(255 * np.array(data.mean or measured[0])).astype(np.uint8)
        augmentation = MapAugmentation(data.augmentation, crop or size, padding, seed)
    return Opened(
        images={
            split: MappedImages(*open_stored_maps(entry, split), augmentation if split == "train" else None)
            for split in splits
        },
        class_names=tuple(entry.manifest["class_names"]),
        image_shape=(3, *(crop or size)),
        measured=measured,
        content={split: made["sha256"] for split, made in splits.items()},
        survey=found.survey,
        evaluation_shape=largest if largest != (3, *(crop or size)) else None,
        pixels={split: tuple(made["pixels"]) for split, made in splits.items()},
    )


def check_fields_of_label_maps(data: Data) -> None:
    """Refuse fields of label maps for other sets.

    Raises:
        RecipeError: one is given.
    """
    changes = [f"augmentation.{field}" for field in data.augmentation.of_label_maps]
    for field in [*(["class_names"] if data.class_names is not None else []), *changes]:
        if data.name not in NAMES or (field == "class_names" and data.name != "label_maps"):
            raise RecipeError(
                f"data.{field} is for sets with label maps, such as data.name=label_maps, found "
                f"data.name={data.name}: leave it out"
            )
