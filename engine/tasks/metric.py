"""A number by which an evaluation is judged: its name, which direction is better, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Attributes:
        name: in the records and results, such as ``accuracy`` of ``test/accuracy``.
        higher_is_better: whether more of it is better.
        is_share: whether it lies in [0, 1] and is printed in per cent.
    """

    name: str
    higher_is_better: bool = True
    is_share: bool = True


ACCURACY = Metric("accuracy")
"""Share of the images whose class is predicted."""

TOP5_ACCURACY = Metric("top5_accuracy")
"""Share of the images whose class is among the five predicted first."""

LOSS = Metric("loss", higher_is_better=False, is_share=False)
"""Mean loss of the deployed networks on the images, in nats where it is a cross-entropy."""

CALIBRATION_ERROR = Metric("expected_calibration_error", higher_is_better=False, is_share=False)
"""How far confidence and accuracy are apart, 0 to 1."""

MEAN_IOU = Metric("mean_iou")
"""Mean over the classes of intersection / union of their predicted and their labelled pixels, over a whole split."""

PIXEL_ACCURACY = Metric("pixel_accuracy")
"""Share of the labelled pixels whose class is predicted."""

MEAN_CLASS_ACCURACY = Metric("mean_class_accuracy")
"""Mean over the classes of the share of their pixels whose class is predicted."""
