"""A segment: the consecutive blocks of a backbone that one learner trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from engine.backbones import feature_layout
from engine.data import Facts
from engine.objectives import Objective
from engine.recipes import Recipe

Origin = tuple[int, str]
"""Seed and stream from which a learner's random numbers follow."""


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks [start, stop) of a backbone.

    Attributes:
        index: j = 0..K-1.
        count: K.
        start: first block.
        stop: block after the last.
        features: shape of its output without the batch axis, such as (C, H, W), or (classes,) for the last; see
            `engine.backbones.feature_layout`.
        final_channels: channels of the last features before the classifier.
        evaluation_features: as ``features``, for the largest image that is evaluated; None where it is the same.
    """

    index: int
    count: int
    start: int
    stop: int
    features: tuple[int, ...]
    final_channels: int
    evaluation_features: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the learner that trains it, and of its random stream."""
        return f"segment{self.index}"

    @property
    def is_last(self) -> bool:
        """Whether it ends with the classifier."""
        return self.index == self.count - 1


SegmentObjective = Callable[[Recipe, Facts, Segment, nn.Sequential, Origin], Objective]
"""Makes what the learner of a segment minimises, of recipe, facts, segment, the whole network and the learner's origin.

For a segment without blocks, [stop, stop), it is the local loss of a segment that ends there, without anything inside:
what that costs may depend on index, count and the shape of the features, not on which block gives them.
"""


def segment_of(shapes: tuple[tuple[int, ...], ...], index: int, count: int, start: int, stop: int) -> Segment:
    """Return segment ``index`` of ``count``, the blocks [start, stop), of a network whose blocks give these shapes.

    Args:
        shapes: of `engine.backbones.feature_shapes`.
        index: from 0.
        count: K.
        start: first block.
        stop: block after the last, at least 1.
    """
    return Segment(index, count, start, stop, shapes[stop - 1], feature_layout(shapes[-2]).channels)
