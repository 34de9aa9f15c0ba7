"""What does a learner need to know of a data set, without its images?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """A data set in numbers: small, and the same on every learner."""

    name: str
    """The recipe's `data.name`."""

    num_classes: int
    """Classes C; labels are 0 to C - 1."""

    class_names: tuple[str, ...]
    """Names in label order, C of them."""

    image_shape: tuple[int, int, int]
    """Channels, height and width (C, H, W) of every image in a batch."""

    mean: tuple[float, ...]
    """Mean of the [0, 1] values, per channel."""

    std: tuple[float, ...]
    """Standard deviation of the [0, 1] values, per channel."""

    sizes: dict[str, int]
    """Images per split: train, validation (only when there are any) and test; train leaves out what is dropped."""

    fingerprint: str
    """sha256 of the content, the split and what is labelled: equal ones mean the same images and labels."""

    cropped_while_decoding: bool = False
    """Whether the random resized crop is done by the source, because the images are too many to keep decoded."""

    labelled_images: int = -1
    """Training images whose label is used, at least 1; all of `sizes["train"]` unless given."""

    training_positions: int = -1
    """Images of the whole training set; `Batch.indices` of training images are below it; `sizes["train"]` unless
    given."""

    def __post_init__(self) -> None:
        if self.labelled_images < 0:
            object.__setattr__(self, "labelled_images", self.sizes["train"])
        if self.training_positions < 0:
            object.__setattr__(self, "training_positions", self.sizes["train"])

    def describe(self) -> str:
        """Return the numbers of images in words."""
        sizes = ", ".join(f"{size:,} {split}" for split, size in self.sizes.items())
        return f"{sizes}, {self.labelled_images:,} labelled"

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """Return the facts that `to_json` wrote."""
        channels, height, width = values["image_shape"]
        return cls(
            name=values["name"],
            num_classes=values["num_classes"],
            class_names=tuple(values["class_names"]),
            image_shape=(channels, height, width),
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            sizes=dict(values["sizes"]),
            fingerprint=values["fingerprint"],
            cropped_while_decoding=values["cropped_while_decoding"],
            # Facts that were written before images could lack a label do not hold it.
            labelled_images=values.get("labelled_images", values["sizes"]["train"]),
            # Older ones do not count the images that are left out, either.
            training_positions=values.get("training_positions", values["sizes"]["train"]),
        )
