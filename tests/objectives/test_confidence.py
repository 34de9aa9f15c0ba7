"""Is the confidence penalty the negative entropy of the predictions?"""

from __future__ import annotations

import math

import pytest
import torch

from engine.objectives import Classification, ConfidencePenalty, Context, Objective, negative_entropy
from engine.streams import generator


def naive_negative_entropy(logits: torch.Tensor) -> float:
    """Add up p log p one image and class at a time, in float64."""
    total = 0.0
    for row in logits.double().tolist():
        powers = [math.exp(value) for value in row]
        total += sum(power / sum(powers) * math.log(power / sum(powers)) for power in powers)
    return total / len(logits)


def test_objective_is_cross_entropy_less_the_weighted_entropy() -> None:
    features = torch.randn(7, 4, generator=generator("logits"), dtype=torch.float64).float().requires_grad_()
    labels, beta = torch.tensor([0, 1, 2, 3, 0, 1, 1]), 0.3
    terms = {"confidence_penalty": ConfidencePenalty(), "cross_entropy": Classification()}
    value = Objective(terms, {"cross_entropy": 1.0, "confidence_penalty": beta})(features, Context(labels))
    entropy = -naive_negative_entropy(features)
    assert entropy > 0.1 and value.losses["confidence_penalty"].item() == pytest.approx(-entropy, rel=1e-6)
    assert value.total.item() == pytest.approx(value.losses["cross_entropy"].item() - beta * entropy, rel=1e-6)
    value.total.backward()
    p = features.detach().double().softmax(1)
    pull = p - torch.eye(4, dtype=torch.float64)[labels]
    penalty = p * (p.log() - (p * p.log()).sum(1, keepdim=True))
    torch.testing.assert_close(features.grad, ((pull + beta * penalty) / 7).float())


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_bounds_are_those_of_the_entropy(classes: int) -> None:
    assert negative_entropy(torch.full((3, classes), 7.0)).item() == pytest.approx(-math.log(classes), rel=1e-6)
    assert negative_entropy(100.0 * torch.eye(classes)[:2]).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_logits_stay_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, -1e4]], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ConfidencePenalty()(logits, Context(torch.tensor([0, 1]), predictions=logits)).loss
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(-math.log(2) / 2, rel=1e-6)
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
