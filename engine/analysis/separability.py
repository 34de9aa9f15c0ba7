"""Linear separability by depth: a linear probe on the pooled features behind every block (InfoPro, figure 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.analysis.analysis import Analysis, Arrays, Measured, Row, owner
from engine.analysis.depth import Curve, draw_by_depth
from engine.analysis.features import features_behind, pooled
from engine.analysis.opened import OpenedRun
from engine.tracking.figures import open_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHT_DECAY = 1e-3
"""Factor of half the squared weights, beside the mean cross-entropy; the bias has none."""

_ITERATIONS = 500
_GRADIENT = 1e-7


class Separability(Analysis):
    """Accuracy of a linear classifier on the pooled, frozen features behind every block.

    The protocol is ours, as the paper's is not published: features are averaged over their positions, standardised with
    mean and deviation of the training images, and classified by logistic regression with weight decay. That is convex,
    and solved to its only minimum (L-BFGS in double precision), so there is neither learning rate nor draw.
    """

    name = "separability"
    title = "Linear separability of the features behind each block"
    reading = "Linear probes learn from the training images (10,000 at most), without augmentation"
    columns = {
        "block": "behind which the features are classified",
        "depth": "of the block, counted from 0",
        "accuracy": "of the linear probe on the images that are looked at",
        "loss": "its mean cross-entropy there, nats",
        "training_accuracy": "its accuracy on the training images from which it learned",
    }

    def parts(self, opened: OpenedRun, network: str) -> tuple[str, ...]:
        """Return the blocks before the classifier."""
        return tuple(opened.run.network(network)._modules)[:-1]

    def measure(self, opened: OpenedRun, network: str, part: str) -> Arrays:
        """Return ``scores``, float64 [3]: accuracy, loss, training accuracy; and the ``depth``, int64 []."""
        sets = opened.probed(), opened.images
        features = [features_behind(opened, network, part, each, pooled) for each in sets]
        labels = [each.labels() for each in sets]
        logits = linear_probe(features[0], labels[0], features, opened.run.facts.num_classes)
        right = [float((each.argmax(1) == truth).double().mean()) for each, truth in zip(logits, labels, strict=True)]
        loss = float(F.cross_entropy(logits[1], labels[1]))
        depth = list(opened.run.network(network)._modules).index(part)
        return {"scores": np.array([right[1], loss, right[0]]), "depth": np.array(depth)}

    def rows(self, found: Sequence[Measured]) -> list[Row]:
        """Return a row for each block."""
        rows = []
        for each in found:
            accuracy, loss, training = map(float, each.arrays["scores"])
            row = {**owner(each), "block": each.part, "depth": int(each.arrays["depth"])}
            rows.append({**row, "accuracy": accuracy, "loss": loss, "training_accuracy": training})
        return rows

    def draw(self, found: Sequence[Measured], title: str) -> Figure:
        """Draw the accuracy over depth, a curve for each network."""
        figure = open_figure(8.5, 4.6, title)
        labels = dict.fromkeys(each.label for each in found)
        curves = {
            label: Curve.of(self.rows([each for each in found if each.label == label]), "accuracy") for label in labels
        }
        draw_by_depth(figure.subplots(), curves, "accuracy of the linear probe (share)")
        return figure


def linear_probe(features: Tensor, labels: Tensor, asked: Sequence[Tensor], classes: int) -> list[Tensor]:
    """Fit a logistic regression, and return its logits.

    Args:
        features: [N, D], from which it learns.
        labels: int64 [N].
        asked: features [M, D] of which logits are returned.
        classes: number of them.

    Returns:
        float64 [M, classes] for each.
    """
    mean, deviation = features.double().mean(dim=0), features.double().std(dim=0, correction=0)
    # A feature that never changes tells nothing, and stays 0.
    scale = torch.where(deviation > 0, deviation, 1.0)
    learned, *wanted = [(each.double() - mean) / scale for each in (features, *asked)]
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=_ITERATIONS,
        tolerance_grad=_GRADIENT,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(learned, weight, bias), labels) + WEIGHT_DECAY / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return [F.linear(each, weight, bias) for each in wanted]
