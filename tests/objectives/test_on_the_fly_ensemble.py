"""Is the loss of ONE the published one?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import Context
from engine.objectives.on_the_fly_ensemble import OnTheFlyEnsemble, ensemble_divergence
from engine.streams import generator, seeded

BATCH, CLASSES, CHANNELS = 6, 5, 4
LABELS = torch.arange(BATCH) % CLASSES


def drawn(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=generator("on_the_fly_ensemble", key))


def ensemble_of(branches: int = 3, **settings: float) -> OnTheFlyEnsemble:
    with seeded("on_the_fly_ensemble"):
        others = [nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 9, CLASSES)) for _ in range(branches - 1)]
        return OnTheFlyEnsemble("block", CHANNELS, others, **settings)  # type: ignore[arg-type]


def context_of(labels: Tensor = LABELS, epoch: int = 0) -> tuple[Context, Tensor, Tensor]:
    """Return what the term looks at, with the predictions and the features in it."""
    own = 2 * drawn(len(labels), CLASSES, key="own")
    shared = drawn(len(labels), CHANNELS, 3, 3, key="shared")
    own.requires_grad_()
    shared.requires_grad_()
    return Context(labels, predictions=own, hooked={"block": shared}, epoch=epoch), own, shared


def by_hand(term: OnTheFlyEnsemble, context: Context, divergence_weight: float, temperature: float) -> Tensor:
    """Return the loss, image by image and branch by branch."""
    shared, own = context.hooked["block"], context.predictions
    assert own is not None
    linear, norm = term.gate[0], term.gate[1]
    scores = shared.mean(dim=(2, 3)) @ linear.weight.T + linear.bias  # type: ignore[operator]
    deviation = (scores.var(dim=0, unbiased=False) + norm.eps).sqrt()  # type: ignore[operator]
    gate = ((scores - scores.mean(dim=0)) / deviation).clamp(min=0).softmax(dim=1)
    branches = [own, *(branch(shared) for branch in term.branches)]
    loss = torch.zeros(())
    for image, label in enumerate(context.labels.tolist()):
        ensemble = sum(
            (gate[image, place] * logits[image] for place, logits in enumerate(branches)), torch.zeros(CLASSES)
        )
        labelled = [ensemble, *(logits[image] for logits in branches[1:])]
        loss = loss - torch.stack([each.log_softmax(dim=0)[label] for each in labelled]).sum()
        teacher = (ensemble.detach() / temperature).softmax(dim=0) + 1e-7
        for logits in branches:
            student = (logits[image] / temperature).log_softmax(dim=0)
            loss = loss + divergence_weight * temperature**2 * (teacher * (teacher.log() - student)).sum()
    return loss / len(context.labels)


@pytest.mark.parametrize("branches", [2, 3, 5])
@pytest.mark.parametrize(
    ("weight", "temperature", "ramp_epochs", "epoch", "ramp"),
    [
        (1.0, 3.0, 80, 0, math.exp(-5)),
        (0.5, 3.0, 80, 40, math.exp(-1.25)),
        (1.0, 1.0, 80, 200, 1.0),
        (2.0, 4.0, 0, 0, 1.0),
        (0.0, 3.0, 0, 0, 0.0),
    ],
)
def test_loss_and_gradients_are_those_of_a_loop(
    branches: int, weight: float, temperature: float, ramp_epochs: int, epoch: int, ramp: float
) -> None:
    term = ensemble_of(branches, weight=weight, temperature=temperature, ramp_epochs=ramp_epochs)
    context, own, shared = context_of(epoch=epoch)
    wanted = [own, shared, *term.parameters()]
    loss = term(own, context).loss
    expected = by_hand(term, context, weight * ramp, temperature)
    torch.testing.assert_close(loss, expected)
    gradients, others = torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted, allow_unused=True)
    for gradient, other in zip(gradients, others, strict=True):
        # The gate's batch norm starts with scale 1 and shift 0, which the loop leaves out.
        if other is not None:
            torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-6)


def test_without_weight_the_cross_entropies_of_branches_and_ensemble_are_left() -> None:
    term = ensemble_of(3, weight=0.0)
    context, own, shared = context_of()
    others = [branch(shared) for branch in term.branches]
    gate = term.gate(shared.mean(dim=(2, 3)))
    ensemble = sum(gate[:, place, None] * logits for place, logits in enumerate([own, *others]))
    assert isinstance(ensemble, Tensor)
    expected = sum(F.cross_entropy(logits, LABELS) for logits in [*others, ensemble])
    torch.testing.assert_close(term(own, context).loss, expected)


def test_the_teacher_gets_no_gradient() -> None:
    teacher = drawn(BATCH, CLASSES, key="teacher").requires_grad_()
    students = drawn(2, BATCH, CLASSES, key="students").requires_grad_()
    ensemble_divergence(teacher, students, 3.0).backward()
    assert teacher.grad is None
    assert students.grad is not None


def test_branches_that_agree_with_the_ensemble_learn_next_to_nothing_from_it() -> None:
    logits = drawn(BATCH, CLASSES, key="logits")
    students = logits.expand(3, -1, -1).clone().requires_grad_()
    value = ensemble_divergence(logits, students, 3.0)
    value.backward()
    assert abs(value.item()) < 1e-4
    assert students.grad is not None
    assert float(students.grad.abs().max()) < 1e-6


def test_images_without_label_count_in_the_divergence_only() -> None:
    term = ensemble_of(weight=0.0)
    context, own, _ = context_of(torch.full((BATCH,), -1))
    assert term(own, context).loss.item() == 0.0
    term.weight = 1.0
    loss = term(own, context).loss
    assert loss.item() > 0
    (gradient,) = torch.autograd.grad(loss, own)
    assert bool((gradient.abs().sum(dim=1) > 0).all())
