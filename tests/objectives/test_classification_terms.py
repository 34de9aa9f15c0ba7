"""Is cross-entropy the textbook one, with and without an auxiliary head?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.data import NO_LABEL
from engine.objectives import (
    AuxiliaryClassification,
    Classification,
    Context,
    MixedLabels,
    cross_entropy_loss,
    mixed_cross_entropy_loss,
)
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


# Smoothed and mixed labels.


def naive_soft_cross_entropy(logits: torch.Tensor, targets: list[list[float]]) -> float:
    """Add up -t log softmax one number at a time, in float64, and divide by the sum of all t."""
    total = 0.0
    for row, target in zip(logits.double().tolist(), targets, strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        total += sum(part * (log_sum - value) for part, value in zip(target, row, strict=True))
    return total / sum(sum(target) for target in targets)


def smoothed(label: int, smoothing: float, part: float = 1.0) -> list[float]:
    """Return part times the smoothed label of 4 classes; zeros where there is none."""
    if label == NO_LABEL:
        return [0.0] * 4
    return [part * (smoothing / 4 + (1 - smoothing) * (place == label)) for place in range(4)]


FIRST, SECOND = [0, 1, 2, 3, 0, 1, 1], [3, 1, 0, 0, 2, 2, 0]
SHARES = [0.3, 0.3, 1.0, 0.0, 0.3, 0.5, 1.0]


def logits_of_seven() -> torch.Tensor:
    return 2 * torch.randn(7, 4, generator=generator("mixed"))


def mixed_labels(second: list[int], shares: list[float] = SHARES) -> MixedLabels:
    return MixedLabels(torch.tensor(second), torch.tensor(shares))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels(smoothing: float) -> None:
    logits = logits_of_seven()
    expected = naive_soft_cross_entropy(logits, [smoothed(label, smoothing) for label in FIRST])
    assert cross_entropy_loss(logits, torch.tensor(FIRST), smoothing).item() == pytest.approx(expected, rel=1e-6)
    assert Classification(smoothing)(logits, Context(torch.tensor(FIRST))).loss.item() == pytest.approx(expected)


def test_no_smoothing_is_plain_cross_entropy() -> None:
    logits, labels = logits_of_seven(), torch.tensor(FIRST)
    assert cross_entropy_loss(logits, labels, 0.0).equal(torch.nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (FIRST, SECOND),
        ([NO_LABEL, *FIRST[1:]], SECOND),
        ([NO_LABEL, NO_LABEL, *FIRST[2:]], [SECOND[0], NO_LABEL, *SECOND[2:]]),
    ],
    ids=["all_labelled", "one_part_missing", "one_image_missing"],
)
def test_mixed_labels(first: list[int], second: list[int], smoothing: float) -> None:
    logits = logits_of_seven().requires_grad_()
    loss = mixed_cross_entropy_loss(logits, torch.tensor(first), mixed_labels(second), smoothing)
    targets = [
        [one + other for one, other in zip(smoothed(a, smoothing, part), smoothed(b, smoothing, 1 - part), strict=True)]
        for a, b, part in zip(first, second, SHARES, strict=True)
    ]
    assert loss.item() == pytest.approx(naive_soft_cross_entropy(logits, targets), rel=1e-6)
    loss.backward()
    weights = torch.tensor(targets).sum(dim=1, keepdim=True)
    expected = (logits.softmax(1) * weights - torch.tensor(targets)) / weights.sum()
    torch.testing.assert_close(logits.grad, expected.detach())


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_where_one_image_is_all_there_is_the_label_is_its_own(share: float) -> None:
    logits, mixed = logits_of_seven(), mixed_labels(SECOND, [share] * 7)
    expected = cross_entropy_loss(logits, torch.tensor(FIRST if share else SECOND))
    torch.testing.assert_close(mixed_cross_entropy_loss(logits, torch.tensor(FIRST), mixed), expected)


def test_mixed_images_without_any_label_teach_nothing() -> None:
    logits = logits_of_seven().requires_grad_()
    loss = mixed_cross_entropy_loss(logits, torch.full((7,), NO_LABEL), mixed_labels([NO_LABEL] * 7))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_term_learns_from_both_labels() -> None:
    logits, labels, mixed = logits_of_seven(), torch.tensor(FIRST), mixed_labels(SECOND)
    for smoothing in (0.0, 0.1):
        value = Classification(smoothing)(logits, Context(labels, mixed=mixed))
        assert value.loss.equal(mixed_cross_entropy_loss(logits, labels, mixed, smoothing))
        assert not value.loss.equal(Classification(smoothing)(logits, Context(labels)).loss)


def test_mixed_labels_in_half_precision_lose_nothing_more() -> None:
    logits = logits_of_seven().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mixed_cross_entropy_loss(logits, torch.tensor(FIRST), mixed_labels(SECOND))
    assert loss.dtype == torch.float32
    assert loss.item() == mixed_cross_entropy_loss(logits.float(), torch.tensor(FIRST), mixed_labels(SECOND)).item()
