"""Feature layouts: how the axes of what a block gives are ordered, asked by all that is put behind a block."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import nn

from engine.backbones.shapes import Shape, feature_shapes
from engine.errors import RecipeError


@dataclass(frozen=True)
class FeatureLayout(ABC):
    """What a block gives for one image.

    Attributes:
        shape: without the batch axis.
    """

    words: ClassVar[str]
    """The layout as messages name it."""
    shape: Shape

    @property
    @abstractmethod
    def channels(self) -> int:
        """Numbers at each position."""

    @property
    def positions(self) -> int:
        """How many positions there are; 1 where features have none."""
        return math.prod(self.shape) // self.channels

    @property
    def grid(self) -> tuple[int, int] | None:
        """Height and width of the positions; None where the shape does not tell that they form a grid."""
        return None


class Maps(FeatureLayout):
    """Feature maps ``[C, H, W]``."""

    words = "maps [C, H, W]"

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0]

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W)."""
        return self.shape[1], self.shape[2]


class Tokens(FeatureLayout):
    """Tokens ``[N, D]``, of which the shape tells neither the grid nor how many at the front stand for no position."""

    words = "tokens [N, D]"

    @property
    def channels(self) -> int:
        """D."""
        return self.shape[1]


class Vectors(FeatureLayout):
    """A vector ``[C]``, without positions."""

    words = "vectors [C]"

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0]


class OtherFeatures(FeatureLayout):
    """Features of no axis, or of more than three, which nothing but the blocks of a network takes."""

    words = "features of an unknown layout"

    @property
    def channels(self) -> int:
        """The first axis, as torch orders axes."""
        return self.shape[0] if self.shape else 1


_BY_AXES: dict[int, type[FeatureLayout]] = {1: Vectors, 2: Tokens, 3: Maps}

_Wanted = TypeVar("_Wanted", bound=FeatureLayout)


class LayoutError(RecipeError):
    """An auxiliary network does not take features of this layout.

    Args:
        found: what it would get.
        taker: what does not take it, such as "the linear head".
        wanted: the layouts that it takes.
    """

    def __init__(self, found: FeatureLayout, taker: str, wanted: tuple[type[FeatureLayout], ...]) -> None:
        self.found = f"{found.words} of shape {found.shape}"
        self.takes = f"{taker} takes {' or '.join(layout.words for layout in wanted)}"
        self.wanted = wanted
        super().__init__(f"{self.takes}, but the features are {self.found}: choose features that it takes")


def feature_layout(shape: Shape) -> FeatureLayout:
    """Return the layout of features, by the number of their axes.

    Args:
        shape: without the batch axis.
    """
    return _BY_AXES.get(len(shape), OtherFeatures)(tuple(shape))


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


@contextmanager
def naming_block(
    block: str, network: nn.Sequential, image_shape: tuple[int, int, int], there: str, otherwise: str
) -> Iterator[None]:
    """Let a `LayoutError` inside say which block gives the features, and what to do.

    Args:
        block: name of the block.
        network: the whole network.
        image_shape: (C, H, W) of one image.
        there: what to do if other blocks give features that are taken, such as "cut after one of these"; "" if what
            is taken cannot be chosen.
        otherwise: what to do in any case, such as "choose method.kind=end_to_end".

    Raises:
        RecipeError: instead of the `LayoutError`.
    """
    try:
        yield
    except LayoutError as error:
        shapes = feature_shapes(network, image_shape)[:-2]
        fit = [
            name
            for name, shape in zip(network._modules, shapes, strict=False)
            if isinstance(feature_layout(shape), error.wanted)
        ]
        remedy = f"{there} ({', '.join(fit)}), or {otherwise}" if there and fit else otherwise
        raise RecipeError(f"block {block!r} gives {error.found}, but {error.takes}: {remedy}") from None
