"""Does average pooling average what it should, and repeat itself?"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.objectives.pooling import AveragePool, GlobalAveragePool
from engine.streams import generator


def naive_pool(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Average one window at a time."""
    _, _, height, width = features.shape
    pooled = torch.zeros(*features.shape[:2], *size)
    for row in range(size[0]):
        top, bottom = math.floor(row * height / size[0]), math.ceil((row + 1) * height / size[0])
        for column in range(size[1]):
            left, right = math.floor(column * width / size[1]), math.ceil((column + 1) * width / size[1])
            pooled[:, :, row, column] = features[:, :, top:bottom, left:right].mean(dim=(2, 3))
    return pooled


@pytest.mark.parametrize(
    ("input_size", "output_size"),
    [((8, 8), (2, 2)), ((7, 7), (2, 2)), ((7, 5), (3, 2)), ((1, 1), (2, 2)), ((8, 6), (4, 6)), ((9, 4), (2, 2))],
)
def test_windows(input_size: tuple[int, int], output_size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *input_size, generator=generator("pool"))
    pooled = AveragePool(input_size, output_size)(features)
    torch.testing.assert_close(pooled, naive_pool(features, output_size))
    torch.testing.assert_close(pooled, torch.nn.functional.adaptive_avg_pool2d(features, output_size))


def test_nothing_is_saved_with_the_weights() -> None:
    assert AveragePool((7, 7), (2, 2)).state_dict() == {}


def test_dtype_of_the_features_is_kept() -> None:
    assert AveragePool((7, 7), (2, 2))(torch.ones(1, 1, 7, 7).bfloat16()).dtype == torch.bfloat16


def test_global_average_takes_any_size() -> None:
    features = torch.randn(2, 3, 5, 7, generator=generator("global"))
    torch.testing.assert_close(GlobalAveragePool()(features), naive_pool(features, (1, 1)).flatten(1))
