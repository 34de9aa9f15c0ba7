"""Do a network's heads pull at one another as DHM has it, in the directions that are kept?"""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.objectives import BranchMimicry, Context, as_message, branch_mimicry, kept_directions, kl_divergence
from engine.recipes import Directions
from engine.streams import generator

BATCH, CLASSES = 6, 5
RULES = get_args(Directions)
ORIGIN = (7, "segment0")


def logits_of(*key: str | int, batch: int = BATCH, classes: int = CLASSES) -> Tensor:
    return 3.0 * torch.randn(batch, classes, generator=generator("branch_mimicry", *key))


def heads_of(number: int) -> list[Tensor]:
    return [logits_of("head", index) for index in range(number)]


def without(values: list[Tensor] | Tensor, index: int) -> Tensor:
    return torch.stack([each for place, each in enumerate(values) if place != index])


def loss_and_gradient(student: Tensor, teachers: Tensor, kept: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    loss, _ = branch_mimicry(student, teachers, kept, temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.detach(), gradient


def all_of_them(heads: list[Tensor], kept: Tensor, temperature: float) -> tuple[Tensor, list[Tensor]]:
    """Return the sum of all heads' losses, and each head's gradient."""
    found = [
        loss_and_gradient(head, without(heads, index), without(kept[index], index), temperature)
        for index, head in enumerate(heads)
    ]
    return torch.stack([loss for loss, _ in found]).sum(), [gradient for _, gradient in found]


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def naive(heads: list[Tensor], kept: Tensor, temperature: float) -> tuple[float, list[Tensor]]:
    """Go through images and pairs of heads one by one, in Python's own floats."""
    value = 0.0
    gradients = [torch.zeros(BATCH, CLASSES, dtype=torch.float64) for _ in heads]
    for image in range(BATCH):
        rows = [softmax(head[image].tolist(), temperature) for head in heads]
        for student, own in enumerate(rows):
            for teacher, other in enumerate(rows):
                if student == teacher:
                    continue
                divergence = sum(p * math.log(p / q) for p, q in zip(other, own, strict=True))
                value += temperature**2 * divergence / BATCH
                if kept[student, teacher]:
                    pull = torch.tensor(own, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64)
                    gradients[student][image] += temperature / BATCH * pull
    return value, gradients


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [2, 3, 4])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_value_and_gradients_are_those_of_the_double_loop(rule: Directions, heads: int, temperature: float) -> None:
    logits, kept = heads_of(heads), kept_directions(rule, heads, 0.5, *ORIGIN, 0, 3)
    loss, gradients = all_of_them(logits, kept, temperature)
    expected, expected_gradients = naive(logits, kept, temperature)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-5)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("heads", [2, 3, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_mimicry_of_all_never_moves_the_mean_of_the_heads(heads: int, temperature: float) -> None:
    kept = kept_directions("all", heads, 1.0, *ORIGIN, 0, 0)
    _, gradients = all_of_them(heads_of(heads), kept, temperature)
    assert all(float(gradient.abs().max()) > 1e-3 for gradient in gradients)
    torch.testing.assert_close(sum(gradients), torch.zeros(BATCH, CLASSES), atol=1e-6, rtol=0.0)


def test_each_teachers_part_is_its_divergence_and_has_no_graph() -> None:
    student, *teachers = heads_of(4)
    student.requires_grad_()
    loss, each = branch_mimicry(student, torch.stack(teachers), torch.tensor([True, False, True]), 2.0)
    expected = torch.stack([kl_divergence(teacher, student, 2.0) for teacher in teachers])
    torch.testing.assert_close(each, expected.detach())
    assert not each.requires_grad
    assert loss.item() == pytest.approx(each.sum().item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_two_heads_are_the_divergence_of_mutual_learning_both_ways(temperature: float) -> None:
    logits = heads_of(2)
    for student, teacher in (logits, logits[::-1]):
        loss, gradient = loss_and_gradient(student, teacher[None], torch.tensor([True]), temperature)
        own = student.clone().requires_grad_()
        other = kl_divergence(teacher, own, temperature)
        (other_gradient,) = torch.autograd.grad(other, own)
        torch.testing.assert_close(loss, other.detach())
        torch.testing.assert_close(gradient, other_gradient)


def test_no_gradient_reaches_a_teacher() -> None:
    student, teacher = (head.requires_grad_() for head in heads_of(2))
    branch_mimicry(student, teacher[None], torch.tensor([True]), 1.0)[0].backward()
    assert student.grad is not None and float(student.grad.abs().max()) > 1e-3
    assert teacher.grad is None


def test_a_direction_that_is_off_stays_in_the_value_without_gradient() -> None:
    student, *others = heads_of(3)
    teachers = torch.stack(others)
    everyone = loss_and_gradient(student, teachers, torch.tensor([True, True]), 2.0)
    one = loss_and_gradient(student, teachers, torch.tensor([False, True]), 2.0)
    nobody = loss_and_gradient(student, teachers, torch.tensor([False, False]), 2.0)
    assert torch.equal(everyone[0], one[0]) and torch.equal(everyone[0], nobody[0])
    alone = loss_and_gradient(student, teachers[1:], torch.tensor([True]), 2.0)
    torch.testing.assert_close(one[1], alone[1])
    assert float((everyone[1] - one[1]).abs().max()) > 1e-3
    assert torch.equal(nobody[1], torch.zeros(BATCH, CLASSES))


def test_never_negative_and_zero_only_where_rows_differ_by_a_constant() -> None:
    student, teacher = heads_of(2)
    shift = torch.linspace(-2.0, 2.0, BATCH)[:, None]
    loss, gradient = loss_and_gradient(student, (student + shift)[None], torch.tensor([True]), 1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.zeros(BATCH, CLASSES), atol=1e-6, rtol=0.0)
    for seed in range(20):
        teacher = student + 0.1 * logits_of("other", seed)
        assert loss_and_gradient(student, teacher[None], torch.tensor([True]), 1.0)[0] > 1e-3


def test_great_temperature_leaves_the_difference_of_centred_logits() -> None:
    student, teacher = heads_of(2)
    _, gradient = loss_and_gradient(student, teacher[None], torch.tensor([True]), 1000.0)
    centred = [head.double() - head.double().mean(dim=1, keepdim=True) for head in (student, teacher)]
    expected = (centred[0] - centred[1]) / (BATCH * CLASSES)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(gradient.double(), expected, atol=3e-3 * float(expected.abs().max()), rtol=0.0)


def test_the_released_smoothing_changes_next_to_nothing() -> None:
    student, teacher = (logits_of(key, batch=128, classes=100) for key in ("student", "teacher"))
    loss, _ = loss_and_gradient(student, teacher[None], torch.tensor([True]), 1.0)
    p, q = ((head.double().softmax(dim=1) + 1e-8) / (1 + 1e-8 * 100) for head in (teacher, student))
    smoothed = (p * (p.log() - q.log())).sum(dim=1).mean()
    assert loss.item() == pytest.approx(smoothed.item(), rel=1e-3)
    assert abs(loss.item() / smoothed.item() - 1) > 1e-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_huge_logits_stay_finite(dtype: torch.dtype, temperature: float) -> None:
    signs = torch.where(logits_of("signs") > 0, 1e4, -1e4).to(dtype)
    teachers = torch.stack([signs, -signs, logits_of("teacher").to(dtype)])
    for student in (signs, -signs, logits_of("student").to(dtype)):
        for kept in (torch.tensor([True, True, True]), torch.tensor([False, True, False])):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss, gradient = loss_and_gradient(student, teachers, kept, temperature)
            assert loss.dtype == torch.float32 and loss.isfinite() and loss > 1e-3
            assert gradient.dtype == dtype and gradient.isfinite().all()


def test_half_precision_logits_lose_nothing_more() -> None:
    student, *teachers = (head.bfloat16() for head in heads_of(3))
    kept = torch.tensor([True, True])
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = loss_and_gradient(student, torch.stack(teachers), kept, 1.0)
    exact, _ = loss_and_gradient(student.float(), torch.stack(teachers).float(), kept, 1.0)
    assert torch.equal(loss, exact)


def test_a_message_has_the_dtype_of_autocast_and_keeps_its_graph() -> None:
    features = logits_of("features").requires_grad_()
    assert as_message(features) is features
    with torch.autocast("cpu", torch.bfloat16):
        message = as_message(features)
        assert as_message(message) is message
    assert torch.equal(message, features.bfloat16())
    message.sum().backward()
    assert features.grad is not None
    with torch.device("meta"):
        assert as_message(torch.zeros(2)).dtype == torch.float32


def test_a_learner_with_one_head_reads_the_others_messages_in_their_order() -> None:
    main, near_top, deep = heads_of(3)
    messages = {"main": "network_said", "deep": "deep_said", "near_top": "near_top_said"}
    term = BranchMimicry(
        "near_top", ("main", "near_top", "deep"), messages, origin=ORIGIN, temperature=2.0, directions="top_down"
    )
    student = near_top.clone().requires_grad_()
    given = {"network_said": main, "deep_said": deep}
    value = term(student, Context(torch.zeros(BATCH).long(), messages=given, predictions=student, epoch=1, step=2))
    (gradient,) = torch.autograd.grad(value.loss, student)
    # Of the two, only the network's own head is deeper.
    loss, expected = loss_and_gradient(near_top, torch.stack([main, deep]), torch.tensor([True, False]), 2.0)
    assert torch.equal(value.loss, loss) and torch.equal(gradient, expected)
    observed = {name: tensor.item() for name, tensor in value.observed.items()}
    assert observed == {
        "branches/mimicry/near_top<-main": pytest.approx(kl_divergence(main, near_top, 2.0).item()),
        "branches/mimicry/near_top<-deep": pytest.approx(kl_divergence(deep, near_top, 2.0).item()),
        "branches/directions_kept": 0.5,
    }
