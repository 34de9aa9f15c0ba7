"""Quantities that follow from a network's predictions: probabilities, entropies, calibration."""

from __future__ import annotations

import numpy as np

from engine.tasks import CALIBRATION_BINS


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities of logits [N, classes], natural, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def entropies(logs: np.ndarray) -> np.ndarray:
    """Return the entropy of each row of log-probabilities [N, classes], in nats, float64 [N]."""
    probabilities = np.exp(logs)
    # A class of probability 0 adds nothing, though its logarithm is not finite.
    result: np.ndarray = -np.where(probabilities > 0, probabilities * logs, 0.0).sum(axis=1)
    return result


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a reliability diagram shows, float64 [bins] each.

    Args:
        confidence: the largest probability of each image, [N].
        correct: whether the prediction is right, [N].

    Returns:
        the share of the images, their mean confidence and their accuracy, for bins ``(m / bins, (m + 1) / bins]`` as in
        Guo et al. (2017), equation 3; mean and accuracy are NaN in an empty bin.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int), 1, CALIBRATION_BINS) - 1
    counts = np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, confidence, CALIBRATION_BINS) / counts
        accuracy = np.bincount(bins, correct.astype(np.float64), CALIBRATION_BINS) / counts
    return counts / len(confidence), mean, accuracy
