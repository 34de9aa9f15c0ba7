"""Is the batch-hard triplet loss that of the paper, also where a batch lacks what it compares?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.objectives import BatchHardTriplet, Context, batch_hard_triplet_loss, distance_matrix
from engine.streams import generator


def by_hand(features: Tensor, labels: list[int], margin: float) -> float:
    rows = features.tolist()
    losses = []
    for anchor, label in enumerate(labels):
        others = [
            (math.dist(rows[anchor], rows[other]), labels[other])
            for other in range(len(rows))
            if other != anchor and labels[other] >= 0
        ]
        right = [away for away, found in others if found == label]
        wrong = [away for away, found in others if found != label]
        if label >= 0 and right and wrong:
            losses.append(max(0.0, margin + max(right) - min(wrong)))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 2], [0, 0, -1, 1, -1, 1], [0, 1, 2, 3, 4, 5], [3] * 6, [-1] * 6]
)
def test_equals_counting_by_hand(labels: list[int]) -> None:
    features = torch.randn(6, 4, generator=generator("triplet"))
    loss = batch_hard_triplet_loss(features, torch.tensor(labels), 0.3)
    assert float(loss) == pytest.approx(by_hand(features, labels, 0.3), abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0], [-1, 0, 0, 1]])
def test_the_gradient_is_finite_also_of_equal_features(labels: list[int]) -> None:
    features = torch.zeros(4, 3)
    features[3] = 1.0
    features.requires_grad_()
    batch_hard_triplet_loss(features, torch.tensor(labels), 0.3).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_distances_are_euclidean_and_in_single_precision() -> None:
    features = torch.randn(5, 3, generator=generator("distances"))
    found = distance_matrix(features.bfloat16())
    assert found.dtype == torch.float32
    rows = features.bfloat16().float()
    torch.testing.assert_close(found, torch.cdist(rows, rows), atol=1e-3, rtol=1e-3)


def test_the_term_reads_what_enters_the_classifier() -> None:
    features, labels = torch.randn(4, 3, generator=generator("term")), torch.tensor([0, 0, 1, 1])
    term = BatchHardTriplet(0.5)
    assert term.hooks == ("before_neck",)
    value = term(torch.zeros(4, 2), Context(labels, hooked={"before_neck": features}))
    assert float(value.loss) == float(batch_hard_triplet_loss(features, labels, 0.5))
