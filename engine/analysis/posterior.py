"""Posteriors: how sure a network is, and how right it is to be so (Zhang et al. 2018, Deep Mutual Learning, 4.8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.drawing import legend, styles
from engine.analysis.opened import OpenedRun
from engine.analysis.predictions import entropies, log_probabilities, reliability
from engine.tasks import ClassificationScore
from engine.tracking.figures import FAINT, dress, open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENTROPY_BINS = 25
_LARGEST_POINT = 250.0  # Its area in square points, for a bin of all images.


class Posterior(Analysis):
    """Entropy of the predicted probabilities, accuracy, loss, and calibration."""

    name = "posterior"
    title = "Entropy and calibration of the posterior"
    of_pixels = True
    columns = {
        "accuracy": "share of the images, or of the pixels of label maps, whose label is predicted",
        "loss": "mean cross-entropy, nats",
        "entropy": "mean entropy of the predicted probabilities, nats; at most ln(classes)",
        "entropy_median": "its median, nats",
        "confidence": "mean of the largest probability",
        "expected_calibration_error": "mean distance of confidence and accuracy over 15 equal bins of confidence",
    }

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return ``logits`` [N, classes], float32, and ``labels`` [N], int64."""
        logits, labels = opened.predictions(network)
        return {"logits": logits, "labels": labels}

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each network."""
        rows = []
        for each in found:
            logits, labels = each.arrays["logits"], each.arrays["labels"]
            score = ClassificationScore(logits.shape[1])
            score.update(torch.tensor(logits), torch.tensor(labels))
            scores = score.result()
            logs = log_probabilities(logits)
            spread = entropies(logs)
            rows.append(
                {
                    **owner(each),
                    "accuracy": scores["accuracy"],
                    "loss": scores["loss"],
                    "entropy": float(spread.mean()),
                    "entropy_median": float(np.median(spread)),
                    "confidence": float(np.exp(logs.max(axis=1)).mean()),
                    "expected_calibration_error": scores["expected_calibration_error"],
                }
            )
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the distribution of the entropy, and the reliability diagram."""
        figure = open_figure(10.0, 4.4, title)
        left, right = figure.subplots(1, 2)
        drawn = styles([each.label for each in found])
        most = math.log(max(each.arrays["logits"].shape[1] for each in found))
        edges = np.linspace(0.0, most, _ENTROPY_BINS + 1)
        right.plot([0, 1], [0, 1], color=FAINT, linewidth=1.0, label="calibrated")
        for each, row in zip(found, self.rows(found), strict=True):
            logits, labels = each.arrays["logits"], each.arrays["labels"]
            logs = log_probabilities(logits)
            style = drawn[each.label]
            counts, _ = np.histogram(entropies(logs).clip(0.0, most), edges)
            middles = (edges[1:] + edges[:-1]) / 2
            words = f"{each.label}: mean {row['entropy']:.3f}"
            left.plot(middles, counts / counts.sum(), drawstyle="steps-mid", label=words, **style.step())
            correct = logits.argmax(axis=1) == labels
            share, confidence, accuracy = reliability(np.exp(logs.max(axis=1)), correct)
            seen = share > 0
            words = f"{each.label}: ECE {row['expected_calibration_error']:.3f}"
            # The few images of a small bin say little, and are drawn small.
            right.plot(confidence[seen], accuracy[seen], label=words, **{**style.line(), "markersize": 3})
            sizes = _LARGEST_POINT * share[seen]
            right.scatter(confidence[seen], accuracy[seen], sizes, style.colour, marker=style.marker, linewidths=0)
        dress(left, "how sure", f"entropy (nats; at most ln(classes) = {most:.2f})", "share of the predictions")
        dress(
            right,
            "how right (area of points: number of predictions)",
            "confidence (mean of a bin)",
            "accuracy (share of the bin)",
        )
        left.set_ylim(bottom=0)
        for axes in (left, right):
            legend(axes)
        return figure
