"""Bilinear interpolation as matrix products: of maps, and folded into the 3x3 convolution after it.

torch's own has no deterministic backward on GPUs. Upsampling and convolution are both linear, and the upsampling is the
same for every channel. With A the interpolation along one axis and A_d its rows shifted by d = -1, 0, 1, zeros shifted
in, which is the convolution's zero padding:

    conv3x3(up(h)) = sum over dy, dx of A_dy (W_dydx h) A_dx^T + bias

so the convolution's channels can be summed at the features' own resolution, and only its outputs are interpolated.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data import on_device

# Rows of a matrix that are multiplied at a time: each reads few of the inputs, and smaller products are slower.
_BLOCK = 32


def folds(feature_shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Return whether features are convolved before they are upsampled, by shapes alone.

    They are where upsampling at least triples the number of pixels. Time of the plain way over that of the folded one,
    forward and backward, one core without AVX-512, float32 in channels_last, batch 128 (8 from 28 x 28 on):

        features      outputs         plain / folded
        64 x 8 x 8    12 x 32 x 32    7.1
        32 x 16 x 16  12 x 32 x 32    1.4
        16 x 20 x 20  12 x 32 x 32    0.6
        16 x 32 x 32  12 x 32 x 32    0.4
        128 x 28 x 28 32 x 56 x 56    2.9
        32 x 56 x 56  12 x 112 x 112  1.7
        12 x 112 x 112 3 x 224 x 224  2.0

    The rule is the same on every device and takes no measurement: which way is taken changes the rounding.

    Args:
        feature_shape: ``[C, H, W]``.
        size: height and width after upsampling.
    """
    _, height, width = feature_shape
    return size[0] * size[1] >= 3 * height * width


class Interpolation:
    """Bilinear interpolation with aligned corners along one axis, and its shifts by -1, 0 and 1.

    Args:
        matrix: float64 ``[outputs, 3 * inputs]`` of `shifted_interpolation`.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self._outputs, self._inputs = matrix.shape[0], matrix.shape[1] // 3

    def apply(self, maps: Tensor) -> Tensor:
        """Return ``[B, outputs, N]`` of maps ``[B, 3 * inputs, N]``."""
        results = [_product(block, maps[:, columns]) for rows, columns, block in self._blocks(maps)]
        return results[0] if len(results) == 1 else torch.cat(results, dim=1)

    def apply_transposed(self, gradient: Tensor) -> Tensor:
        """Return ``[B, 3 * inputs, N]`` of gradients ``[B, outputs, N]``."""
        blocks = self._blocks(gradient)
        if len(blocks) == 1:
            return _product(blocks[0][2].T, gradient)
        result = gradient.new_zeros(len(gradient), 3 * self._inputs, gradient.shape[2])
        for rows, columns, block in blocks:
            result[:, columns] += _product(block.T, gradient[:, rows])
        return result

    def _blocks(self, like: Tensor) -> list[tuple[slice, slice, Tensor]]:
        """Return which rows read which columns, and that part of the matrix in the dtype of the values."""
        matrix = self.matrix.to(like.dtype)
        found = []
        for start in range(0, self._outputs, _BLOCK):
            stop = min(start + _BLOCK, self._outputs)
            # Shifts by one row each way, then the two inputs around each output.
            ratio = (self._inputs - 1) / max(self._outputs - 1, 1)
            first = max(math.floor((start - 1) * ratio), 0)
            last = min(math.floor(stop * ratio) + 2, self._inputs)
            columns = slice(3 * first, 3 * last)
            found.append((slice(start, stop), columns, matrix[start:stop, columns]))
        return found


def shifted_interpolation(inputs: int, outputs: int) -> Tensor:
    """Return float64 ``[outputs, 3 * inputs]``: column 3 * j + d + 1 is what output i + d takes of input j."""
    # On the default device, which may be the one without values.
    return torch.empty(outputs, 3 * inputs, dtype=torch.float64).copy_(_on_the_cpu(inputs, outputs))


@functools.cache
def _on_the_cpu(inputs: int, outputs: int) -> Tensor:
    each = torch.eye(inputs, dtype=torch.float64, device="cpu")[None]
    matrix = F.interpolate(each, size=outputs, mode="linear", align_corners=True)[0].T
    beyond = torch.zeros(1, inputs, dtype=torch.float64, device="cpu")
    shifts = [torch.cat([beyond, matrix[:-1]]), matrix, torch.cat([matrix[1:], beyond])]
    return torch.stack(shifts, dim=2).reshape(outputs, 3 * inputs)


def _product(matrix: Tensor, maps: Tensor) -> Tensor:
    return torch.bmm(matrix.expand(len(maps), -1, -1), maps)


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
