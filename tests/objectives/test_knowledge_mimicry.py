"""Is the loss of group knowledge the published divergence, and does an unknown image leave no trace in it?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.objectives import RECALLED, Classification, Context, KnowledgeMimicry, Objective, knowledge_divergence
from engine.streams import generator

BATCH, CLASSES = 6, 5
LABELS = torch.arange(BATCH) % CLASSES


def logits_of(*key: str | int) -> Tensor:
    return 2.0 * torch.randn(BATCH, CLASSES, generator=generator("logits", *key))


def knowledge_of(*key: str | int) -> Tensor:
    return logits_of("knowledge", *key).softmax(dim=1)


def naive_divergence(recalled: Tensor, logits: Tensor, temperature: float = 1.0) -> float:
    """Add up K (log K - log p) one number at a time, in Python's own floating point."""
    total = 0.0
    for known, row in zip(recalled.double().tolist(), logits.double().tolist(), strict=True):
        if any(math.isnan(value) for value in known):
            continue
        softened = [value ** (1 / temperature) for value in known]
        exponentials = [math.exp(value / temperature) for value in row]
        for teacher, student in zip(softened, exponentials, strict=True):
            target = teacher / sum(softened)
            if target:
                total += target * (math.log(target) - math.log(student / sum(exponentials)))
    return temperature**2 * total / len(logits)


def loss_and_gradient(recalled: Tensor, logits: Tensor, temperature: float = 1.0) -> tuple[float, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = knowledge_divergence(recalled, logits, temperature)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), gradient


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_published_formula(temperature: float) -> None:
    recalled, logits = knowledge_of(), logits_of("own")
    loss, gradient = loss_and_gradient(recalled, logits, temperature)
    assert loss == pytest.approx(naive_divergence(recalled, logits, temperature), rel=1e-5)
    softened = recalled ** (1 / temperature)
    softened = softened / softened.sum(dim=1, keepdim=True)
    # d/dz of T^2 KL(K || softmax(z / T)) / B.
    torch.testing.assert_close(gradient, temperature * ((logits / temperature).softmax(dim=1) - softened) / BATCH)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6))
def test_it_is_never_negative(seed: int) -> None:
    loss, gradient = loss_and_gradient(knowledge_of(seed), logits_of(seed, "own"))
    assert loss >= 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_nothing_is_to_be_learned_from_what_is_predicted_already(temperature: float) -> None:
    logits = logits_of("own")
    loss, gradient = loss_and_gradient(logits.softmax(dim=1), logits, temperature)
    assert loss == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.zeros(BATCH, CLASSES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_an_unknown_image_has_no_gradient_but_counts(temperature: float) -> None:
    recalled, logits = knowledge_of(), logits_of("own")
    whole, all_gradients = loss_and_gradient(recalled, logits, temperature)
    first, _ = loss_and_gradient(recalled[:1], logits[:1], temperature)
    recalled[[2, 4]] = math.nan
    loss, gradient = loss_and_gradient(recalled, logits, temperature)
    assert loss == pytest.approx(naive_divergence(recalled, logits, temperature), rel=1e-5)
    assert 0 < loss < whole
    assert not gradient[[2, 4]].any()
    known = [0, 1, 3, 5]
    # Row by row what it is when all are known: the weight of an image does not rise where others are missing.
    assert gradient[known].equal(all_gradients[known])
    recalled[1:] = math.nan
    assert loss_and_gradient(recalled, logits, temperature)[0] == pytest.approx(first / BATCH)


def test_where_nothing_is_known_nothing_is_learned() -> None:
    loss, gradient = loss_and_gradient(torch.full((BATCH, CLASSES), math.nan), logits_of("own"))
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_certain_knowledge_is_a_label(temperature: float) -> None:
    logits = logits_of("own")
    loss, gradient = loss_and_gradient(F.one_hot(LABELS, CLASSES).float(), logits, temperature)
    expected = temperature**2 * F.cross_entropy(logits / temperature, LABELS).item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradient.isfinite().all()


def test_knowledge_gets_no_gradient() -> None:
    recalled, logits = knowledge_of().requires_grad_(), logits_of("own").requires_grad_()
    knowledge_divergence(recalled, logits).backward()
    assert recalled.grad is None
    assert logits.grad is not None


def test_half_precision_logits_lose_nothing_more() -> None:
    recalled, logits = knowledge_of(), logits_of("own").bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = knowledge_divergence(recalled, logits)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_divergence(recalled, logits), rel=1e-5)


def test_the_term_compares_with_what_it_is_told() -> None:
    recalled, logits = knowledge_of(), logits_of("own")
    context = Context(LABELS, messages={RECALLED: recalled}, predictions=logits)
    value = KnowledgeMimicry(2.0)(torch.zeros(BATCH, 1), context)
    assert value.loss.item() == knowledge_divergence(recalled, logits, 2.0).item()


def test_a_step_in_which_nothing_is_recalled_is_one_of_labels_alone() -> None:
    terms = {"cross_entropy": Classification(), "knowledge": KnowledgeMimicry()}
    both = Objective(terms, {"cross_entropy": 1.0, "knowledge": 2.0})
    alone = Objective({"cross_entropy": Classification()}, {"cross_entropy": 1.0})
    logits = logits_of("own").requires_grad_()
    values = [objective(logits, Context(LABELS)) for objective in (both, alone)]
    gradients = [torch.autograd.grad(value.total, logits)[0] for value in values]
    assert gradients[0].equal(gradients[1])
    assert values[0].losses["knowledge"].item() == 0
    recalled = Context(LABELS, messages={RECALLED: knowledge_of()})
    value = both(logits, recalled)
    weighed = F.cross_entropy(logits, LABELS) + 2 * knowledge_divergence(knowledge_of(), logits)
    torch.testing.assert_close(value.total, weighed)
