"""Costs of any segment of a network whose blocks are run again on the way back.

With groups g = 1..G of units, i_g the bytes of what enters group g, s_g those that its units save beyond that, o_g
those of what it gives if it saves that, and A what head and decoder save, the most that is kept at one time is

    S = max(i_1 + ... + i_G + o_G + A, max over g of i_1 + ... + i_g + s_g - o_g)

because a block that saves its own output mostly does so for its last operation, which is done when the group is run
again. The last group of the last segment is not run again: it counts as saved from the start.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate, pairwise

from engine.partition.segment_costs import CostProfile


class RecomputedCosts:
    """Costs of any segment, from those without recomputation.

    Args:
        profile: of the network.
        blocks: units of a group, counted from the first of each segment; 0 where all is kept.
    """

    def __init__(self, profile: CostProfile, blocks: int) -> None:
        self._profile, self._blocks = profile, blocks
        self._bodies: dict[tuple[int, int], tuple[int, int]] = {}

    @cached_property
    def _saved(self) -> list[int]:
        return [0, *accumulate(unit.saved for unit in self._profile.looks)]

    @cached_property
    def _shared(self) -> list[int]:
        looks = self._profile.looks
        both = [b.input_bytes * (a.output_saved and b.input_saved) for a, b in pairwise(looks)]
        return [0, *accumulate(both)]

    @cached_property
    def _forward(self) -> list[float]:
        return [0.0, *accumulate(unit.forward_seconds for unit in self._profile.looks)]

    def saved(self, part: int, start: int, stop: int) -> float:
        """Return the most bytes that are kept at one time of segment ``part`` if it holds the units [start, stop)."""
        if not self._blocks:
            return self._profile.saved(part, start, stop)
        if (start, stop) not in self._bodies:
            self._bodies[start, stop] = self._body(start, stop)
        most, after = self._bodies[start, stop]
        return max(most, after + self._profile.auxiliary(part, stop).saved)

    def _body(self, start: int, stop: int) -> tuple[int, int]:
        """Return the most bytes that the units [start, stop) keep, and how many when the forward pass has ended."""
        looks = self._profile.looks
        entered, most, after = 0, 0, 0
        for first in range(start, stop, self._blocks):
            end = min(first + self._blocks, stop)
            entered += looks[first].input_bytes
            inside = self._saved[end] - self._saved[first] - (self._shared[end - 1] - self._shared[first])
            inside -= looks[first].input_bytes * looks[first].input_saved
            after = self._output_bytes(end)
            most = max(most, entered + inside - (after if end < self._profile.units else 0))
        return most, entered + after

    def _output_bytes(self, stop: int) -> int:
        """Return the bytes of what unit ``stop - 1`` gives, if it makes autograd keep that."""
        last = self._profile.looks[stop - 1]
        return last.output.nbytes * last.output_saved

    def seconds(self, part: int, start: int, stop: int) -> float:
        """Return the modelled seconds of a step of segment ``part`` if it holds the units [start, stop)."""
        once = self._profile.seconds(part, start, stop)
        if not self._blocks:
            return once
        # The last group of the last segment is not run again.
        kept = stop - start - (stop - start - 1) // self._blocks * self._blocks if stop == self._profile.units else 0
        return once + self._forward[stop - kept] - self._forward[start]
