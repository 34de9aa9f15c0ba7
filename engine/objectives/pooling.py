"""Average pooling of feature maps to a given size, with the same result in every run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AveragePool(nn.Module):
    """Average feature maps ``[B, C, H, W]`` to ``[B, C, h, w]``.

    Same windows as ``nn.AdaptiveAvgPool2d``: output row i averages input rows floor(i*H/h) up to ceil((i+1)*H/h).
    That layer has no deterministic backward on GPUs and is refused there when a recipe asks for determinism.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, input_size: tuple[int, int], output_size: tuple[int, int]) -> None:
        super().__init__()
        self.kernel: tuple[int, int] | None = None
        if input_size[0] % output_size[0] == 0 and input_size[1] % output_size[1] == 0:
            self.kernel = (input_size[0] // output_size[0], input_size[1] // output_size[1])
        else:
            # Windows of unequal size or that overlap: the average is linear, so two matrix products do it.
            self.register_buffer("rows", _averaging_matrix(input_size[0], output_size[0]), persistent=False)
            self.register_buffer("columns", _averaging_matrix(input_size[1], output_size[1]), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the averages, in the dtype of the features or, under autocast, in autocast's."""
        if self.kernel is not None:
            return F.avg_pool2d(features, self.kernel)
        return self.rows.to(features.dtype) @ features @ self.columns.to(features.dtype).T


class GlobalAveragePool(nn.Module):
    """Average feature maps ``[B, C, H, W]`` of any size to ``[B, C]``."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the averages."""
        return features.mean(dim=(2, 3))


def _averaging_matrix(size: int, parts: int) -> Tensor:
    """Return float32 ``[parts, size]``, whose row i averages window i."""
    matrix = torch.zeros(parts, size)
    for part in range(parts):
        start, stop = part * size // parts, -(-(part + 1) * size // parts)
        matrix[part, start:stop] = 1.0 / (stop - start)
    return matrix
