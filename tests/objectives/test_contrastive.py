"""Is the supervised contrastive loss the published one, and does it stay finite?"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.objectives import Context, Contrastive, supervised_contrastive_loss
from engine.streams import generator


def naive_loss(embeddings: np.ndarray, labels: list[int], temperature: float) -> float:
    """Add up the formula one pair at a time."""
    size = len(labels)
    unit = [row / math.sqrt(sum(value * value for value in row)) for row in embeddings.astype(np.float64)]
    total = 0.0
    for anchor in range(size):
        others = [other for other in range(size) if other != anchor]
        positives = [other for other in others if labels[other] == labels[anchor]]
        if not positives:
            continue
        scores = {other: float(unit[anchor] @ unit[other]) / temperature for other in others}
        denominator = sum(math.exp(score) for score in scores.values())
        total += sum(-math.log(math.exp(scores[positive]) / denominator) for positive in positives) / len(positives)
    return total / size


def random_embeddings(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("test", *shape))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
)
def test_equals_the_formula(labels: list[int], seed: int, temperature: float) -> None:
    embeddings = torch.randn(len(labels), 5, generator=generator("contrastive", seed), requires_grad=True)
    loss = supervised_contrastive_loss(embeddings, torch.tensor(labels), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(
        naive_loss(embeddings.detach().numpy(), labels, temperature), rel=2e-5, abs=1e-6
    )
    assert embeddings.grad is not None and bool(embeddings.grad.isfinite().all())


def test_gradient_equals_finite_differences_of_the_formula() -> None:
    embeddings, labels = random_embeddings(6, 4), [0, 0, 1, 1, 1, 2]
    leaf = embeddings.clone().requires_grad_()
    supervised_contrastive_loss(leaf, torch.tensor(labels)).backward()
    assert leaf.grad is not None
    values = embeddings.double().numpy()
    for row, column in [(0, 0), (3, 2), (5, 1)]:
        ahead, behind = values.copy(), values.copy()
        ahead[row, column] += 1e-5
        behind[row, column] -= 1e-5
        expected = (naive_loss(ahead, labels, 0.07) - naive_loss(behind, labels, 0.07)) / 2e-5
        assert leaf.grad[row, column].item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("batch", "expected"), [(128, 5.63), (1024, 7.72)])
def test_random_embeddings_have_the_known_loss(batch: int, expected: float) -> None:
    labels = torch.arange(batch) % 10
    assert supervised_contrastive_loss(random_embeddings(batch, 128), labels).item() == pytest.approx(expected, abs=0.1)


def test_collapsed_embeddings_have_the_loss_of_guessing() -> None:
    loss = supervised_contrastive_loss(random_embeddings(1, 128).expand(128, 128), torch.arange(128) % 10)
    assert loss.item() == pytest.approx(math.log(127), rel=1e-6)


def test_perfect_clusters_have_the_loss_of_the_number_of_positives() -> None:
    labels = torch.arange(120) % 10
    loss = supervised_contrastive_loss(torch.eye(10)[labels] - 0.1, labels)
    assert loss.item() == pytest.approx(math.log(11), abs=1e-3)


def test_order_and_names_of_the_classes_do_not_matter() -> None:
    embeddings, labels = random_embeddings(40, 16), torch.arange(40) % 7
    loss = supervised_contrastive_loss(embeddings, labels)
    order = torch.randperm(40, generator=generator("order"))
    torch.testing.assert_close(supervised_contrastive_loss(embeddings[order], labels[order]), loss)
    names = torch.tensor([60, 3, 0, 9, 12, 1, 5])
    assert supervised_contrastive_loss(embeddings, names[labels]).item() == loss.item()


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_without_positives_the_loss_is_zero_with_a_finite_gradient(batch: int) -> None:
    embeddings = random_embeddings(batch, 8).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        loss = supervised_contrastive_loss(embeddings, torch.arange(batch))
        loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad is not None and torch.equal(embeddings.grad, torch.zeros(batch, 8))


def test_scale_of_the_embeddings_does_not_matter_even_when_extreme() -> None:
    embeddings, labels = random_embeddings(16, 8), torch.arange(16) % 4
    loss = supervised_contrastive_loss(embeddings, labels)
    torch.testing.assert_close(supervised_contrastive_loss(embeddings * 1e6, labels), loss)
    torch.testing.assert_close(supervised_contrastive_loss(embeddings * 1e-6, labels), loss)


def test_half_precision_embeddings_give_a_float32_loss_computed_in_float32() -> None:
    embeddings, labels = random_embeddings(64, 32).bfloat16(), torch.arange(64) % 4
    expected = naive_loss(embeddings.float().numpy(), labels.tolist(), 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = supervised_contrastive_loss(embeddings, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_term_applies_its_head_and_temperature() -> None:
    head = nn.Linear(6, 4)
    features, labels = random_embeddings(10, 6), torch.arange(10) % 3
    value = Contrastive(head, temperature=0.2)(features, Context(labels))
    assert value.loss.item() == supervised_contrastive_loss(head(features), labels, 0.2).item()
    value.loss.backward()
    assert head.weight.grad is not None and bool((head.weight.grad != 0).any())
