"""Cut rules: the blocks after which a network is cut into segments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from engine.errors import RecipeError
from engine.recipes.problems import three_nearest

Table = dict[int, str]

# "stage.block" as in InfoPro's configs.py: cut after that block, both as in `layer<stage>_<block>`; 0.0 is the stem.
_PUBLISHED: dict[str, Table] = {
    "resnet32": {
        2: "2.1",
        3: "1.4 2.4",
        4: "1.2 2.1 3.0",
        8: "1.0 1.2 1.4 2.1 2.3 3.0 3.2",
        16: "0.0 1.0 1.1 1.2 1.3 1.4 2.0 2.1 2.2 2.3 2.4 3.0 3.1 3.2 3.3",
    },
    "resnet110": {
        2: "2.8",
        3: "1.17 2.17",
        4: "1.11 2.7 3.3",
        8: "1.4 1.11 2.0 2.7 2.14 3.3 3.10",
        16: "1.1 1.4 1.7 1.10 1.13 1.16 2.1 2.4 2.7 2.11 2.15 3.1 3.5 3.9 3.13",
    },
}
# The starred variants, equal in memory; that of DeepLabV3 is from the code. ResNet-32 is not InfoPro's but ContSup's.
_PUBLISHED_MEMORY: dict[str, Table] = {
    "resnet32": {2: "1.3", 4: "1.2 1.4 2.2", 8: "1.1 1.2 1.3 2.1 2.2 3.1 3.2"},
    "resnet110": {2: "1.14", 3: "1.9 2.2", 4: "1.6 1.14 2.8"},
    "resnet101": {2: "2.0"},
    "resnet152": {2: "2.5"},
    "resnext101_32x8d": {2: "2.2"},
    "deeplabv3_resnet101": {2: "3.12"},
}
_PUBLISHED_MEMORY_STL: dict[str, Table] = {"resnet110": {2: "1.14", 3: "1.8 2.1", 4: "1.6 1.14 2.8"}}
_STL_HEIGHT = 96


def cut_points(network: nn.Sequential) -> tuple[str, ...]:
    """Return the names of the children after which a segment can end; the last block stays with the classifier."""
    return tuple(network._modules)[:-2]


def cut(
    network: nn.Sequential,
    num_segments: int,
    cuts: str | Sequence[str],
    name: str,
    image_shape: tuple[int, int, int],
) -> tuple[tuple[int, int], ...]:
    """Return the segments' children as ``[start, stop)`` indices, in order; the last stop is ``len(network)``.

    Args:
        network: the whole network, its last child the classifier.
        num_segments: K, from 1 to the number of blocks; K = 1 is the whole network, whatever ``cuts`` says.
        cuts: ``balanced_layers`` puts boundary k at round(k N / K) of N blocks; ``published`` (equal layers) and
            ``published_memory`` are InfoPro's tables; otherwise the K - 1 names of the blocks to cut after. What
            balances memory or time depends on more than the network, and comes here as names.
        name: the backbone's name, which the tables go by.
        image_shape: (C, H, W); ResNet-110's memory table for STL-10 holds for images of 96 pixels.

    Raises:
        RecipeError: K is impossible, no such table is published, or names are wrong, doubled or out of order.
    """
    blocks = len(network) - 1
    if not 1 <= num_segments <= blocks:
        raise RecipeError(
            f"method.num_segments={num_segments}, but {name} has {blocks} blocks that can end a segment: "
            f"use 1..{blocks}."
        )
    if num_segments == 1 and isinstance(cuts, str):
        return ((0, len(network)),)
    if cuts == "balanced_layers":
        inner = [round(k * blocks / num_segments) for k in range(1, num_segments)]
    elif isinstance(cuts, str):
        inner = _boundaries(network, _table_cuts(cuts, name, num_segments, image_shape), num_segments, name)
    else:
        inner = _boundaries(network, cuts, num_segments, name)
    return tuple(pairwise([0, *inner, len(network)]))


def _table_cuts(cuts: str, name: str, num_segments: int, image_shape: tuple[int, int, int]) -> list[str]:
    tables = {"published": _PUBLISHED, "published_memory": _PUBLISHED_MEMORY}.get(cuts)
    if tables is None:
        raise RecipeError(
            f"method.cuts={cuts}: expected balanced_layers, published, published_memory, or a list of block names."
        )
    if cuts == "published_memory" and image_shape[1] == _STL_HEIGHT:
        tables = tables | _PUBLISHED_MEMORY_STL
    row = tables.get(name, {}).get(num_segments)
    if row is None:
        known = "; ".join(f"{other}: {', '.join(map(str, table))}" for other, table in tables.items())
        raise RecipeError(
            f"method.cuts={cuts}: no cuts of {name} into {num_segments} segments are published. "
            f"Published numbers of segments are {known}. Use method.cuts=balanced_layers, balanced_memory or "
            "balanced_time."
        )
    return ["stem" if point == "0.0" else f"layer{point.replace('.', '_')}" for point in row.split()]


def _boundaries(network: nn.Sequential, cuts: Sequence[str], num_segments: int, name: str) -> list[int]:
    if len(cuts) != num_segments - 1:
        known = len(cuts) < len(network) - 1
        raise RecipeError(
            f"method.cuts={','.join(cuts)}: {len(cuts)} blocks are named, but method.num_segments={num_segments} needs "
            f"{num_segments - 1}: name so many{f', or set method.num_segments={len(cuts) + 1}' if known else ''}."
        )
    points = cut_points(network)
    for point in cuts:
        if point not in points:
            raise RecipeError(
                f"method.cuts: {name} cannot be cut after {point!r}. Nearest: {three_nearest(point, points)}. "
                f"Possible are the children from {points[0]} to {points[-1]}."
            )
    inner = [points.index(point) + 1 for point in cuts]
    if any(after <= before for before, after in pairwise(inner)):
        ordered = [points[index - 1] for index in sorted(set(inner))]
        remedy = f"set method.cuts={','.join(ordered)}"
        if len(ordered) < len(cuts):
            remedy = f"name {len(cuts)} different ones, or {remedy} method.num_segments={len(ordered) + 1}"
        raise RecipeError(
            f"method.cuts={','.join(cuts)}: expected each block once, in the order of the network; {remedy}."
        )
    return inner
