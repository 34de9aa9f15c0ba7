"""Random numbers that decide how the images of one batch are augmented.

The source (when it crops while it decodes) and every learner draw the same numbers for the same batch, and each
choice has its own numbers: turning one kind of augmentation on leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.streams import generator

TRIES = 10
"""Areas tried before a random resized crop falls back to the largest central crop."""

_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Draws:
    """Uniform numbers in [0, 1), float64 on the CPU, for a batch of B images."""

    shift: Tensor
    """[2, B], down and across."""

    mirror: Tensor
    """[B]."""

    color: Tensor
    """[3, B], brightness, contrast and saturation."""

    crop: Tensor
    """[2 + 2 * TRIES, B], position down and across, then areas, then aspect ratios."""


def draw(number: int, seed: int, epoch: int, step: int) -> Draws:
    """Return the numbers of one batch, a pure function of the arguments."""
    stream = generator(seed, "augmentation", epoch, step)
    # Double precision: number * (2 * padding + 1) must never round up to 2 * padding + 1.
    uniform = torch.rand((8 + 2 * TRIES, number), generator=stream, dtype=torch.float64)
    return Draws(shift=uniform[0:2], mirror=uniform[2], color=uniform[3:6], crop=uniform[6:])


def crop_boxes(crop: Tensor, heights: Tensor, widths: Tensor) -> Tensor:
    """Return the areas of a random resized crop (Szegedy et al., 2015): 8 to 100 % of the image, aspect 3/4 to 4/3.

    Args:
        crop: [2 + 2 * TRIES, B], as in `Draws.crop`.
        heights: height of each image, float64 [B].
        widths: width of each image, float64 [B].

    Returns:
        Left, upper, right and lower edges in whole pixels, float64 [B, 4].
    """
    areas = heights * widths * (_AREA[0] + (_AREA[1] - _AREA[0]) * crop[2 : 2 + TRIES])
    low, high = torch.log(torch.tensor(_ASPECT, dtype=torch.float64))
    aspects = torch.exp(low + (high - low) * crop[2 + TRIES :])
    tried_widths = torch.round(torch.sqrt(areas * aspects))
    tried_heights = torch.round(torch.sqrt(areas / aspects))
    fits = (tried_widths >= 1) & (tried_widths <= widths) & (tried_heights >= 1) & (tried_heights <= heights)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    # The largest crop with an allowed aspect, for an image so long that no try fits.
    fallback_widths = torch.minimum(widths, torch.round(heights * _ASPECT[1]))
    fallback_heights = torch.minimum(heights, torch.round(widths / _ASPECT[0]))
    any_fits = fits.any(dim=0)
    box_widths = torch.where(any_fits, tried_widths.gather(0, first)[0], fallback_widths)
    box_heights = torch.where(any_fits, tried_heights.gather(0, first)[0], fallback_heights)
    upper = torch.where(any_fits, torch.floor(crop[0] * (heights - box_heights + 1)), (heights - box_heights) // 2)
    left = torch.where(any_fits, torch.floor(crop[1] * (widths - box_widths + 1)), (widths - box_widths) // 2)
    return torch.stack([left, upper, left + box_widths, upper + box_heights], dim=1)
