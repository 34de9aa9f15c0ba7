"""A network whose blocks only sleep, so that the speed of a pipeline of it is known without measuring."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

SHARES = (1, 1, 2, 2, 2)
"""Of the time, by block; the classifier takes none."""
MILLISECONDS = 1.5
BEST_IMAGES = 4
"""Fewer images take as long as these; more of them twice as long per image, as if a cache were too small."""
COLD_SECONDS = 0.2


def seconds_of(share: int, images: int) -> float:
    """Return how long a block sleeps forward, and as long again backward."""
    images = 2 * images if images > BEST_IMAGES else BEST_IMAGES
    return share * images * MILLISECONDS / 1000


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        ctx.save_for_backward(features)
        time.sleep(seconds)
        return features * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        time.sleep(ctx.seconds)
        (features,) = ctx.saved_tensors
        return gradients[0], (gradients[0] * features).sum().reshape(1), None


class Sleeping(nn.Module):
    """A block that sleeps; the first one sleeps long when it is called first, as if it met a cold machine."""

    def __init__(self, share: int, is_cold: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self._share, self._is_cold = share, is_cold

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, after a while."""
        if self._is_cold:
            time.sleep(COLD_SECONDS)
            self._is_cold = False
        given: Tensor = _Sleep.apply(features, self.scale, seconds_of(self._share, len(features)))
        return given


def network(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return blocks that sleep, and a classifier that does not."""
    blocks = {f"block{index}": Sleeping(share, index == 0) for index, share in enumerate(SHARES)}
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes))
    return nn.Sequential(OrderedDict([*blocks.items(), ("classifier", classifier)]))


_passes = 0


class _Drifting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        global _passes
        _passes += 1
        (features,) = ctx.saved_tensors
        return gradients[0], _passes * (gradients[0] * features).sum().reshape(1)


class Drifting(nn.Module):
    """A block whose gradient is another one in every pass, as under a schedule that is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features."""
        given: Tensor = _Drifting.apply(features, self.scale)
        return given


def drifting(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    """Return a network that no schedule trains as plain accumulation does."""
    pixels = image_shape[0] * image_shape[1] * image_shape[2]
    blocks = {"first": Drifting(), "second": Drifting()}
    return nn.Sequential(
        OrderedDict([*blocks.items(), ("classifier", nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes)))])
    )
