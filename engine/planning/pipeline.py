"""The bound of a full pipeline: the step of a team whose learners have so many devices.

The calls of several steps are laid over time as a runtime runs them: each learner in the order of the program, a call
as soon as its device is free and what it takes has been given. Messages take no time here.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.methods import Team
from engine.partition import balance
from engine.phases import PHASES
from engine.planning.sizes import LearnerSize
from engine.program import SOURCE

# What is left of the filling of a pipeline after so many steps for each learner is below a thousandth.
_STEPS_PER_LEARNER = 4


def grouped(sizes: Sequence[LearnerSize], devices: int) -> tuple[tuple[str, ...], ...]:
    """Return which learners share a device, consecutive ones, so that the busiest device has the least to do.

    Args:
        sizes: of all learners, in the order of the team.
        devices: how many there are; those beyond the number of learners stay unused.
    """
    count = min(devices, len(sizes))

    def seconds(part: int, start: int, stop: int) -> float:
        return sum(size.seconds for size in sizes[start:stop])

    inner = balance(seconds, len(sizes), count)
    names = [size.name for size in sizes]
    return tuple(tuple(names[start:stop]) for start, stop in zip((0, *inner), (*inner, len(names)), strict=True))


def step_seconds(team: Team, sizes: Sequence[LearnerSize], groups: Sequence[Sequence[str]]) -> float:
    """Return the modelled seconds from one step to the next in a full pipeline.

    Args:
        team: its programs.
        sizes: of all learners.
        groups: which learners share a device.
    """
    device = {name: number for number, group in enumerate(groups) for name in group}
    by_name = {size.name: size for size in sizes}
    free = [0.0] * len(groups)
    ready = dict.fromkeys(by_name, 0.0)
    ends: list[float] = []
    cycle = len(team.training)
    warm = _STEPS_PER_LEARNER * len(sizes) // cycle * cycle + cycle
    for step in range(2 * warm):
        given: dict[str, float] = {}
        end = 0.0
        for call in team.program(step).calls:
            if call.learner == SOURCE:
                given |= dict.fromkeys(call.gives, 0.0)
                continue
            place = device[call.learner]
            start = max([free[place], ready[call.learner], *(given[name] for name in call.takes)])
            end = start + call_seconds(by_name[call.learner], call.phase)
            free[place] = ready[call.learner] = end
            given |= dict.fromkeys(call.gives, end)
        ends.append(max(end, *ready.values()))
    return (ends[-1] - ends[warm - 1]) / warm


def call_seconds(size: LearnerSize, phase: str) -> float:
    """Return the modelled seconds of one phase of a learner; 0 for those in which no network runs."""
    forward, backward = size.forward_seconds, size.seconds - size.forward_seconds
    cost = PHASES[phase].cost
    if cost is None:
        return 0.0
    share = size.trunk if cost.part == "trunk" else 1 - size.trunk
    return (forward if cost.direction == "forward" else backward) * share
