"""Are the losses of mutual learning the published ones, to the last digit that float32 has?"""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.objectives import Classification, Context, Mimicry, Objective
from engine.recipes import Divergence, MimicryReduction, MimicryTarget
from engine.streams import generator
from tests.objectives.predictions import BATCH, CLASSES, DIVERGENCES, FUNCTIONS, LABELS, logits_of

TARGETS, REDUCTIONS = get_args(MimicryTarget), get_args(MimicryReduction)


def peers_of(number: int) -> dict[str, Tensor]:
    return {f"peer{index}": logits_of("peer", index) for index in range(number)}


def loss_and_gradient(term: Mimicry, student: Tensor, messages: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    loss = term(student, Context(LABELS, messages=messages, predictions=student)).loss
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def naive_kl(first: list[float], second: list[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(first, second, strict=True))


def naive_divergence(name: str, teacher: list[float], student: list[float]) -> float:
    """Compare the probabilities of one image."""
    forward, reverse = naive_kl(teacher, student), naive_kl(student, teacher)
    middle = [(p + q) / 2 for p, q in zip(teacher, student, strict=True)]
    mixed = (naive_kl(teacher, middle) + naive_kl(student, middle)) / 2
    return {"kl": forward, "reverse_kl": reverse, "jeffreys": (forward + reverse) / 2, "jensen_shannon": mixed}[name]


def naive_gradient(name: str, teacher: list[float], student: list[float]) -> list[float]:
    """Differentiate by the student's logits of one image at temperature 1."""

    def projected(scores: list[float]) -> list[float]:
        mean = sum(p * score for p, score in zip(student, scores, strict=True))
        return [p * (score - mean) for p, score in zip(student, scores, strict=True)]

    pairs = list(zip(teacher, student, strict=True))
    forward, reverse = [q - p for p, q in pairs], projected([math.log(q / p) for p, q in pairs])
    mixed = projected([math.log(2 * q / (p + q)) / 2 for p, q in pairs])
    half = [(f + r) / 2 for f, r in zip(forward, reverse, strict=True)]
    return {"kl": forward, "reverse_kl": reverse, "jeffreys": half, "jensen_shannon": mixed}[name]


def naive_targets(target: str, peers: list[list[float]], temperature: float) -> list[list[float]]:
    """Return the distributions that one image is compared with."""
    each = [softmax(row, temperature) for row in peers]
    if target == "peers":
        return each
    if target == "mean_probabilities":
        return [[sum(column) / len(each) for column in zip(*each, strict=True)]]
    return [softmax([sum(column) / len(peers) for column in zip(*peers, strict=True)], temperature)]


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("learners", [2, 4])
def test_value_and_gradient_are_those_of_the_formula(
    divergence: Divergence, target: MimicryTarget, temperature: float, learners: int
) -> None:
    messages, student = peers_of(learners - 1), logits_of("student")
    expected, expected_gradient = 0.0, torch.zeros(BATCH, CLASSES, dtype=torch.float64)
    for image in range(BATCH):
        own = softmax(student[image].tolist(), temperature)
        rows = [message[image].tolist() for message in messages.values()]
        targets = naive_targets(target, rows, temperature)
        for row in targets:
            scale = temperature / BATCH / len(targets)
            expected += temperature * scale * naive_divergence(divergence, row, own)
            expected_gradient[image] += scale * torch.tensor(naive_gradient(divergence, row, own), dtype=torch.float64)
    term = Mimicry(tuple(messages), divergence=divergence, target=target, temperature=temperature)
    loss, gradient = loss_and_gradient(term, student, messages)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_peer_is_the_plain_divergence_to_the_last_bit(
    divergence: Divergence, target: MimicryTarget, reduction: MimicryReduction, temperature: float
) -> None:
    student, teacher = (torch.randn(128, 100, generator=generator("large", key)) for key in ("student", "teacher"))
    term = Mimicry(["peer"], divergence=divergence, target=target, reduction=reduction, temperature=temperature)
    loss, gradient = loss_and_gradient(term, student, {"peer": teacher})
    student.requires_grad_()
    plain = FUNCTIONS[divergence](teacher, student, temperature)
    (plain_gradient,) = torch.autograd.grad(plain, student)
    assert torch.equal(loss, plain) and torch.equal(gradient, plain_gradient)


def test_objective_adds_mimicry_to_cross_entropy() -> None:
    messages, temperature, weight = peers_of(3), 3.0, 0.5
    features = logits_of("student").requires_grad_()
    terms = {"cross_entropy": Classification(), "mimicry": Mimicry(tuple(messages), temperature=temperature)}
    objective = Objective(terms, {"cross_entropy": 1.0, "mimicry": weight})
    objective(features, Context(LABELS, messages=messages)).total.backward()
    target = torch.stack([(message / temperature).softmax(1) for message in messages.values()]).mean(0)
    pull = features.softmax(1) - torch.eye(CLASSES)[LABELS]
    expected = (pull + weight * temperature * ((features / temperature).softmax(1) - target)) / BATCH
    torch.testing.assert_close(features.grad, expected.detach())


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_mean_of_peers_and_mean_of_their_probabilities_differ_in_value_only(temperature: float) -> None:
    messages, student = peers_of(2), logits_of("student")
    loss, gradient = loss_and_gradient(Mimicry(tuple(messages), temperature=temperature), student, messages)
    term = Mimicry(tuple(messages), target="mean_probabilities", temperature=temperature)
    mean_loss, mean_gradient = loss_and_gradient(term, student, messages)
    torch.testing.assert_close(gradient, mean_gradient, atol=1e-7, rtol=1e-5)
    each = [(message.double() / temperature).softmax(1) for message in messages.values()]
    entropies = [-(p * p.log()).sum(1).mean().item() for p in [*each, (each[0] + each[1]) / 2]]
    diversity = temperature**2 * (entropies[2] - (entropies[0] + entropies[1]) / 2)
    assert diversity > 0.01
    assert (loss - mean_loss).item() == pytest.approx(diversity, rel=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("teachers", [1, 2, 4])
def test_sum_is_the_mean_times_the_number_of_peers(target: MimicryTarget, teachers: int) -> None:
    messages, student = peers_of(teachers), logits_of("student")
    mean = loss_and_gradient(Mimicry(tuple(messages), target=target), student, messages)
    total = loss_and_gradient(Mimicry(tuple(messages), target=target, reduction="sum"), student, messages)
    for whole, part in zip(total, mean, strict=True):
        torch.testing.assert_close(whole, teachers * part)
        assert torch.equal(whole, part) == (teachers == 1)


def test_sum_and_mean_of_logits_are_other_methods() -> None:
    messages, student = peers_of(3), logits_of("student")
    variants = [
        Mimicry(tuple(messages)),
        Mimicry(tuple(messages), reduction="sum"),
        Mimicry(tuple(messages), target="mean_logits"),
    ]
    gradients = [loss_and_gradient(term, student, messages)[1] for term in variants]
    for first, second in itertools.combinations(gradients, 2):
        assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("target", TARGETS)
def test_renaming_the_peers_permutes_their_losses(target: MimicryTarget) -> None:
    def losses(cohort: list[Tensor]) -> list[float]:
        found = []
        for index, student in enumerate(cohort):
            messages = {f"peer{other}": logits for other, logits in enumerate(cohort) if other != index}
            found.append(loss_and_gradient(Mimicry(tuple(messages), target=target), student, messages)[0].item())
        return found

    cohort, order = list(peers_of(4).values()), [2, 0, 3, 1]
    before = losses(cohort)
    assert len(set(before)) == 4
    assert losses([cohort[index] for index in order]) == pytest.approx([before[index] for index in order], rel=1e-5)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_no_gradient_reaches_a_teacher(divergence: Divergence, target: MimicryTarget) -> None:
    messages, student = {name: logits.requires_grad_() for name, logits in peers_of(2).items()}, logits_of("student")
    messages["peer1"].grad = torch.ones(BATCH, CLASSES)
    student.requires_grad_()
    term = Mimicry(tuple(messages), divergence=divergence, target=target)
    context = Context(LABELS, messages=messages, predictions=student)
    (term(student, context).loss + FUNCTIONS[divergence](messages["peer0"], student)).backward()
    assert student.grad is not None
    assert messages["peer0"].grad is None
    assert torch.equal(messages["peer1"].grad, torch.ones(BATCH, CLASSES))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_same_images_twice_leave_the_loss(divergence: Divergence, target: MimicryTarget) -> None:
    messages, student = peers_of(3), logits_of("student")
    term = Mimicry(tuple(messages), divergence=divergence, target=target)
    once = term(student, Context(LABELS, messages=messages, predictions=student)).loss
    doubled = {name: message.repeat(2, 1) for name, message in messages.items()}
    twice = term(student, Context(LABELS.repeat(2), messages=doubled, predictions=student.repeat(2, 1))).loss
    torch.testing.assert_close(twice, once)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_huge_logits_stay_finite(
    divergence: Divergence, target: MimicryTarget, dtype: torch.dtype, temperature: float
) -> None:
    signs = torch.where(logits_of("signs") > 0, 1e4, -1e4)
    messages = {"peer0": signs.to(dtype), "peer1": -signs.to(dtype), "peer2": logits_of("peer").to(dtype)}
    term = Mimicry(tuple(messages), divergence=divergence, target=target, temperature=temperature)
    for student in (signs, -signs, logits_of("student")):
        loss, gradient = loss_and_gradient(term, student, messages)
        assert loss.isfinite() and gradient.isfinite().all()
        assert loss > 1e-3


def test_half_precision_logits_lose_nothing_more() -> None:
    messages = {name: logits.bfloat16() for name, logits in peers_of(3).items()}
    student = logits_of("student").bfloat16()
    term = Mimicry(tuple(messages))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = term(student, Context(LABELS, messages=messages, predictions=student)).loss
    exact = {name: logits.float() for name, logits in messages.items()}
    assert loss.dtype == torch.float32
    assert torch.equal(loss, term(student, Context(LABELS, messages=exact, predictions=student.float())).loss)


@pytest.mark.parametrize("target", get_args(MimicryTarget))
@pytest.mark.parametrize("divergence", get_args(Divergence))
def test_distributions_at_positions_are_averaged_as_images_are(divergence: Divergence, target: MimicryTarget) -> None:
    maps = {name: torch.randn(3, 5, 2, 4, generator=generator("maps", name)) for name in ("a", "b")}
    student = torch.randn(3, 5, 2, 4, generator=generator("maps", "student"))
    dense, flat = (Mimicry(("a", "b"), divergence=divergence, target=target, axis=1) for _ in range(2))
    loss, gradient = loss_and_gradient(dense, student, maps)

    def rows(each: Tensor) -> Tensor:
        return each.permute(0, 2, 3, 1).reshape(-1, 5)

    expected, expected_gradient = loss_and_gradient(flat, rows(student), {name: rows(m) for name, m in maps.items()})
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(rows(gradient), expected_gradient)


def test_a_peer_that_has_diverged_at_one_position_does_not_count() -> None:
    maps = {name: torch.randn(3, 5, 2, 4, generator=generator("maps", name)) for name in ("a", "b")}
    student = torch.randn(3, 5, 2, 4, generator=generator("maps", "student"))
    alone, _ = loss_and_gradient(Mimicry(("a",)), student, maps)
    maps["b"][1, 2, 0, 3] = math.nan
    both, gradient = loss_and_gradient(Mimicry(("a", "b")), student, maps)
    assert torch.equal(both, alone)
    assert bool(gradient.isfinite().all())
