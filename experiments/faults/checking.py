"""Checks after a training with faults, and what became of each of them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from engine.errors import EXIT_LEARNER_FAILED
from experiments.faults.fault import CUT, DRIVER, FAILING, FLIP, FULL, GCS, KILL, NODE, PAUSE, RAYLET, STOP, Fault
from experiments.faults.training import Ended, Trained

RIGHT, REFUSED, LOST, HUNG, LEFT_OVER, NOT_COME = (
    *("right", "refused clearly", "lost", "hung", "left over", "did not come"),
)
OUTCOMES = (RIGHT, REFUSED, LOST, HUNG, LEFT_OVER, NOT_COME)

_LEARNER_LOST = re.compile(r"learner (\S+): its process (?:(\d+) )?(?:died|made no progress|was ended|is gone)")
_DAMAGED = re.compile(r"step-(\d+): damaged, skipped")
_RAY_LOST = re.compile(r"the private Ray is gone: (?:Ray's (\w+) ended|its first process ended)")


@dataclass(frozen=True)
class Checked:
    """What became of the faults of a training.

    Attributes:
        outcomes: of each fault, in their order; one of `OUTCOMES`.
        seconds_lost: from each fault until its step was reported for good; None where it was reported before.
        problems: in words; empty where all is as it must be.
    """

    outcomes: list[str]
    seconds_lost: list[float | None]
    problems: list[str]


def check(trained: Trained, weights: str) -> Checked:
    """Compare a training with what it must be.

    Right is a fault from which the run has come back by itself, or, where it ended the driver, by the same command
    again. Refused clearly is one that ended the command with an error that says what happened, after which the same
    command went on.

    Args:
        trained: as it was seen.
        weights: digest of those of the same training without a fault.
    """
    hung = [command for command in trained.commands if command.code is None]
    left = [what for command in trained.commands for what in command.left]
    wrong = _wrong_end(trained, weights) + _wrong_observations(trained)
    problems = [f"a command hung for {each.ended - each.started:.0f} s" for each in hung]
    problems += wrong + [f"left over: {what}" for what in left]
    outcomes = []
    for number, fault in enumerate(trained.case.faults):
        if number not in trained.came:
            problems.append(f"did not come: {fault}")
            outcomes.append(NOT_COME)
        elif hung:
            outcomes.append(HUNG)
        elif wrong:
            outcomes.append(LOST)
        elif left:
            outcomes.append(LEFT_OVER)
        else:
            command = _command_of(trained, number)
            refused = fault.victim != DRIVER and command.code not in (0, -9) and _last_in(trained, number, command)
            outcomes.append(REFUSED if refused else RIGHT)
    return Checked(outcomes, [_seconds_lost(trained, number) for number in range(len(outcomes))], problems)


def _command_of(trained: Trained, number: int) -> Ended:
    came = trained.came[number]["time"]
    return next(each for each in reversed(trained.commands) if each.started <= came)


def _last_in(trained: Trained, number: int, command: Ended) -> bool:
    """Tell whether a fault is the last that came in a command, which is the one that ended it."""
    times = [each["time"] for each in trained.came.values() if command.started <= each["time"] <= command.ended]
    return trained.came[number]["time"] >= max(times)


def _wrong_end(trained: Trained, weights: str) -> list[str]:
    found = []
    if trained.summary is None or trained.commands[-1].code != 0:
        found.append(f"not finished: {[(each.code, each.words) for each in trained.commands]}")
    elif trained.summary["weights_sha256"] != weights:
        found.append(f"other weights: {trained.summary['weights_sha256'][:12]}, expected {weights[:12]}")
    for command in trained.commands:
        if command.bug:
            found.append(f"a traceback: {command.words}")
        if command.code not in (0, None) and not _may_end(trained, command):
            found.append(f"a command ended by itself: {command.code} {command.words}")
    return found


def _may_end(trained: Trained, command: Ended) -> bool:
    """Tell whether a fault came that may end a command, which names it unless it was killed itself."""
    inside = [
        trained.case.faults[number]
        for number, came in trained.came.items()
        if command.started <= came["time"] <= command.ended
    ]
    if command.code == -9:
        return any(fault.victim == DRIVER or fault.kind in (CUT, FLIP) for fault in inside)
    ending = [fault for fault in inside if fault.kind in (KILL, STOP, NODE)]
    return command.code == EXIT_LEARNER_FAILED and any(_is_named(fault, command.words) for fault in ending)


def _is_named(fault: Fault, words: str) -> bool:
    # Learners end with their Ray, and may be noticed first.
    return fault.victim in words if fault.victim not in (RAYLET, GCS) else "Ray" in words or "learner " in words


def _wrong_observations(trained: Trained) -> list[str]:
    """Compare the faults that the run has seen with those that came; one may hide another of the same moment.

    That moment ends when a learner is built, be it with its whole team or alone.
    """
    text = trained.log + trained.said
    learners = {(name, int(number or 0)) for name, number in _LEARNER_LOST.findall(text)}
    ray = {name or "first process" for name in _RAY_LOST.findall(text)}
    lives: dict[int, list[int]] = {}
    missed, expected = [], set()
    for number, came in trained.came.items():
        fault = trained.case.faults[number]
        if fault.kind not in (KILL, STOP, NODE):
            continue
        lives.setdefault(came["builds"], []).append(number)
        if fault.victim not in (DRIVER, RAYLET, GCS):
            expected.add((fault.victim, came["pid"]))
        if not _is_seen(trained, number, fault, learners, ray):
            missed.append(number)
    found = [
        f"not seen: {trained.case.faults[number]} (process {trained.came[number]['pid']})"
        for number in missed
        if set(lives[trained.came[number]["builds"]]) <= set(missed)
    ]
    names = {name for name, _ in expected}
    for name, process in sorted(learners):
        if (name, process) not in expected and not (process == 0 and name in names):
            found.append(f"seen, but did not come: learner {name}, process {process or 'unknown'}")
    for name in sorted(ray - {fault.victim for fault in trained.case.faults}):
        found.append(f"seen, but did not come: Ray's {name}")
    return found + _wrong_files(trained)


def _is_seen(trained: Trained, number: int, fault: Fault, learners: set[tuple[str, int]], ray: set[str]) -> bool:
    if fault.victim == DRIVER:
        return _command_of(trained, number).code == -9
    if fault.victim in (RAYLET, GCS):
        # A training whose team comes to its end without asking Ray for anything that it then lacks need not see it.
        came, command = trained.came[number]["time"], _command_of(trained, number)
        return fault.victim in ray or (command.code == 0 and not any(came < start for start in trained.starts))
    return bool({(fault.victim, trained.came[number]["pid"]), (fault.victim, 0)} & learners)


def _wrong_files(trained: Trained) -> list[str]:
    faults = [trained.case.faults[number] for number in trained.came]
    damaged = Counter(fault.step for fault in faults if fault.kind in (CUT, FLIP))
    # Whoever goes on again skips it again.
    skipped = Counter(map(int, _DAMAGED.findall(trained.log)))
    found = [f"not seen: the damaged checkpoint of step {step}" for step in damaged if skipped[step] < damaged[step]]
    found += [f"seen, but did not come: a damaged checkpoint of step {step}" for step in skipped if step not in damaged]
    may = any(fault.kind in (FULL, FAILING) for fault in faults)
    if may != ("training goes on without" in trained.log + trained.said):
        found.append(f"{'not seen' if may else 'seen, but did not come'}: a disk that takes nothing")
    return found


def _seconds_lost(trained: Trained, number: int) -> float | None:
    if number not in trained.came:
        return None
    came, step = trained.came[number]["time"], trained.case.faults[number].step
    times = [at for reported, at in trained.reported.items() if reported >= step]
    if trained.case.faults[number].kind == PAUSE or not times or min(times) < came:
        return None
    return min(times) - came
