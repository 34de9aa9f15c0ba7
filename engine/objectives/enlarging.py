"""Bilinear resizing of maps to a given size, with the same result in every run.

As two matrix products: torch's own has no deterministic backward on GPUs.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data import on_device


def enlarged(maps: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Return maps resized bilinearly, without antialiasing: ``F.interpolate`` up to rounding.

    Args:
        maps: ``[B, C, h, w]``, floating.
        size: height H and width W.
        align_corners: whether the centres of the corner pixels stay where they are, rather than their outer edges.

    Returns:
        ``[B, C, H, W]``, of the maps' dtype.
    """
    height, width = int(maps.shape[2]), int(maps.shape[3])
    if (height, width) == size:
        return maps
    rows = on_device(_matrix(height, size[0], align_corners), maps.device).to(maps.dtype)
    columns = on_device(_matrix(width, size[1], align_corners), maps.device).to(maps.dtype)
    return rows @ (maps @ columns.T)


@functools.lru_cache(maxsize=256)
def _matrix(inputs: int, outputs: int, align_corners: bool) -> Tensor:
    """Return float32 ``[outputs, inputs]``: what each output takes of each input."""
    each = torch.eye(inputs, dtype=torch.float64, device="cpu")[None]
    return F.interpolate(each, size=outputs, mode="linear", align_corners=align_corners)[0].T.float().contiguous()
