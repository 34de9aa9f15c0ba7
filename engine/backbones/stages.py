"""Stages of a network: which blocks belong together."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from engine.backbones.layouts import Shape, feature_layout
from engine.backbones.shapes import feature_shapes
from engine.errors import RecipeError

Stages = tuple[tuple[int, int], ...]

_GROUPS_WITHOUT_REDUCTION = 4


class StageEnd(nn.Sequential):
    """Layers whose last one, a pooling, ends the stage of those before it."""

    ends_stage: bool = True
    """Whether a stage ends with this block, which every branch that repeats the stage keeps."""


def ends_stage(block: nn.Module | None) -> bool:
    """Return whether a block is marked with ``ends_stage = True``; blocks of the user's own may be, too."""
    return bool(getattr(block, "ends_stage", False))


def starts_stage(block: nn.Module) -> bool:
    """Return whether a block is marked with ``starts_stage = True``: it keeps a height that its family lowers there."""
    return bool(getattr(block, "starts_stage", False))


def stages_of(network: nn.Sequential, image_shape: tuple[int, int, int]) -> Stages:
    """Return the stages as ranges ``[start, stop)`` of blocks, in order; the classifier, the last child, is in none.

    A stage starts at a block that lowers the height of its features, or is marked ``starts_stage`` because it
    keeps a height that could be lowered, and after a block marked ``ends_stage``, whose own pooling starts none. The
    stem is part of the first stage: leading blocks that would each be a stage alone join the first stage of several
    blocks. A network that never lowers the resolution, such as a transformer, has four stages of equally many blocks.

    Raises:
        RecipeError: fewer than two blocks before the classifier.
    """
    return stages_by_shapes(network, image_shape, feature_shapes(network, image_shape))


def stages_by_shapes(network: nn.Sequential, image_shape: Shape, shapes: tuple[Shape, ...]) -> Stages:
    """Return `stages_of` a network whose `feature_shapes` are known."""
    blocks = list(network)[:-1]
    if len(blocks) < 2:
        raise RecipeError(
            f"backbone: this network has {len(blocks)} blocks before its classifier, too few for stages. Expected at "
            "least 2: divide it into more children, or choose another backbone."
        )
    inner = (tuple(image_shape), *shapes[:-1])
    starts = {
        index + ends_stage(block)
        for index, (block, (before, after)) in enumerate(zip(blocks, pairwise(inner), strict=True))
        if ends_stage(block) or lowers(before, after) or (starts_stage(block) and _can_be_lowered(before))
    }
    stages = tuple(pairwise(sorted({0, *starts, len(blocks)})))
    if len(stages) == 1:
        groups = min(_GROUPS_WITHOUT_REDUCTION, len(blocks))
        return tuple(pairwise(round(part * len(blocks) / groups) for part in range(groups + 1)))
    alone = [stop - start == 1 and not ends_stage(blocks[start]) for start, stop in stages]
    leading = alone.index(False) if False in alone else len(stages)
    # If hardly anything but such blocks is there, each of them is a stage rather than a part of the stem.
    return stages if leading >= len(stages) - 1 else ((0, stages[leading][1]), *stages[leading + 1 :])


def lowers(before: Shape, after: Shape) -> bool:
    """Return whether a block that takes and gives features of these shapes lowers the height of their grid."""
    taken, given = feature_layout(before).grid, feature_layout(after).grid
    return taken is not None and given is not None and given[0] < taken[0]


def _can_be_lowered(features: Shape) -> bool:
    """Return whether features of a shape lie on a grid of more than one row."""
    grid = feature_layout(features).grid
    return grid is not None and grid[0] > 1
