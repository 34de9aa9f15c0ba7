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
_ERASED_AREA = (0.02, 0.4)
_ERASED_ASPECT = (0.3, 1 / 0.3)


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


def erased_boxes(number: int, seed: int, epoch: int, step: int, probability: float, size: tuple[int, int]) -> Tensor:
    """Return the areas of random erasing (Zhong et al. 2020): 2 to 40 % of the image, aspect 0.3 to 3.3, log-uniform.

    A stream of its own: whoever erases nothing draws what was drawn before there was this.

    Args:
        number: images B.
        seed: of the run.
        epoch: of the batch.
        step: of the batch.
        probability: with which an image is changed.
        size: height and width of the images.

    Returns:
        Left, upper, right and lower edges in whole pixels, int64 [B, 4]; all 0 where nothing is erased.
    """
    height, width = size
    stream = generator(seed, "erasing", epoch, step)
    uniform = torch.rand((3 + 2 * TRIES, number), generator=stream, dtype=torch.float64)
    areas = height * width * (_ERASED_AREA[0] + (_ERASED_AREA[1] - _ERASED_AREA[0]) * uniform[3 : 3 + TRIES])
    low, high = torch.log(torch.tensor(_ERASED_ASPECT, dtype=torch.float64))
    aspects = torch.exp(low + (high - low) * uniform[3 + TRIES :])
    heights, widths = torch.round(torch.sqrt(areas * aspects)), torch.round(torch.sqrt(areas / aspects))
    fits = (heights >= 1) & (heights < height) & (widths >= 1) & (widths < width)
    first = fits.to(torch.uint8).argmax(dim=0, keepdim=True)
    erased = (uniform[0] < probability) & fits.any(dim=0)
    high_of_box, wide_of_box = heights.gather(0, first)[0], widths.gather(0, first)[0]
    upper = torch.floor(uniform[1] * (height - high_of_box + 1))
    left = torch.floor(uniform[2] * (width - wide_of_box + 1))
    boxes = torch.stack([left, upper, left + wide_of_box, upper + high_of_box], dim=1).long()
    return torch.where(erased[:, None], boxes, 0)
