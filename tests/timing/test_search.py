"""Does the search find the cut that trying all finds, though it measures few segments and its estimates mislead?"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from engine.timing import Place, search


class Machine:
    """Segments that take known times, none of which is the sum of its blocks.

    Args:
        seed: of the times.
        units: blocks.
        speeds: how fast the machine is at each call, in turn.
    """

    def __init__(self, seed: int, units: int, speeds: Sequence[float] = (1.0,)) -> None:
        draws = random.Random(seed)
        self.units = units
        self.blocks = [draws.uniform(1, 10) for _ in range(units)]
        self.auxiliary = [draws.uniform(1, 6) for _ in range(units - 1)] + [0.0]
        self.saved = [draws.uniform(0.9, 1.0) for _ in range(units)]
        self.timed: list[Place] = []
        self._speeds = itertools.cycle(speeds)

    def estimate(self, part: int, start: int, stop: int) -> float:
        # Of another unit than seconds, too: only proportions are meant.
        return 3.0 * (sum(self.blocks[start:stop]) + self.auxiliary[stop - 1])

    def seconds(self, part: int, start: int, stop: int) -> float:
        return self.saved[start] * self.estimate(part, start, stop) / 3.0

    def time(self, places: Sequence[Place], rounds: int) -> dict[Place, float]:
        assert rounds >= 3
        self.timed += places
        speed = next(self._speeds)
        return {place: self.seconds(*place) / speed for place in places}

    def slowest(self, inner: Sequence[int]) -> float:
        bounds = (0, *inner, self.units)
        return max(self.seconds(part, *each) for part, each in enumerate(itertools.pairwise(bounds)))

    def best(self, parts: int) -> float:
        return min(map(self.slowest, itertools.combinations(range(1, self.units), parts - 1)))


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_the_chosen_cut_is_as_good_as_the_best(seed: int, parts: int) -> None:
    machine = Machine(seed, 16)
    chosen, cost = search(machine.estimate, machine.units, parts, machine.time, math.inf)
    assert machine.slowest(chosen) <= 1.03 * machine.best(parts)
    # A tenth of all segments at most.
    assert len(set(machine.timed)) < 40
    # What was measured is what is said.
    assert cost(0, 0, chosen[0]) == pytest.approx(machine.seconds(0, 0, chosen[0]))


def test_a_machine_whose_speed_changes_misleads_nobody() -> None:
    machine = Machine(1, 16, speeds=(1.0, 0.5, 1.5, 0.8))
    chosen, _ = search(machine.estimate, machine.units, 3, machine.time, math.inf)
    assert machine.slowest(chosen) <= 1.03 * machine.best(3)


def test_without_time_the_estimated_cut_is_measured_and_taken() -> None:
    machine = Machine(2, 16)
    chosen, _ = search(machine.estimate, machine.units, 3, machine.time, 0.0)
    assert len(machine.timed) == 3
    assert machine.timed == list(zip(range(3), (0, *chosen), (*chosen, 16), strict=True))


def test_segments_that_do_not_fit_are_passed_over() -> None:
    machine = Machine(3, 8)

    def time(places: Sequence[Place], rounds: int) -> dict[Place, float]:
        return {
            place: math.inf if place[0] == 0 and place[2] > 2 else seconds
            for place, seconds in machine.time(places, rounds).items()
        }

    chosen, _ = search(machine.estimate, machine.units, 2, time, math.inf)
    assert chosen[0] <= 2


def test_as_many_segments_as_blocks_leave_no_choice() -> None:
    machine = Machine(4, 4)
    assert search(machine.estimate, machine.units, 4, machine.time, math.inf)[0] == (1, 2, 3)
