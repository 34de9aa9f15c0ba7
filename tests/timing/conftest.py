"""What do the tests of measured cuts share: a network of blocks that sleep, and a choice that is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.recipes import Augmentation, Backbone, Greedy, Recipe
from engine.timing import MeasuredCut

NETWORK = '''
import time
from collections import OrderedDict

import torch
from torch import nn


class Slept(torch.autograd.Function):
    @staticmethod
    def forward(context, features, seconds):
        context.seconds = seconds
        time.sleep(seconds)
        return features.clone()

    @staticmethod
    def backward(context, gradient):
        time.sleep(context.seconds)
        return gradient, None


class Block(nn.Module):
    """Sleeps as long in its forward as in its backward pass."""

    def __init__(self, channels, milliseconds):
        super().__init__()
        self.convolution = nn.Conv2d(channels, 2, 1)
        self.milliseconds = milliseconds

    def forward(self, features):
        return Slept.apply(self.convolution(features), self.milliseconds / 2000)


def network(num_classes, image_shape, milliseconds):
    blocks = OrderedDict()
    channels = image_shape[0]
    for index, each in enumerate(milliseconds):
        blocks[f"block{index}"] = Block(channels, each)
        channels = 2
    blocks["classifier"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes))
    return nn.Sequential(blocks)
'''


@pytest.fixture
def make_sleeping(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Recipe]:
    """A function: K, milliseconds that each block sleeps in a step, and changes, to a recipe with measured cuts."""
    file = tmp_path / "sleeping.py"
    file.write_text(NETWORK)

    def build(num_segments: int, milliseconds: Sequence[int], **changes: Any) -> Recipe:
        return tiny_recipe(
            **{
                "method": Greedy(num_segments=num_segments, cuts="measured"),
                "backbone": Backbone(name=f"{file}:network", options={"milliseconds": list(milliseconds)}),
                "epochs": 1,
                "data": {"train_limit": 12, "test_limit": 10, "batch_size": 6, "augmentation": Augmentation()},
                **changes,
            }
        )

    return build


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of segments for which a cut was chosen; nothing is timed: each ends after one block, the last aside.

    The second cut that is chosen is another one than the first, as on a machine that has changed.
    """
    found: list[int] = []

    def choose(subject: Any, blocks: Any, num_segments: int, budget: float = 0.0) -> MeasuredCut:
        found.append(num_segments)
        boundaries = tuple(range(len(found), len(found) + num_segments - 1))
        names = tuple(list(subject.network._modules)[stop - 1] for stop in boundaries)
        return MeasuredCut(boundaries, names, (0.306,) * (num_segments - 1) + (0.379,), 1.55 * 0.379, 6, lambda *_: 1.0)

    monkeypatch.setattr("engine.timing.choice.measured_cut", choose)
    monkeypatch.setattr("engine.timing.choice.TimedBlocks", lambda *_: None)
    return found
