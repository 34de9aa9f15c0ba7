"""The score of predicted label maps: intersection over union, from one confusion matrix of the whole split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engine.errors import DataError
from engine.objectives import enlarged

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


class SegmentationScore:
    """As `ConfusionMatrix`, of logits, which are enlarged to the size of the labels.

    Args:
        class_names: in label order, C of them.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.images = 0
        self._matrix = ConfusionMatrix(class_names)

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            outputs: logits ``[B, C, h, w]``, any floating dtype, on any device.
            labels: uint8 ``[B, H, W]``, of the whole images.

        Raises:
            DataError: a label is neither a class nor 255.
        """
        labels = labels.detach().cpu()
        self.images += len(labels)
        # One image at a time: logits at the size of a photograph take hundreds of megabytes.
        for logits, label_map in zip(outputs.detach().cpu().float(), labels, strict=True):
            whole = enlarged(logits[None], (int(label_map.shape[0]), int(label_map.shape[1])))
            self._matrix.update(predicted_classes(whole), label_map[None])

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far; see `ConfusionMatrix.result`."""
        return self._matrix.result()


class CohortSegmentationScore:
    """The score of several networks together: the class with the largest mean of their probabilities.

    A network whose logits are not finite, because it has left the cohort, does not count.

    Args:
        class_names: in label order, C of them.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.images = 0
        self._matrix = ConfusionMatrix(class_names)

    def update(self, outputs: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add one batch.

        Args:
            outputs: logits ``[B, C, h, w]`` of each network, on the CPU; h and w may differ between networks.
            labels: uint8 ``[B, H, W]``, on the CPU.
        """
        self.images += len(labels)
        finite = [each.float() for each in outputs.values() if bool(each.isfinite().all())]
        if not finite:
            return
        size = (int(labels.shape[1]), int(labels.shape[2]))
        for row in range(len(labels)):
            together = [enlarged(each[row : row + 1], size).softmax(dim=1) for each in finite]
            self._matrix.update(predicted_classes(torch.stack(together).mean(dim=0)), labels[row : row + 1])

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far; empty if no network counted."""
        return self._matrix.result() if self._matrix.images else {}


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
