"""Do blocks state the layout of their features, and is one that is not taken named with block and remedy?"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from engine.backbones import (
    FeatureLayout,
    LayoutError,
    Maps,
    Vectors,
    feature_layout,
    feature_shapes,
    naming_block,
    require_layout,
)
from engine.backbones.layouts import ChannelsLast, Tokens, layout_of
from engine.backbones.own_file import call_own
from engine.errors import RecipeError

FOUND = [
    ((8, 4, 6), Maps, 8, 24, (4, 6)),
    ((17, 8), Tokens, 8, 17, None),
    ((10,), Vectors, 10, 1, None),
    ((3, 2, 4, 5), FeatureLayout, 3, 40, None),
    ((), FeatureLayout, 1, 1, None),
]


@pytest.mark.parametrize(("shape", "layout", "channels", "positions", "grid"), FOUND)
def test_the_axes_tell_the_layout_of_blocks_that_state_none(
    shape: tuple[int, ...], layout: type, channels: int, positions: int, grid: tuple[int, int] | None
) -> None:
    found = feature_layout(shape)
    assert type(found) is layout
    assert (tuple(found), found.channels, found.positions, found.grid) == (shape, channels, positions, grid)
    assert type(layout_of(nn.Identity(), "block", shape)) is layout


def stating(**attributes: Any) -> nn.Module:
    block = nn.Identity()
    for name, value in attributes.items():
        setattr(block, name, value)
    return block


STATED: list[tuple[dict[str, Any], tuple[int, ...], type, int, int, tuple[int, int] | None, str]] = [
    ({"feature_layout": "maps"}, (8, 4, 6), Maps, 8, 24, (4, 6), "maps [C, H, W] of shape (8, 4, 6)"),
    (
        {"feature_layout": "channels_last"},
        (4, 6, 8),
        ChannelsLast,
        8,
        24,
        (4, 6),
        "maps with channels last [H, W, C] of shape (4, 6, 8)",
    ),
    ({"feature_layout": "tokens"}, (17, 8), Tokens, 8, 17, None, "tokens [N, D] of shape (17, 8)"),
    (
        {"feature_layout": "tokens", "token_grid": (2, 8), "prefix_tokens": 1},
        (17, 8),
        Tokens,
        8,
        16,
        (2, 8),
        "tokens [N, D] of shape (17, 8), 1 of them before a grid of 2x8",
    ),
    (
        {"feature_layout": "tokens", "token_grid": (4, 4)},
        (16, 8),
        Tokens,
        8,
        16,
        (4, 4),
        "tokens [N, D] of shape (16, 8), in a grid of 4x4",
    ),
    ({"feature_layout": "vectors"}, (10,), Vectors, 10, 1, None, "vectors [C] of shape (10,)"),
]


@pytest.mark.parametrize(("stated", "shape", "layout", "channels", "positions", "grid", "words"), STATED)
def test_a_block_states_the_layout(
    stated: dict[str, Any],
    shape: tuple[int, ...],
    layout: type,
    channels: int,
    positions: int,
    grid: tuple[int, int] | None,
    words: str,
) -> None:
    # Also of what lies in a network, which is copied to look at it.
    network = nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, shape) if len(shape) > 1 else nn.Identity(), stating(**stated)
    )
    image = (math.prod(shape), 1, 1)
    for found in (layout_of(stating(**stated), "block", shape), feature_shapes(network, image)[-1]):
        assert type(found) is layout
        assert found == shape
        assert (found.channels, found.positions, found.grid, found.describe()) == (channels, positions, grid, words)
        assert pickle.loads(pickle.dumps(found)).describe() == words


@pytest.mark.parametrize(
    ("stated", "shape", "words"),
    [
        (
            {"feature_layout": "nhwc"},
            (4, 6, 8),
            "states feature_layout='nhwc'; expected one of vectors, tokens, maps, c",
        ),
        (
            {"feature_layout": "tokens"},
            (4, 6, 8),
            r"'tokens', but gives features of shape (4, 6, 8): expected tokens [N, D]",
        ),
        (
            {"feature_layout": "channels_last"},
            (17, 8),
            "shape (17, 8): expected maps with channels last [H, W, C]; correct",
        ),
        (
            {"feature_layout": "tokens", "token_grid": (4, 4)},
            (17, 8),
            "prefix_tokens=0 and token_grid=(4, 4), but gives 17 tokens: expected prefix_tokens + height * width",
        ),
        (
            {"feature_layout": "tokens", "prefix_tokens": 18},
            (17, 8),
            "prefix_tokens=18 and token_grid=None, but gives 17",
        ),
    ],
)
def test_a_layout_that_cannot_be_is_refused(stated: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(RecipeError) as raised:
        layout_of(stating(**stated), "patches", shape)
    assert str(raised.value).startswith("backbone: block 'patches' ")
    assert words in str(raised.value)


OWN = """
from torch import nn


class LikeSwin(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.patches = nn.Conv2d(channels, 8, 2, stride=2)

    def forward(self, images):
        return self.patches(images).permute(0, 2, 3, 1)


class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(8, classes)

    def forward(self, maps):
        return self.linear(maps.mean(dim=(1, 2)))


def network(num_classes, image_shape, stated=None):
    patches = LikeSwin(image_shape[0])
    if stated is not None:
        patches.feature_layout = stated
    return nn.Sequential(patches, Head(num_classes))
"""


def test_channels_last_that_is_not_stated_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path / 'own.py'}:network"
    with pytest.raises(RecipeError) as raised:
        call_own(name, 10, (3, 8, 8), {})
    assert f"backbone.name={name}: child '0' gives (4, 4, 8), whose first axis is the height" in str(raised.value)
    assert 'set feature_layout = "channels_last" on it' in str(raised.value)
    network = call_own(name, 10, (3, 8, 8), {"stated": "channels_last"})
    assert [type(shape) for shape in feature_shapes(network, (3, 8, 8))] == [ChannelsLast, Vectors]


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
