"""Does a learner learn from those peers only that gave something in this step and have not diverged?"""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from engine.errors import RecipeError
from engine.objectives import (
    Context,
    FeatureMimicry,
    Mimicry,
    Term,
)
from engine.recipes import Divergence, MimicryReduction, MimicryTarget
from engine.streams import generator

BATCH, WIDTH = 6, 5
LABELS = torch.arange(BATCH) % WIDTH
TEACHERS = ("peer0", "peer1", "peer2")

TERMS: dict[str, Term] = {
    f"{divergence}-{target}-{reduction}": Mimicry(
        TEACHERS, divergence=divergence, target=target, reduction=reduction, temperature=2.0
    )
    for divergence, target, reduction in itertools.product(
        get_args(Divergence), get_args(MimicryTarget), get_args(MimicryReduction)
    )
}
TERMS["features"] = FeatureMimicry(TEACHERS)
every_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())


def numbers_of(name: str) -> Tensor:
    return torch.randn(BATCH, WIDTH, generator=generator("numbers", name))


def loss_and_gradient(term: Term, own: Tensor, messages: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    own = own.clone().requires_grad_()
    loss = term(own, Context(LABELS, messages=messages, predictions=own, hooked={"pooled": own})).loss
    (gradient,) = torch.autograd.grad(loss, own)
    return loss.detach(), gradient


@every_term
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf, 1e30])
def test_a_peer_that_has_diverged_counts_as_little_as_one_that_is_missing(term: Term, spoilt: float) -> None:
    own, messages = numbers_of("own"), {name: numbers_of(name) for name in TEACHERS}
    all_of_them = loss_and_gradient(term, own, messages)
    broken = messages.pop("peer1")
    missing = loss_and_gradient(term, own, messages)
    broken[2, 3] = spoilt
    diverged = loss_and_gradient(term, own, {**messages, "peer1": broken})
    torch.testing.assert_close(diverged, missing)
    assert (all_of_them[1] - missing[1]).abs().max() > 1e-3


@every_term
def test_a_step_without_messages_costs_nothing(term: Term) -> None:
    own = numbers_of("own").bfloat16().requires_grad_()
    loss = term(own, Context(LABELS, messages={"other": own}, predictions=own, hooked={"pooled": own})).loss
    assert loss.item() == 0.0 and loss.dtype == torch.float32 and not loss.requires_grad


@every_term
def test_peers_that_all_have_diverged_cost_nothing(term: Term) -> None:
    messages = dict.fromkeys(TEACHERS, torch.full((BATCH, WIDTH), math.nan))
    loss, gradient = loss_and_gradient(term, numbers_of("own"), messages)
    assert loss.item() == 0.0 and torch.equal(gradient, torch.zeros(BATCH, WIDTH))


@every_term
def test_no_value_is_asked_on_the_host(term: Term) -> None:
    # A tensor on the meta device has no value: asking for one raises, where a GPU would wait.
    messages = {name: numbers_of(name).to("meta") for name in TEACHERS}
    loss, gradient = loss_and_gradient(term, numbers_of("own").to("meta"), messages)
    assert loss.shape == () and loss.dtype == torch.float32 and gradient.shape == (BATCH, WIDTH)


@pytest.mark.parametrize("name", ["features", "kl-peers-mean"])
def test_peers_of_another_width_are_refused(name: str) -> None:
    messages = {"peer0": numbers_of("peer0"), "peer2": torch.zeros(BATCH, 64)}
    with pytest.raises(RecipeError, match=rf"{TERMS[name].name} .*peer2 has shape \(64,\).*own is \(5,\).*weight"):
        loss_and_gradient(TERMS[name], numbers_of("own"), messages)
