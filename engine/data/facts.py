"""Facts of a data set: what a learner knows of it, without its images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from engine.errors import DataError
from engine.reading import checked


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

    label_maps: bool = False
    """Whether each image comes with a map of the classes of its pixels, rather than with one class."""

    evaluation_shape: tuple[int, int, int] | None = None
    """Channels, largest height and largest width of the images that are evaluated, where they differ from
    `image_shape`; None where they do not."""

    @property
    def evaluated_shape(self) -> tuple[int, int, int]:
        """Channels, largest height and largest width (C, H, W) of the images that are evaluated."""
        return self.evaluation_shape or self.image_shape

    def __post_init__(self) -> None:
        if "train" not in self.sizes:
            raise ValueError(f"found the splits {', '.join(self.sizes) or 'none'}, expected train among them")
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
        """Return the facts that `to_json` wrote, also those of earlier versions, which lack the last fields.

        Raises:
            DataError: the values are something else.
        """
        facts = checked(values, _ADAPTER, "what is kept of the images' facts", DataError)
        lengths = (len(facts.class_names), len(facts.mean), len(facts.std))
        expected = (facts.num_classes, facts.image_shape[0], facts.image_shape[0])
        if lengths != expected or min(facts.image_shape) < 1 or facts.num_classes < 1:
            raise DataError(
                f"what is kept of the images' facts contradicts itself: found {lengths[0]:,} class names, {lengths[1]} "
                f"means and {lengths[2]} deviations for {facts.num_classes:,} classes and images of {facts.image_shape}"
            )
        return facts


_ADAPTER: TypeAdapter[Facts] = TypeAdapter(Facts)
