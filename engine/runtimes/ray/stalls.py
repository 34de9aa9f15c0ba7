"""Stalls: a learner that has what it takes, and makes no progress.

Learners are asked now and then while the driver waits for them. One that only waits for work or for a partner is well,
and so is one that uses its processor, unless it takes far longer for one thing than any has taken: an endless loop
computes, too. One that does neither for long enough is ended, and counts as dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from engine.errors import GOES_ON, LearnerLost
from engine.runtimes.ray.doing import Sign
from engine.runtimes.ray.waiting import SLICE_SECONDS

_LOOK_SECONDS = 5.0
_FEWEST_SECONDS = 60.0
# Of the longest that a learner has taken for one thing so far, where no time is given.
_TIMES_THE_LONGEST = 10.0
# Of the patience with one that does nothing: whether what it computes has an end, nobody can tell.
_TIMES_WHILE_COMPUTING = 10.0
# How many things a learner has begun before it counts that it takes too long for one: the first ones are compiled.
_FIRST_THINGS = 100
_STACK_SECONDS = 5.0
# In which Ray tells a node that cannot be reached from one that can, from ray_config_def.h: after a first delay of 5 s,
# five times 3 s between questions and 10 s for the answer; and some more.
_HEALTH_CHECK_SECONDS = 75.0
# A learner that uses less than this share of a processor does not compute.
_IDLE_SHARE = 0.05


@dataclass
class _Seen:
    """What was last seen of a learner.

    Attributes:
        sign: the newest; None before the first.
        at: when that came.
        begun: when its count last changed.
        progress: when it last did something, or had nothing to do.
        computes: whether it was at work then, and used its processor.
    """

    sign: Sign | None
    at: float
    begun: float
    progress: float
    computes: bool = False


class Stalls:
    """Looks for learners that hang.

    Args:
        handles: the actors, by learner.
        places: where they live, as `LearnerActor.build` says.
        seconds: without progress after which a learner counts as hanging; ten times the longest that one has taken so
            far for one thing unless given, but at least a minute. One that computes has ten times as long.
    """

    def __init__(
        self, handles: Mapping[str, Any], places: Mapping[str, Mapping[str, Any]], seconds: float | None
    ) -> None:
        now = time.monotonic()
        self._handles, self._places, self._seconds = handles, places, seconds
        self._longest = 0.0
        self._seen = {name: _Seen(None, now, now, now) for name in handles}
        self._asked: dict[str, Any] = {}
        self.are_gone = False
        """Whether one of them did not answer because it is no more."""
        self._looked = now

    @property
    def patience(self) -> float:
        """Seconds without progress after which a learner counts as hanging."""
        return self._seconds or max(_FEWEST_SECONDS, _TIMES_THE_LONGEST * self._longest)

    def look(self) -> None:
        """Look at all learners, if it is time to.

        Raises:
            LearnerLost: one hangs; it has been ended.
        """
        now = time.monotonic()
        pause = now - self._looked
        if pause < min(_LOOK_SECONDS, self.patience / 4):
            return
        self._looked = now
        self._take_answers(now)
        if pause > max(self.patience / 2, 2 * SLICE_SECONDS):
            # Nobody was waiting meanwhile, or this process itself was stopped.
            for seen in self._seen.values():
                seen.progress = seen.begun = now
        # Whoever answers may wait for one whose node is gone, and is not to blame.
        if not any(self._may_be_unreachable(name, now) for name in self._asked):
            self._end_culprit(now)
        for name, handle in self._handles.items():
            if name not in self._asked:
                self._asked[name] = handle.sign.remote()

    def _end_culprit(self, now: float) -> None:
        """Raise LearnerLost if a learner hangs: the one for which others wait, if several seem to."""
        found = self._seen.items()
        idle = {name: now - seen.progress for name, seen in found if now - seen.progress > self.patience}
        silent = {name: seconds for name, seconds in idle.items() if name in self._asked}
        most = _TIMES_WHILE_COMPUTING * self.patience
        endless = {
            name: now - seen.begun for name, seen in found if self._may_be_endless(seen) and now - seen.begun > most
        }
        # One that answers may wait inside of its work for another replica, which does not answer, or still computes.
        patience = most if any(seen.computes for _, seen in found) else self.patience
        waiting = {name: seconds for name, seconds in idle.items() if seconds > patience}
        for name, seconds in (silent or endless or waiting).items():
            raise self._ended(name, seconds)

    def _may_be_endless(self, seen: _Seen) -> bool:
        is_new = seen.sign is None or (self._seconds is None and seen.sign.count < _FIRST_THINGS)
        return seen.computes and not is_new

    def _may_be_unreachable(self, name: str, now: float) -> bool:
        """Return whether Ray has had too little time to say that a silent learner's node is dead."""
        node = self._places[name]["node"]
        is_reached = any(self._places[other]["node"] == node for other in self._seen.keys() - self._asked.keys())
        is_here = node == ray.get_runtime_context().get_node_id()
        return not (is_here or is_reached) and now - self._seen[name].at <= _HEALTH_CHECK_SECONDS

    def _take_answers(self, now: float) -> None:
        for name, reference in list(self._asked.items()):
            answered, _ = ray.wait([reference], timeout=0)
            if answered:
                del self._asked[name]
                try:
                    self._note(self._seen[name], ray.get(reference), now)
                except ray.exceptions.RayError:
                    # How it ended is told by what the driver waits for.
                    self.are_gone = True

    def _note(self, seen: _Seen, sign: Sign, now: float) -> None:
        before = seen.sign
        used = sign.processor_seconds - before.processor_seconds if before is not None else 0.0
        seen.computes = bool(sign.doing) and used > _IDLE_SHARE * (now - seen.at)
        if before is None or sign.count != before.count:
            self._longest = max(self._longest, now - seen.begun if before is not None and before.doing else 0.0)
            seen.begun = seen.progress = now
        elif not sign.doing or seen.computes:
            seen.progress = now
        seen.sign, seen.at = sign, now

    def _ended(self, name: str, seconds: float) -> LearnerLost:
        stacks = "its process did not answer when it was asked for its stacks"
        with contextlib.suppress(ray.exceptions.RayError):
            stacks = ray.get(self._handles[name].sign.remote(True), timeout=_STACK_SECONDS).stacks
        sign, place = self._seen[name].sign, self._places[name]
        doing = f" in {sign.doing}" if sign is not None and sign.doing else ""
        if place["node"] == ray.get_runtime_context().get_node_id():
            with contextlib.suppress(ProcessLookupError):
                os.kill(place["pid"], signal.SIGKILL)
        else:
            ray.kill(self._handles[name])
        return LearnerLost(
            name,
            f"its process {place['pid']} made no progress for {seconds:.0f} s{doing}, and was ended ({GOES_ON})",
            stacks,
        )
