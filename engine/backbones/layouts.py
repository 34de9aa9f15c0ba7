"""Feature layouts: how the axes of what a block gives are ordered, asked by all that is put behind a block.

A block states the layout of its features by attributes:

    feature_layout   "maps", "channels_last", "tokens" or "vectors"
    token_grid       of tokens: (height, width) of the grid that they form, row by row
    prefix_tokens    of tokens: how many stand before that grid, such as 1 for a class token; 0 unless given

A block that states nothing gives what torch's own layers take with so many axes: vectors, tokens or maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

from torch import nn

from engine.errors import RecipeError

Shape = tuple[int, ...]
Grid = tuple[int, int]


class FeatureLayout(Shape):
    """The shape of what a block gives for one image, without the batch axis, and what its axes mean.

    This class itself is of features of no axis, or of more than three, which nothing but the blocks of a network takes.
    """

    words: ClassVar[str] = "features of an unknown layout"
    """The layout as messages name it."""

    @property
    def channels(self) -> int:
        """Numbers at each position; the first axis, as torch orders axes."""
        return self[0] if self else 1

    @property
    def positions(self) -> int:
        """How many positions there are; 1 where features have none."""
        return math.prod(self) // self.channels

    @property
    def grid(self) -> Grid | None:
        """Height and width of the positions; None where it is not stated that they form a grid."""
        return None

    def describe(self) -> str:
        """Return layout and shape in words."""
        return f"{self.words} of shape {tuple(self)}"


class Maps(FeatureLayout):
    """Feature maps ``[C, H, W]``."""

    words = "maps [C, H, W]"

    @property
    def grid(self) -> Grid:
        """(H, W)."""
        return self[1], self[2]


class ChannelsLast(FeatureLayout):
    """Feature maps ``[H, W, C]``, as Swin transformers give them."""

    words = "maps with channels last [H, W, C]"

    @property
    def channels(self) -> int:
        """C."""
        return self[2]

    @property
    def grid(self) -> Grid:
        """(H, W)."""
        return self[0], self[1]


class Tokens(FeatureLayout):
    """Tokens ``[N, D]``: those that stand for no position first, then those of a grid, row by row, if it is stated."""

    words = "tokens [N, D]"
    prefix_tokens: int = 0
    token_grid: Grid | None = None

    @property
    def channels(self) -> int:
        """D."""
        return self[1]

    @property
    def positions(self) -> int:
        """All tokens but those at the front that stand for no position."""
        return self[0] - self.prefix_tokens

    @property
    def grid(self) -> Grid | None:
        """Height and width of the tokens behind the first ``prefix_tokens``; None where no grid is stated."""
        return self.token_grid

    def describe(self) -> str:
        """Return layout, shape and what is stated of positions in words."""
        before = f", {self.prefix_tokens} of them before" if self.prefix_tokens else ", in"
        stated = f"{before} a grid of {self.token_grid[0]}x{self.token_grid[1]}" if self.token_grid else ""
        return f"{super().describe()}{stated}"


class Vectors(FeatureLayout):
    """A vector ``[C]``, without positions."""

    words = "vectors [C]"


_STATED: Mapping[str, tuple[type[FeatureLayout], int]] = {
    "vectors": (Vectors, 1),
    "tokens": (Tokens, 2),
    "maps": (Maps, 3),
    "channels_last": (ChannelsLast, 3),
}
_UNSTATED: Mapping[int, type[FeatureLayout]] = {1: Vectors, 2: Tokens, 3: Maps}

_Wanted = TypeVar("_Wanted", bound=FeatureLayout)


class LayoutError(RecipeError):
    """An auxiliary network does not take features of this layout.

    Args:
        found: what it would get.
        taker: what does not take it, such as "the linear head".
        wanted: the layouts that it takes.
    """

    def __init__(self, found: FeatureLayout, taker: str, wanted: tuple[type[FeatureLayout], ...]) -> None:
        # All three go to the base class, so the error survives being pickled across processes.
        super().__init__(found, taker, wanted)
        self.found = found.describe()
        self.takes = f"{taker} takes {' or '.join(layout.words for layout in wanted)}"
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.takes}, but the features are {self.found}: choose features that it takes"


def feature_layout(shape: Shape) -> FeatureLayout:
    """Return the layout of features: the stated one of `engine.backbones.feature_shapes`, else by the number of axes.

    Args:
        shape: without the batch axis.
    """
    return shape if isinstance(shape, FeatureLayout) else _UNSTATED.get(len(shape), FeatureLayout)(shape)


def stated_by(block: nn.Module) -> str | None:
    """Return the layout that a block states for its features; None where it states none."""
    return getattr(block, "feature_layout", None)


def layout_of(block: nn.Module, name: str, shape: Shape) -> FeatureLayout:
    """Return the layout of what a block gives, as the block states it.

    Args:
        block: which may state a layout, see above.
        name: of the block, for messages.
        shape: of what it gives, without the batch axis.

    Raises:
        RecipeError: it states a layout that there is not, or one that its features do not have.
    """
    stated = stated_by(block)
    if stated is None:
        return feature_layout(shape)
    if stated not in _STATED:
        raise RecipeError(
            f"backbone: block {name!r} states feature_layout={stated!r}; expected one of {', '.join(_STATED)}"
        )
    layout, axes = _STATED[stated]
    if len(shape) != axes:
        raise RecipeError(
            f"backbone: block {name!r} states feature_layout={stated!r}, but gives features of shape {shape}: expected "
            f"{layout.words}; correct feature_layout of the block"
        )
    found = layout(shape)
    if isinstance(found, Tokens):
        grid, before = getattr(block, "token_grid", None), getattr(block, "prefix_tokens", 0)
        if grid is not None:
            found.token_grid = int(grid[0]), int(grid[1])
        found.prefix_tokens = int(before)
        if not 0 <= before <= shape[0] or (grid is not None and before + math.prod(grid) != shape[0]):
            raise RecipeError(
                f"backbone: block {name!r} states prefix_tokens={before} and token_grid={grid}, but gives {shape[0]} "
                "tokens: expected prefix_tokens + height * width; correct them in the block"
            )
    return found


def require_layout(shape: Shape, taker: str, *wanted: type[_Wanted]) -> _Wanted:
    """Return the layout of features that must have one of these.

    Args:
        shape: of the features, without the batch axis.
        taker: what takes them, such as "the linear head".
        wanted: the layouts that it takes.

    Raises:
        LayoutError: they have another one.
    """
    found = feature_layout(shape)
    for layout in wanted:
        if isinstance(found, layout):
            return found
    raise LayoutError(found, taker, wanted)
