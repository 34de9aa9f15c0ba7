"""Are the interpolation matrices those of torch, and does the rule look at shapes alone?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.objectives.interpolation import Interpolation, folds, shifted_interpolation
from engine.streams import generator


@pytest.mark.parametrize(
    ("shape", "size", "folded"),
    [
        ((64, 8, 8), (32, 32), True),
        ((32, 16, 16), (32, 32), True),
        ((128, 28, 28), (56, 56), True),
        ((128, 57, 57), (113, 113), True),
        ((16, 32, 32), (32, 32), False),
        ((16, 24, 24), (32, 32), False),
        ((16, 32, 32), (28, 28), False),
    ],
)
def test_features_are_folded_where_pixels_at_least_triple(
    shape: tuple[int, int, int], size: tuple[int, int], folded: bool
) -> None:
    assert folds(shape, size) is folded


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 8), (5, 1), (7, 33), (40, 97), (112, 224), (32, 28)])
def test_blocks_of_the_matrix_give_what_all_of_it_gives(inputs: int, outputs: int) -> None:
    matrix = shifted_interpolation(inputs, outputs)
    maps = torch.randn(2, 3 * inputs, 5, generator=generator("maps"), dtype=torch.float64)
    gradient = torch.randn(2, outputs, 5, generator=generator("gradient"), dtype=torch.float64)
    along = Interpolation(matrix)
    torch.testing.assert_close(along.apply(maps), matrix @ maps, atol=1e-13, rtol=0)
    torch.testing.assert_close(along.apply_transposed(gradient), matrix.T @ gradient, atol=1e-13, rtol=0)


def test_shifts_of_the_matrix_are_rows_of_the_padded_interpolation() -> None:
    values = torch.randn(1, 1, 5, generator=generator("values"), dtype=torch.float64)
    resized = F.interpolate(values, size=12, mode="linear", align_corners=True)
    padded = F.pad(resized, (1, 1))[0, 0]
    matrix = shifted_interpolation(5, 12)
    for shift in range(3):
        torch.testing.assert_close(matrix[:, shift::3] @ values[0, 0], padded[shift : shift + 12], atol=1e-14, rtol=0)
