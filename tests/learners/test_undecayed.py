"""Do norms and biases stay without weight decay where a recipe says so, and all else decay?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.learners import make_optimizer
from engine.recipes import SGD, Adam, AdamW, Optimizer, RMSProp


@pytest.mark.parametrize(
    "chosen",
    [
        SGD(undecayed="norms_and_biases"),
        Adam(weight_decay=0.1, undecayed="norms_and_biases"),
        AdamW(undecayed="norms_and_biases"),
        RMSProp(weight_decay=0.1, undecayed="norms_and_biases"),
    ],
    ids=lambda value: value.kind,
)
def test_norms_and_biases_can_stay_without_decay(chosen: Optimizer) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = make_optimizer(chosen, network.parameters())
    decayed, kept = optimizer.param_groups
    assert [tuple(each.shape) for each in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(each.shape) for each in kept["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (chosen.weight_decay, 0)
    before = [each.detach().clone() for each in network.parameters()]
    for each in network.parameters():
        each.grad = torch.zeros_like(each)
    optimizer.step()
    moved = [not now.detach().equal(then) for now, then in zip(network.parameters(), before, strict=True)]
    assert moved == [each.ndim > 1 for each in before]


def test_what_has_only_norms_has_one_group() -> None:
    (kept,) = make_optimizer(SGD(undecayed="norms_and_biases"), nn.BatchNorm2d(4).parameters()).param_groups
    assert kept["weight_decay"] == 0
