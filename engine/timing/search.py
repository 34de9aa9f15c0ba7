"""The search for the cut whose slowest segment is fastest, with as few segments timed as possible.

A sum of blocks only estimates a segment, but says which segments are worth running. So the best cut is looked for with
measured times where there are some and estimates elsewhere, what it lacks is measured, and it is looked for again until
it lacks nothing. Estimates are corrected by what was measured, and are taken for a little less than they say: a cut is
passed over only if it would have to be better than its estimate by more than that.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from engine.partition import Cost, balance

Place = tuple[int, int, int]
"""A segment: its part of the network, from 0, its first unit, and the unit after its last."""

Timed = Callable[[Sequence[Place], int], Mapping[Place, float]]
"""Times segments together: the median seconds of each over at least so many rounds."""

# By how much an estimate may be too long for its cut to be found all the same.
_OPTIMISM = 0.96
_ROUNDS, _LAST_ROUNDS = 3, 5
# Cuts that may have been told apart wrongly are timed once more, side by side.
_NEARLY, _MOST_FINALISTS = 1.05, 4


def search(estimate: Cost, units: int, parts: int, timed: Timed, budget: float) -> tuple[tuple[int, ...], Cost]:
    """Return the P - 1 inner boundaries of the best cut that was found, and the costs that are known then.

    Args:
        estimate: of the seconds of a segment.
        units: N, at least P.
        parts: P, at least 2.
        timed: measures segments.
        budget: seconds after which no further cut is tried; the cut that is chosen has been measured in any case.

    Returns:
        the boundaries, and the cost of any segment: measured if it was, else the corrected estimate.
    """
    times: dict[Place, float] = {}
    started = time.perf_counter()
    while True:
        inner = balance(_cost(estimate, times, _OPTIMISM), units, parts)
        missing = [place for place in _places(inner, units) if place not in times]
        if not missing or (times and time.perf_counter() - started > budget):
            break
        times |= _beside_earlier(times, missing, timed)
    complete = sorted(_complete(times, units, parts), key=lambda cut: _slowest(cut, units, times))
    least = _slowest(complete[0], units, times)
    near = [cut for cut in complete if _slowest(cut, units, times) <= _NEARLY * least][:_MOST_FINALISTS]
    if len(near) > 1:
        times |= timed(list(dict.fromkeys(place for cut in near for place in _places(cut, units))), _LAST_ROUNDS)
    chosen = min(near or complete[:1], key=lambda cut: _slowest(cut, units, times))
    return chosen, _cost(estimate, times, 1.0)


def _beside_earlier(times: Mapping[Place, float], missing: Sequence[Place], timed: Timed) -> dict[Place, float]:
    """Return the seconds of further segments as if they had been timed together with the earlier ones.

    One of those is timed again beside them: a machine may be faster or slower than it was a moment ago.
    """
    anchor = max((place for place in times if math.isfinite(times[place])), key=lambda each: times[each], default=None)
    if anchor is None:
        return dict(timed(missing, _ROUNDS))
    found = dict(timed([anchor, *missing], _ROUNDS))
    again = found.pop(anchor)
    drift = times[anchor] / again if math.isfinite(again) else 1.0
    return {place: drift * seconds for place, seconds in found.items()}


def _cost(estimate: Cost, times: Mapping[Place, float], optimism: float) -> Cost:
    """Return what segments cost: measured where they were, else estimated, in proportion to what was measured."""
    ratios = [seconds / estimate(*place) for place, seconds in times.items() if math.isfinite(seconds)]
    factor = optimism * (statistics.median(ratios) if ratios else 1.0)

    def cost(part: int, start: int, stop: int) -> float:
        known = times.get((part, start, stop))
        return factor * estimate(part, start, stop) if known is None else known

    return cost


def _places(inner: Sequence[int], units: int) -> list[Place]:
    return [(part, *each) for part, each in enumerate(pairwise((0, *inner, units)))]


def _slowest(inner: Sequence[int], units: int, times: Mapping[Place, float]) -> float:
    return max(times[place] for place in _places(inner, units))


def _complete(times: Mapping[Place, float], units: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Yield the inner boundaries of all cuts of which every segment was timed."""

    def continued(part: int, start: int) -> Iterator[tuple[int, ...]]:
        for each, first, stop in times:
            if (each, first) == (part, start):
                if part < parts - 1:
                    yield from ((stop, *rest) for rest in continued(part + 1, stop))
                elif stop == units:
                    yield ()

    return continued(0, 0)
