"""What do the tests of sub-networks share: networks of which blocks can be dropped, and the names of such blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine import backbones
from engine.backbones import droppable_stages
from engine.recipes.backbone import Backbone

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)


def make(name: str, shape: tuple[int, int, int] = CIFAR, device: str = "cpu", **fields: Any) -> nn.Sequential:
    with torch.device(device):
        return backbones.build(Backbone(name=name, **fields), 10, shape, seed=0)


def stages_of(name: str, shape: tuple[int, int, int] = CIFAR, **fields: Any) -> tuple[tuple[str, ...], ...]:
    return droppable_stages(make(name, shape, "meta", **fields))


def layers(*last: int) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(f"layer{stage}_{index}" for index in range(1, final + 1)) for stage, final in enumerate(last, start=1)
    )


def features(*stages: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"features_{place}" for place in stage) for stage in stages)


RESNET50 = layers(2, 3, 5, 2)
LARGE = features([1], [3], [5, 6], [8, 9, 10], [12], [14, 15])


class Doubling(nn.Module):
    bypassable = True

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        return values + self.branch(values)


def own(*kinds: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) if kind is nn.Linear else kind() for kind in kinds))
