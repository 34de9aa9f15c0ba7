"""The score of predicted label maps: intersection over union, from one confusion matrix of the whole split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import DataError
from engine.objectives import enlarged
from engine.tasks.segmentation_versions import WHOLE, Version

IGNORED = 255
"""The value in label maps that is neither learned nor scored."""


class ConfusionMatrix:
    """How often each class is predicted for each class, over the batches of one evaluation, whatever their sizes.

    Counts are integers, so the result does not depend on how the images are batched.

    Args:
        class_names: in label order, C of them.

    Attributes:
        counts: int64 ``[C, C + 1]``: pixels of a class (row) that are predicted as a class (column); the last column
            counts pixels whose prediction is not a number.
        images: number of images so far.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.images = 0
        self.counts = torch.zeros(len(self.class_names), len(self.class_names) + 1, dtype=torch.int64)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add label maps.

        Args:
            predicted: int64 ``[B, H, W]``, classes; C where a prediction is not a number.
            labels: uint8 ``[B, H, W]``, classes, or 255 where there is none.

        Raises:
            DataError: a label is neither a class nor 255.
        """
        classes = len(self.class_names)
        self.images += len(labels)
        known = labels != IGNORED
        rows, columns = labels[known].long(), predicted[known]
        if len(rows) and int(rows.max()) >= classes:
            raise DataError(
                f"label {int(rows.max())} found, but there are {classes} classes, 0 to {classes - 1}, and {IGNORED} "
                "for pixels without one: correct the label maps or the table of classes"
            )
        pairs = torch.bincount(rows * (classes + 1) + columns, minlength=self.counts.numel())
        self.counts += pairs.view_as(self.counts)

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far.

        ``mean_iou``, the mean of intersection / union over the classes whose union is not empty, ``pixel_accuracy``,
        ``mean_class_accuracy`` over the classes that have a pixel, all in [0, 1]; ``iou_of_NAME`` of each class, left
        out where the class is neither there nor predicted; ``images``, the count.

        Raises:
            DataError: there was no labelled pixel.
        """
        total = int(self.counts.sum())
        if total == 0:
            raise DataError(
                f"none of the {self.images:,} scored images has a labelled pixel: all their labels are {IGNORED}, so "
                "give the split label maps that hold classes"
            )
        intersections = self.counts.diagonal().double()
        of_class = self.counts.sum(dim=1).double()
        predicted = self.counts[:, :-1].sum(dim=0).double()
        unions = of_class + predicted - intersections
        ious, accuracies = intersections / unions, intersections / of_class
        scores = {
            "mean_iou": float(ious[unions > 0].mean()),
            "pixel_accuracy": float(intersections.sum()) / total,
            "mean_class_accuracy": float(accuracies[of_class > 0].mean()),
        }
        scores |= {
            f"iou_of_{name}": float(iou)
            for name, iou, union in zip(_as_words(self.class_names), ious, unions, strict=True)
            if union > 0
        }
        scores["images"] = self.images
        return scores


class _MatrixScore:
    """What the score of one network and that of several have in common.

    Args:
        class_names: in label order, C of them.
        versions: of each batch, in their order.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, class_names: Sequence[str], versions: Sequence[Version] = WHOLE) -> None:
        self.images = 0
        self._matrix = ConfusionMatrix(class_names)
        self._together = VersionsTogether(versions)


class SegmentationScore(_MatrixScore):
    """As `ConfusionMatrix`, of logits, which are enlarged to the size of the labels.

    Of several versions of a batch, which come one after the other, the class with the largest mean probability is
    predicted.
    """

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch, or one version of it.

        Args:
            outputs: logits ``[B, C, h, w]``, any floating dtype, on any device.
            labels: uint8 ``[B, H, W]``, of the whole images.

        Raises:
            DataError: a label is neither a class nor 255.
        """
        labels = labels.detach().cpu()
        for row, predicted in self._together.predicted([outputs.detach().cpu().float()], labels):
            self._matrix.update(predicted, labels[row : row + 1])
        self.images = self._matrix.images

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far; see `ConfusionMatrix.result`."""
        return self._matrix.result()


class CohortSegmentationScore(_MatrixScore):
    """The score of several networks together: the class with the largest mean of their probabilities.

    A network whose logits are not finite, because it has left the cohort, does not count.
    """

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add one batch, or one version of it.

        Args:
            outputs: logits ``[B, C, h, w]`` of each network, on the CPU; h and w may differ between networks.
            labels: uint8 ``[B, H, W]``, on the CPU.
        """
        finite = [each.float() for each in outputs.values() if bool(each.isfinite().all())]
        complete = 0
        for row, predicted in self._together.predicted(finite, labels):
            complete += 1
            if finite:
                self._matrix.update(predicted, labels[row : row + 1])
        self.images += complete

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far; empty if no network counted."""
        return self._matrix.result() if self._matrix.images else {}


class VersionsTogether:
    """Adds up the probabilities of the versions of a batch, an image at a time.

    At the size of a photograph they take hundreds of megabytes.

    Args:
        versions: of each batch, in their order.
    """

    def __init__(self, versions: Sequence[Version]) -> None:
        self._versions = tuple(versions)
        self._seen = 0
        self._sums: list[Tensor] = []

    def predicted(self, networks: Sequence[Tensor], labels: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield row and predicted classes, int64 ``[1, H, W]``, of each image whose last version this is.

        A class is C where the prediction is not a number.

        Args:
            networks: logits, float32 ``[B, C, h, w]`` of each network; their probabilities are averaged, too.
            labels: ``[B, H, W]``.
        """
        size = (int(labels.shape[1]), int(labels.shape[2]))
        version, self._seen = self._versions[self._seen], (self._seen + 1) % len(self._versions)
        alone = len(networks) == len(self._versions) == 1
        sums, self._sums = self._sums, []
        for row in range(len(labels)):
            # The largest logit of a pixel has its largest probability, whose rounding may hide which one it is.
            found = (
                enlarged(networks[0][row : row + 1], size)
                if alone
                else sum((version.probabilities(each[row : row + 1], size) for each in networks), torch.zeros(1))
            )
            total = found if not sums else sums[row] + found
            if self._seen:
                self._sums.append(total)
            else:
                yield row, predicted_classes(total) if total.dim() == 4 else total


def _as_words(names: tuple[str, ...]) -> list[str]:
    """Return names in which nothing but letters, digits, - and _ is left, and that differ from one another."""
    found: list[str] = []
    for number, name in enumerate(names):
        word = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
        found.append(f"{word}_{number}" if word in found else word)
    return found


def predicted_classes(scores: Tensor) -> Tensor:
    """Return the class of the largest of the scores ``[B, C, H, W]`` at each pixel, int64 ``[B, H, W]``.

    Of equal scores the lower class is predicted; where one is not a number it is C, which no label is.
    """
    predicted = scores.argmax(dim=1)
    return torch.where(scores.isnan().any(dim=1), scores.shape[1], predicted)
