"""The division of a sequence into consecutive parts whose costliest part is as cheap as possible."""

from __future__ import annotations

import math
from collections.abc import Callable

Cost = Callable[[int, int, int], float]
"""Cost of part p = 0..P-1 if it holds the units [start, stop): ``cost(p, start, stop)``."""


def balance(cost: Cost, units: int, parts: int) -> tuple[int, ...]:
    """Return where to divide units 0..N-1 into P parts of at least one unit each: the P - 1 inner boundaries.

    The largest cost is the least that any division has; of the divisions with that largest cost, the one with the least
    sum; of those, the one with the earliest boundaries. Exact, by dynamic programming in O(P N^2) steps, with each cost
    asked once. Costs may be any numbers and depend on the part's place, as auxiliary networks do.

    Args:
        cost: of a part; see `Cost`.
        units: N, at least P.
        parts: P, at least 1.
    """
    assert 1 <= parts <= units, f"{parts} parts of {units} units"
    costs = {
        (part, start, stop): cost(part, start, stop)
        for part in range(parts)
        for start, stop in _places(part, units, parts)
    }
    largest = _solve(costs, units, parts, max, math.inf)[0]
    return _solve(costs, units, parts, lambda before, own: before + own, largest)[1]


def _places(part: int, units: int, parts: int) -> list[tuple[int, int]]:
    """Return the units that a part can hold, so that every other part has at least one."""
    last = part == parts - 1
    stops = [units] if last else range(part + 1, units - (parts - part - 1) + 1)
    starts = [0] if part == 0 else range(part, units)
    return [(start, stop) for stop in stops for start in starts if start < stop]


def _solve(
    costs: dict[tuple[int, int, int], float],
    units: int,
    parts: int,
    add: Callable[[float, float], float],
    limit: float,
) -> tuple[float, tuple[int, ...]]:
    """Return the least total of costs not above a limit, and the boundaries that have it."""
    # By the unit at which the parts so far stop: their total and inner boundaries.
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for part in range(parts):
        found: dict[int, tuple[float, tuple[int, ...]]] = {}
        for start, stop in _places(part, units, parts):
            own = costs[part, start, stop]
            if start not in best or own > limit:
                continue
            before, boundaries = best[start]
            total = add(before, own) if part else own
            candidate = (total, (*boundaries, start) if part else ())
            if stop not in found or candidate < found[stop]:
                found[stop] = candidate
        best = found
    return best[units]
