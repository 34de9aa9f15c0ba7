"""Is the layout of features told by their axes, and is one that is not taken named with block and remedy?"""

from __future__ import annotations

import pytest
from torch import nn

from engine.backbones import LayoutError, Maps, Vectors, feature_layout, naming_block, require_layout
from engine.backbones.layouts import OtherFeatures, Tokens
from engine.errors import RecipeError

FOUND = [
    ((8, 4, 6), Maps, 8, 24, (4, 6)),
    ((17, 8), Tokens, 8, 17, None),
    ((10,), Vectors, 10, 1, None),
    ((3, 2, 4, 5), OtherFeatures, 3, 40, None),
    ((), OtherFeatures, 1, 1, None),
]


@pytest.mark.parametrize(("shape", "layout", "channels", "positions", "grid"), FOUND)
def test_the_axes_tell_the_layout(
    shape: tuple[int, ...], layout: type, channels: int, positions: int, grid: tuple[int, int] | None
) -> None:
    found = feature_layout(shape)
    assert type(found) is layout
    assert (found.shape, found.channels, found.positions, found.grid) == (shape, channels, positions, grid)


def test_one_of_several_layouts_is_enough() -> None:
    assert require_layout((8, 4, 4), "the head", Maps).grid == (4, 4)
    assert require_layout((8,), "the head", Maps, Vectors).channels == 8
    with pytest.raises(LayoutError, match=r"the head takes maps \[C, H, W\] or vectors \[C\], but .*tokens.*\(17, 8\)"):
        require_layout((17, 8), "the head", Maps, Vectors)


def refused(there: str, *blocks: nn.Module) -> str:
    network = nn.Sequential(*blocks, nn.Identity(), nn.Identity())
    with (
        pytest.raises(RecipeError) as raised,
        naming_block("block", network, (3, 4, 4), there, "do something else"),
    ):
        require_layout((17, 8), "the head", Maps)
    return str(raised.value)


def test_the_block_and_what_to_do_are_named() -> None:
    gives = "block 'block' gives tokens [N, D] of shape (17, 8), but the head takes maps [C, H, W]: "
    maps = (nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))
    assert refused("cut there", *maps, nn.Flatten(2)) == f"{gives}cut there (0, 1), or do something else"
    assert refused("", *maps, nn.Flatten(2)) == f"{gives}do something else"
    assert refused("cut there", nn.Flatten(2), nn.Linear(16, 4)) == f"{gives}do something else"
