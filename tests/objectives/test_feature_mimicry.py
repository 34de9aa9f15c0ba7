"""Is the feature term the mean squared distance to the peers?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.objectives import Context, FeatureMimicry, Objective
from engine.streams import generator

BATCH, WIDTH = 5, 8
LABELS = torch.zeros(BATCH, dtype=torch.int64)


def features_of(*key: str | int) -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=generator("features", *key))


def loss_and_gradient(term: FeatureMimicry, own: Tensor, messages: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    own = own.clone().requires_grad_()
    loss = term(torch.zeros(BATCH, 3), Context(LABELS, messages=messages, hooked={term.own: own})).loss
    (gradient,) = torch.autograd.grad(loss, own)
    return loss.detach(), gradient


@pytest.mark.parametrize("teachers", [1, 3])
def test_value_and_gradient_are_those_of_the_formula(teachers: int) -> None:
    own, messages = features_of("own"), {f"peer{index}": features_of(index) for index in range(teachers)}
    expected = 0.0
    for peer in messages.values():
        for mine, theirs in zip(own.double().tolist(), peer.double().tolist(), strict=True):
            expected += sum((a - b) ** 2 for a, b in zip(mine, theirs, strict=True)) / BATCH / teachers
    loss, gradient = loss_and_gradient(FeatureMimicry(tuple(messages), own="block4"), own, messages)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    mean = torch.stack(list(messages.values())).double().mean(0)
    torch.testing.assert_close(gradient, (2 * (own.double() - mean) / BATCH).float())
    assert loss_and_gradient(FeatureMimicry(["peer0"]), own, {"peer0": own})[0].item() == 0.0


def test_objective_asks_for_the_block_and_teachers_get_no_gradient() -> None:
    term = FeatureMimicry(["peer0"])
    assert Objective({term.name: term}, {term.name: 1.0}).hooks == ("pooled",)
    teacher, own = features_of("teacher").requires_grad_(), features_of("own").requires_grad_()
    term(own, Context(LABELS, messages={"peer0": teacher}, hooked={"pooled": own})).loss.backward()
    assert teacher.grad is None and own.grad is not None


def test_half_precision_features_lose_nothing_more() -> None:
    own, teacher = features_of("own").bfloat16(), features_of("teacher").bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        context = Context(LABELS, messages={"peer0": teacher}, hooked={"pooled": own})
        loss = FeatureMimicry(["peer0"])(own, context).loss
    expected = (own.double() - teacher.double()).square().sum(1).mean()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-6)
