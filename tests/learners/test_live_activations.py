"""Is what autograd keeps at most at one time counted exactly?"""

from __future__ import annotations

import torch
from torch import nn

from engine.learners.live_activations import LiveActivations
from engine.learners.memory import SavedActivations


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(288, 5),
    )


def own(net: nn.Module) -> list[torch.Tensor]:
    return [*net.parameters(), *net.buffers()]


def test_one_pass_counts_as_in_the_learners_own_meter() -> None:
    net, images = network(), torch.randn(4, 3, 8, 8)
    live, saved = LiveActivations(own(net)), SavedActivations(own(net))
    with live.counting():
        net(images).sum().backward()
    with saved.counting():
        net(images).sum().backward()
    assert live.peak == saved.bytes > 0


def test_what_was_freed_before_does_not_count() -> None:
    net, parts = network(), torch.randn(4, 3, 8, 8).split(1)
    one, in_turn, together = (LiveActivations(own(net)) for _ in range(3))
    with one.counting():
        net(parts[0].clone()).sum().backward()
    with in_turn.counting():
        for part in parts:
            net(part.clone()).sum().backward()
    with together.counting():
        for output in [net(part.clone()) for part in parts]:
            output.sum().backward()
    assert in_turn.peak == one.peak
    assert together.peak == 4 * one.peak
