"""What evaluations of single networks measure, for those who choose or print one of it by name."""

from __future__ import annotations

from engine.tasks.metric import (
    ACCURACY,
    CALIBRATION_ERROR,
    LOSS,
    MEAN_CLASS_ACCURACY,
    MEAN_IOU,
    PIXEL_ACCURACY,
    TOP5_ACCURACY,
)
from engine.tasks.retrieval_score import RETRIEVAL_SCORES

SCORES = {
    metric.name: metric
    for metric in (
        *(ACCURACY, TOP5_ACCURACY, LOSS, CALIBRATION_ERROR),
        *(MEAN_IOU, PIXEL_ACCURACY, MEAN_CLASS_ACCURACY),
        *RETRIEVAL_SCORES,
    )
}
"""The metrics of all tasks that ship with the engine, by name."""
