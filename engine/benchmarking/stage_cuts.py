"""Cuts of a network into the stages of a pipeline: an estimate from the times of the blocks, and what lies around it.

A cut is a list of bounds: the blocks at which stages begin, then the number of blocks. The classifier, the last block,
stays with the one before, as in the engine's own cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from engine.partition import balance


def stage_bounds(seconds: Sequence[float], stages: int) -> list[int]:
    """Return the cut whose slowest stage is as fast as possible, if blocks take these times.

    Args:
        seconds: of each block, at least two.
        stages: at most one less than there are blocks.
    """
    units = [*seconds[:-2], seconds[-2] + seconds[-1]]
    inner = balance(lambda stage, start, stop: sum(units[start:stop]), len(units), stages)
    return [0, *inner, len(seconds)]


def cuts_around(bounds: Sequence[int]) -> list[list[int]]:
    """Return the neighbours of a cut, those that differ least first.

    One bound or several in succession are moved by one block: a stage that is not the slowest may have to move as a
    whole before another one becomes faster. A single bound is moved by up to two.
    """
    reach = 2 if len(bounds) == 3 else 1
    last = len(bounds) - 1
    runs = [(start, start + length) for length in range(1, last) for start in range(1, last - length + 1)]
    moved = [
        [*bounds[:start], *(bound + by for bound in bounds[start:stop]), *bounds[stop:]]
        for start, stop in runs
        for by in range(-reach, reach + 1)
        if by
    ]
    return [each for each in moved if is_cut(each)]


def is_cut(bounds: Sequence[int]) -> bool:
    """Return whether every stage has a block, and the last one the classifier and the block before."""
    return all(start < stop for start, stop in pairwise(bounds)) and (len(bounds) == 2 or bounds[-2] <= bounds[-1] - 2)


def stage_seconds(seconds: Sequence[float], bounds: Sequence[int]) -> list[float]:
    """Return the time of each stage of a cut, if blocks take these times."""
    return [sum(seconds[start:stop]) for start, stop in pairwise(bounds)]
