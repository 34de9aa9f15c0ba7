"""Settings of tasks: what is predicted for an image, and how it is scored."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from engine.recipes.backbone import Option
from engine.recipes.data import LabelKind
from engine.recipes.own_classes import OWN_PATTERN, is_own, with_absolute_path
from engine.recipes.settings import settings

_OWN = "path/to/file.py:Name"


@settings
class Classification:
    """Predict one of C classes; scored by accuracy."""

    learned_as: ClassVar[str] = "classification"
    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes",)

    kind: Literal["classification"] = "classification"

    def with_absolute_paths(self) -> Classification:
        """Return the same: there is no path in it."""
        return self


PixelMean = Literal["labelled", "all"]
"""What a sum over pixels is divided by: the number of pixels with a class, or of all pixels."""


EvaluationScale = Annotated[float, Field(ge=0.1, le=4.0)]


@settings
class Segmentation:
    """Predict the class of each pixel; scored by the mean of intersection over union (mIoU)."""

    learned_as: ClassVar[str] = "segmentation"
    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("label_maps",)

    kind: Literal["segmentation"] = "segmentation"

    final_mean: PixelMean = "labelled"
    """What the cross-entropy of the network's own output is divided by, and that of an auxiliary classifier of the
    backbone: the number of labelled pixels, or, as in InfoPro's code, of `all`."""

    local_mean: PixelMean = "labelled"
    """The same of the local heads; `labelled` in InfoPro's code, too."""

    evaluation_scales: Annotated[tuple[EvaluationScale, ...], Field(min_length=1, max_length=16)] = (1.0,)
    """Each image is evaluated once for each of these, resized by it; the probabilities are averaged. Has no influence
    on the weights."""

    evaluation_flip: bool = False
    """Evaluate each image mirrored, too, and average the probabilities. Has no influence on the weights."""

    @model_validator(mode="after")
    def _scales_differ(self) -> Segmentation:
        if len(set(self.evaluation_scales)) < len(self.evaluation_scales):
            raise ValueError(f"evaluation_scales must differ from one another, found {list(self.evaluation_scales)}")
        return self

    def with_absolute_paths(self) -> Segmentation:
        """Return the same: there is no path in it."""
        return self


@settings
class Retrieval:
    """Find other pictures of an identity; learned as classification, scored by mean average precision."""

    learned_as: ClassVar[str] = "classification"
    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes", "identities")

    kind: Literal["retrieval"] = "retrieval"

    def with_absolute_paths(self) -> Retrieval:
        """Return the same: there is no path in it."""
        return self


@settings
class OwnTask:
    """A task of your own: a subclass of `engine.tasks.Task` in a file of yours."""

    takes_labels: ClassVar[tuple[LabelKind, ...]] = ("classes", "identities", "label_maps")

    kind: Annotated[str, Field(pattern=OWN_PATTERN)] = _OWN
    """The file and the name of the class, ``path/to/file.py:Name``."""

    options: dict[str, Option] = Field(default_factory=dict)
    """What the class may read as ``settings.options``."""

    @property
    def learned_as(self) -> str:
        """Whose losses and methods it takes: its own."""
        return self.kind

    def with_absolute_paths(self) -> OwnTask:
        """Return the same with the path of the file made absolute.

        Raises:
            RecipeError: the path means nothing on this machine.
        """
        return dataclasses.replace(self, kind=with_absolute_path(self.kind, "task.kind"))


def _tag(value: Any) -> str:
    kind = value.get("kind", "classification") if isinstance(value, dict) else getattr(value, "kind", "")
    return _OWN if isinstance(kind, str) and is_own(kind) else str(kind)


Task = Annotated[
    Annotated[Classification, Tag("classification")]
    | Annotated[Segmentation, Tag("segmentation")]
    | Annotated[Retrieval, Tag("retrieval")]
    | Annotated[OwnTask, Tag(_OWN)],
    Discriminator(_tag),
]
"""What is predicted; classification unless given."""
