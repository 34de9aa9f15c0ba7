"""The score of predicted classes: accuracy, cross-entropy and calibration."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import DataError

CALIBRATION_BINS = 15


class ClassificationScore:
    """Counts over the batches of one evaluation, whatever their sizes.

    Sums are integers and float64 on the CPU, so the result does not depend on how the images are batched beyond
    float64 rounding. Of equal logits the lower class counts as predicted first; a prediction that is not a number
    is wrong.

    Attributes:
        num_classes: number of logits per image.
        images: number of images so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.images = 0
        self._correct = 0
        self._correct_in_top5 = 0
        self._loss = 0.0
        self._bin_confidence = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
        self._bin_correct = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            logits: ``[B, classes]``, any floating dtype, on any device.
            labels: int64 ``[B]``.

        Raises:
            DataError: a label is negative or not below the number of logits.
        """
        logits, labels = logits.detach().cpu().double(), labels.detach().cpu()
        images = len(labels)
        assert logits.shape == (images, self.num_classes), f"expected {images} rows of {self.num_classes} logits"
        outside = labels[(labels < 0) | (labels >= self.num_classes)]
        if len(outside) > 0:
            raise DataError(
                f"label {int(outside[0])} found, but the network predicts {self.num_classes} classes, 0 to "
                f"{self.num_classes - 1}: correct the data set's labels or its number of classes"
            )
        self.images += images
        rank = _rank_of_label(logits, labels)
        self._correct += int((rank == 0).sum())
        self._correct_in_top5 += int((rank < 5).sum())
        self._loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        confidence = logits.softmax(dim=1).amax(dim=1)
        # Bin m holds (m / bins, (m + 1) / bins]; a NaN must reach the sums but cannot be a bin's index.
        bins = (confidence.nan_to_num(nan=1.0) * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
        self._bin_confidence.index_add_(0, bins, confidence)
        self._bin_correct.index_add_(0, bins, (rank == 0).double())

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far.

        ``accuracy`` and, for more than 5 classes, ``top5_accuracy`` in [0, 1]; ``loss``, mean cross-entropy in nats;
        ``expected_calibration_error`` in [0, 1] over 15 equal bins of confidence (Guo et al. 2017, equation 3);
        ``images``, the count.

        Raises:
            DataError: there was no image.
        """
        if self.images == 0:
            raise DataError("no image was scored: the split is empty, so give it at least one image")
        scores = {"accuracy": self._correct / self.images}
        if self.num_classes > 5:
            scores["top5_accuracy"] = self._correct_in_top5 / self.images
        scores["loss"] = self._loss / self.images
        scores["expected_calibration_error"] = (
            float((self._bin_confidence - self._bin_correct).abs().sum()) / self.images
        )
        scores["images"] = self.images
        return scores


def _rank_of_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return int64 ``[B]``: how many classes are predicted before the label's."""
    own = logits.gather(1, labels[:, None])
    later = torch.arange(logits.shape[1])[None, :] > labels[:, None]
    behind = (logits < own) | ((logits == own) & later)
    # Counting who is behind, not who is ahead, makes a NaN count against the prediction.
    return logits.shape[1] - 1 - behind.sum(dim=1)
