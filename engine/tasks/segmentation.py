"""Segmentation: one of C classes for each pixel, learned by cross-entropy, scored by intersection over union."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from engine.data import Augmenter, Batch, Facts
from engine.objectives import (
    HookedPixelClassification,
    PixelClassification,
    Term,
    dense_decoder,
    dense_dgl_head,
    dense_infopro_head,
    dense_linear_head,
    enlarged,
)
from engine.recipes import Segmentation, TaskSettings
from engine.tasks.metric import MEAN_IOU, Metric
from engine.tasks.segmentation_score import IGNORED, CohortSegmentationScore, SegmentationScore, VersionsTogether
from engine.tasks.segmentation_versions import WHOLE, Version, scaled_size, versions_of
from engine.tasks.task import HeadStyle, Task


class SegmentationTask(Task):
    """Labels are uint8 maps, 0 to C - 1, or 255 for a pixel without a class.

    A network gives logits ``[C, h, w]`` for an image ``[3, H, W]``, at the resolution of its last features, which are
    enlarged to the size of the labels.
    """

    headline: ClassVar[Metric] = MEAN_IOU
    label_dtype: ClassVar[str] = "uint8"
    no_label: ClassVar[int] = IGNORED
    distribution_axis: ClassVar[int | None] = 1

    def __init__(self, settings: TaskSettings, facts: Facts) -> None:
        super().__init__(settings, facts)
        assert isinstance(settings, Segmentation)
        self._settings = settings

    @property
    def outputs(self) -> int:
        """Number of classes C."""
        return self.facts.num_classes

    def label_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return ``(H, W)``."""
        return image_shape[1:]

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return ``(C, H, W)``, of logits that are enlarged to the size of the image."""
        return (self.outputs, *image_shape[1:])

    def output_shape_of(self, features: tuple[int, ...], image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return ``(C, h, w)``, of the resolution of the features."""
        return (self.outputs, *features[1:]) if len(features) == 3 else self.output_shape(image_shape)

    def prediction_shape_of(self, features: tuple[int, ...], image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Return ``(C, h, w)``: peers compare their distributions at the positions of their logits."""
        return self.output_shape_of(features, image_shape)

    def output_in_words(self) -> str:
        """Return that they are logits at each position of the features: how many follows from the size of the image."""
        return "logits, float32 [B, num_classes, h, w], to be enlarged bilinearly to the size of the image"

    def final_term(self) -> Term:
        """Return cross-entropy of the network's logits."""
        return PixelClassification(None, self._settings.final_mean)

    def local_term(self, head: nn.Module) -> Term:
        """Return cross-entropy of a head's logits, enlarged with aligned corners, as InfoPro's code does."""
        return PixelClassification(head, self._settings.local_mean, align_corners=True)

    def hooked_term(self, block: str, head: nn.Module) -> Term:
        """Return cross-entropy of a classifier on the output of a block."""
        return HookedPixelClassification(block, head, self._settings.final_mean)

    def local_head(
        self,
        style: HeadStyle,
        feature_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        final_channels: int,
    ) -> nn.Module:
        """Return a head that gives logits at each position of the features.

        Raises:
            RecipeError: the features are no feature maps.
        """
        styles: dict[HeadStyle, Callable[[], nn.Module]] = {
            "linear": lambda: dense_linear_head(feature_shape, self.outputs),
            "dgl": lambda: dense_dgl_head(feature_shape, self.outputs),
            "infopro": lambda: dense_infopro_head(feature_shape, self.outputs, final_channels),
        }
        return styles[style]()

    def decoder(self, feature_shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> nn.Module:
        """Return InfoPro's decoder for Cityscapes, whatever the size of the crops."""
        return dense_decoder(feature_shape, image_shape)

    def training_labels(self, batch: Batch, augmenter: Augmenter) -> Tensor:
        """Return the label maps, moved as the pixels are."""
        return augmenter.moved_labels(batch, self.no_label)

    @property
    def evaluated_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the largest image at its largest scale."""
        channels, height, width = self.facts.evaluated_shape
        return channels, *scaled_size((height, width), max(self._settings.evaluation_scales))

    def evaluation_versions(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batch at each scale, and mirrored where asked for."""
        for version in self.versions:
            yield replace(batch, images=version.of(batch.images))

    @property
    def versions(self) -> tuple[Version, ...]:
        """How each image is shown in an evaluation."""
        return versions_of(self._settings.evaluation_scales, flip=self._settings.evaluation_flip)

    def hits(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """Return how many of the labelled pixels are predicted."""
        height, width = labels.shape[1:]
        with torch.no_grad():
            return (enlarged(outputs.float(), (int(height), int(width))).argmax(1) == labels).sum()

    def score(self) -> SegmentationScore:
        """Return an empty confusion matrix."""
        return SegmentationScore(self.facts.class_names, self.versions)

    def common_score(self) -> CohortSegmentationScore:
        """Return an empty confusion matrix of a cohort's mean probabilities."""
        return CohortSegmentationScore(self.facts.class_names, self.versions)


def predicted_map(task: Task, outputs: Callable[[Tensor], Tensor], image: np.ndarray) -> np.ndarray:
    """Return the classes of an image's pixels as the score takes them, uint8 ``[H, W]``.

    Args:
        task: with label maps; one of the user's own sees each image as it is.
        outputs: gives logits ``[1, C, h, w]`` for float32 pixels ``[1, 3, H, W]`` from 0 to 1.
        image: uint8 ``[3, H, W]``.
    """
    versions = task.versions if isinstance(task, SegmentationTask) else WHOLE
    together, nothing = VersionsTogether(versions), torch.empty(1, *image.shape[1:])
    found: list[Tensor] = []
    for version in versions:
        logits = outputs(torch.from_numpy(version.of(image[None])).float().div(255))
        found += [classes for _, classes in together.predicted([logits.float()], nothing)]
    classes: np.ndarray = found[0][0].to(torch.uint8).numpy()
    return classes


TASK = SegmentationTask
