"""A task whose labels are maps: is a pixel lighter than its image is on the whole?"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import Context, Term, TermValue
from engine.tasks import HeadStyle, Metric, Task

IGNORED = 255


class PixelCrossEntropy(Term):
    """Mean over the labelled pixels; logits are enlarged to the size of the labels."""

    name = "cross_entropy"
    needs_labels = True

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def predict(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, features: Tensor, context: Context) -> TermValue:
        logits = self.predict(features) if context.predictions is None else context.predictions
        return TermValue(F.cross_entropy(enlarged(logits, context.labels), context.labels.long(), ignore_index=IGNORED))


def enlarged(logits: Tensor, labels: Tensor) -> Tensor:
    return F.interpolate(logits.float(), labels.shape[1:], mode="bilinear")


class PixelScore:
    def __init__(self) -> None:
        self.images, self._right, self._labelled = 0, 0, 0

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        self.images += len(labels)
        self._right += int((enlarged(outputs, labels).argmax(1) == labels).sum())
        self._labelled += int((labels != IGNORED).sum())

    def result(self) -> dict[str, float]:
        return {"pixel_accuracy": self._right / self._labelled, "images": self.images}


class Lighter(Task):
    headline: ClassVar[Metric] = Metric("pixel_accuracy")
    label_dtype: ClassVar[str] = "uint8"
    no_label: ClassVar[int] = IGNORED
    distribution_axis: ClassVar[int | None] = 1
    outputs = 2

    def label_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape[1:]

    def output_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (2, image_shape[1] // 2, image_shape[2] // 2)

    def final_term(self) -> Term:
        return PixelCrossEntropy(nn.Identity())

    def local_term(self, head: nn.Module) -> Term:
        return PixelCrossEntropy(head)

    def local_head(
        self,
        style: HeadStyle,
        feature_shape: tuple[int, ...],
        image_shape: tuple[int, int, int],
        final_channels: int,
    ) -> nn.Module:
        return nn.Conv2d(feature_shape[0], 2, kernel_size=1)

    def training_labels(self, batch, augmenter):  # type: ignore[no-untyped-def]
        return augmenter.moved_labels(batch, self.no_label)

    def hits(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        return (enlarged(outputs, labels).argmax(1) == labels).sum()

    def score(self) -> PixelScore:
        return PixelScore()


def network(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    channels, _, _ = image_shape
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Conv2d(8, num_classes, kernel_size=1),
    )
