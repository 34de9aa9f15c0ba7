"""Is cross-entropy the textbook one, with and without an auxiliary head?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.objectives import AuxiliaryClassification, Classification, Context, cross_entropy_loss
from engine.streams import generator


def naive_cross_entropy(logits: torch.Tensor, labels: list[int]) -> float:
    """Add up -log softmax one image at a time, in float64."""
    total = 0.0
    for row, label in zip(logits.double().tolist(), labels, strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    return total / len(labels)


def test_logits_are_scored_by_the_formula_and_handed_on() -> None:
    logits, labels = torch.randn(7, 4, generator=generator("logits"), requires_grad=True), [0, 1, 2, 3, 0, 1, 1]
    value = Classification()(logits, Context(torch.tensor(labels)))
    assert value.loss.item() == pytest.approx(naive_cross_entropy(logits, labels), rel=1e-6)
    value.loss.backward()
    expected = (logits.softmax(1) - torch.eye(4)[labels]) / 7
    torch.testing.assert_close(logits.grad, expected.detach())


def test_equal_logits_cost_the_log_of_the_number_of_classes() -> None:
    assert cross_entropy_loss(torch.zeros(5, 10), torch.arange(5)).item() == pytest.approx(math.log(10))


def test_auxiliary_head_is_applied_and_trained() -> None:
    head = nn.Linear(6, 3)
    features = torch.randn(5, 6, generator=generator("features"), requires_grad=True)
    value = AuxiliaryClassification(head)(features, Context(torch.tensor([0, 1, 2, 0, 1])))
    torch.testing.assert_close(AuxiliaryClassification(head).predict(features), head(features))
    assert value.loss.item() == pytest.approx(naive_cross_entropy(head(features), [0, 1, 2, 0, 1]), rel=1e-6)
    value.loss.backward()
    assert head.weight.grad is not None and features.grad is not None


def test_half_precision_logits_lose_nothing_more() -> None:
    logits = torch.randn(9, 5, generator=generator("half")).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy_loss(logits, torch.arange(9) % 5)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_cross_entropy(logits, [i % 5 for i in range(9)]), rel=1e-6)
