"""What do the tests of branches share: a network with two forks, branches that leave from them, and a step of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from engine.objectives import Branches, BranchHead, Classification, Context, Objective, TermValue
from engine.streams import generator, seeded

BATCH, CLASSES = 12, 5
ORIGIN = (7, "segment0")
LABELS = torch.arange(BATCH) % CLASSES
INPUTS = torch.randn(BATCH, 8, generator=generator("branches", "inputs"))
NAMES = ("main", "near_top", "deep")
FORKS = {"near_top": "high", "deep": "low"}


class Network(nn.Module):
    """A body with two forks, whose outputs it hands out as `OutputHooks` does."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.classifier = nn.Linear(8, 6), nn.Linear(6, 7), nn.Linear(7, CLASSES)

    def forward(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # Under autocast the lower fork and the logits stay in float32, as behind layers that ask for it.
        hooked = {"low": self.low(inputs).float().tanh()}
        hooked["high"] = self.high(hooked["low"].view_as(hooked["low"])).tanh()
        return 1.1 * self.classifier(hooked["high"].view_as(hooked["high"])).float(), hooked


def network_of() -> Network:
    with seeded("branches", "network"):
        return Network()


def heads_of(dropout: float = 0.0) -> list[BranchHead]:
    widths = {"near_top": 7, "deep": 6}
    heads = []
    for name, fork in FORKS.items():
        with seeded("branches", name):
            # A norm does not round its input under autocast, as a linear layer does.
            norm, wide = nn.LayerNorm(widths[name]), nn.Linear(widths[name], 9)
            blocks = [norm, wide, nn.ReLU(), nn.Dropout(dropout), nn.Linear(9, CLASSES)]
        heads.append(BranchHead(name, fork, nn.Sequential(*blocks)))
    return heads


def branches_of(heads: list[BranchHead] | None = None, **settings: Any) -> Branches:
    return Branches(heads or heads_of(), origin=ORIGIN, **settings)


def observed_of(value: TermValue) -> dict[str, float]:
    assert all(not tensor.requires_grad and tensor.shape == () for tensor in value.observed.values())
    return {name: tensor.item() for name, tensor in value.observed.items()}


def precision(half: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=half)


def step(
    branches: Branches, labels: Tensor = LABELS, number: int = 3, half: bool = False
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return total loss, gradients by parameter and records of one step of the network with its branches."""
    network = network_of()
    with precision(half):
        logits, hooked = network(INPUTS)
        objective = Objective(
            {"cross_entropy": Classification(), "branches": branches}, {"cross_entropy": 1.0, "branches": 1.0}
        )
        value = objective(logits, Context(labels, hooked=hooked, epoch=1, step=number))
    branches.zero_grad()
    value.total.backward()
    return value.total.detach(), gradients_of(network, {head.name: head for head in branches._each()}), value.observed


def gradients_of(network: nn.Module, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    found = {f"network.{name}": each.grad for name, each in network.named_parameters()}
    for head, module in heads.items():
        found |= {f"{head}.{name}": each.grad for name, each in module.named_parameters()}
    return {name: each.clone() for name, each in found.items() if each is not None}


def assert_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, each in first.items():
        assert torch.equal(each, second[name]), name


def logits_of(heads: list[BranchHead], network: Network) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    main, hooked = network(INPUTS)
    return {"main": main, **{head.name: head(hooked[head.fork]) for head in heads}}, hooked
