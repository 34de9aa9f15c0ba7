"""A team of actors, whichever way messages travel between them: start, questions, blame, end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import psutil
import ray

from engine.checkpoints import LearnerState
from engine.errors import EngineError, LearnerLost
from engine.runtimes.ray.actor import Builder
from engine.runtimes.ray.building import Building
from engine.runtimes.ray.bundles import Bundles
from engine.runtimes.ray.cluster import disconnect
from engine.runtimes.ray.culprits import Culprits
from engine.runtimes.ray.drains import Drains, drains_of
from engine.runtimes.ray.fetching import Fetching
from engine.runtimes.ray.placement import Placement
from engine.runtimes.ray.private.current import current_private_ray, leave_private_ray
from engine.runtimes.ray.processes import WatchedProcess
from engine.runtimes.ray.stalls import Stalls
from engine.runtimes.ray.waiting import SLICE_SECONDS, is_waiting_for_ray


class LearnerActors:
    """One actor for each learner, in one placement group.

    Args:
        builder: builds each learner where it lives.
        names: of the learners.
        placement: what each actor reserves.
        timeout: seconds in which they have to start.
        owns_ray: whether this Ray was started for them, and ends with them.
        stall_seconds: as of `Stalls`.

    Raises:
        PlanError: the cluster did not free what they reserve.
        LearnerError: a learner could not be built.
    """

    def __init__(
        self,
        builder: Builder,
        names: Sequence[str],
        placement: Placement,
        timeout: float,
        owns_ray: bool,
        stall_seconds: float | None = None,
    ) -> None:
        self._builder, self._timeout = builder, timeout
        self._owns_ray, self._stall_seconds = owns_ray, stall_seconds
        self._number = len(names)
        self._drains: Drains | None = None
        self._bundles: Bundles | None = None
        self._handles: dict[str, Any] = {}
        self._watched: dict[str, WatchedProcess] = {}
        self._sent: dict[str, int] = {}
        self.places: dict[str, dict[str, Any]] = {}
        """Actor's id, process, node, the node's address, host, device, GPU and NCCL of each learner."""
        self._culprits = Culprits(self._handles, self.places, self._watched, self._was_draining)
        self._fetching = Fetching(self._culprits)
        deadline = time.monotonic() + timeout
        try:
            self._bundles = Bundles(names, placement, timeout)
            self._build(names, deadline)
            # What a trial of a search has reserved cannot be moved.
            self._drains = drains_of(self.places) if self._bundles.are_own else None
        except BaseException:
            self.close()
            raise

    def _build(self, names: Collection[str], deadline: float) -> None:
        """Build learners in the room that is reserved for them."""
        assert self._bundles is not None
        building = Building(names, self._bundles, self._builder, self._timeout, deadline)
        # Also those that fail are to be ended.
        self._handles |= building.handles
        while not building.is_over(SLICE_SECONDS):
            pass
        self.take_up(building)

    def start_building(self, names: Collection[str]) -> Building:
        """Begin to build learners that have left."""
        assert self._bundles is not None
        return Building(names, self._bundles, self._builder, self._timeout, time.monotonic() + self._timeout)

    def take_up(self, building: Building) -> None:
        """Make learners a part of the team, all of which are built or have failed.

        Raises:
            LearnerError: one could not be built.
        """
        self._handles |= building.handles
        self.places |= self.fetch_all(building.answers)
        here = ray.get_runtime_context().get_node_id()
        for name in building.handles:
            if self.places[name]["node"] == here:
                self._watched[name] = WatchedProcess(self.places[name]["pid"])
        self._fetching.stalls = Stalls(self._handles, self.places, self._stall_seconds)

    def lost(self) -> dict[str, LearnerLost]:
        """As `Culprits.lost`."""
        return self._culprits.lost()

    def replace(
        self, names: Collection[str], states: Mapping[str, LearnerState], first_calls: Mapping[str, int]
    ) -> None:
        """Build learners anew in the place of those that have ended.

        Args:
            names: of the learners.
            states: that they take up; initial weights where there is none.
            first_calls: number of the call of each with which it begins; the next one where none is given.

        Raises:
            PlanError: the cluster has no room for them.
            LearnerError: one was not built in time, or could not be.
        """
        self._end(names)
        assert self._bundles is not None
        deadline = time.monotonic() + self._timeout
        self._bundles.wait(self._timeout)
        self._build(names, deadline)
        self.restore(states)
        self._begin(names, first_calls)

    def _end(self, names: Collection[str]) -> None:
        for name in names:
            # One that Ray cannot reach may still live.
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self._handles[name])
            if name in self._watched:
                self._watched.pop(name).close()

    def _begin(self, names: Collection[str], first_calls: Mapping[str, int]) -> None:
        numbers = {name: first_calls.get(name, self._sent.get(name, 0)) for name in names}
        self.fetch_all({name: self[name].begin_at.remote(number) for name, number in numbers.items()})

    def leave(self, names: Collection[str]) -> None:
        """Let the team be without some of its learners; what is left of them is ended."""
        self._end(names)
        for name in names:
            del self._handles[name], self.places[name]
        self._fetching.stalls = Stalls(self._handles, self.places, self._stall_seconds)

    def set_out(self, states: Mapping[str, LearnerState]) -> None:
        """Let learners that were taken up begin, with their states, with what is asked of them next."""
        self.restore(states)
        self._begin(states, {})

    def resume(self, names: Collection[str]) -> dict[str, int]:
        """Let learners go on that were stopped by the end of others; returns the first call that each has yet to make.

        Raises:
            LearnerError: one has failed, or has ended.
        """
        return self.fetch_all({name: self[name].resume.remote() for name in names})

    def settle(
        self, references: Sequence[Any], others_wait: bool = False, of_others: Mapping[Any, str] | None = None
    ) -> None:
        """As `Fetching.settle`."""
        self._fetching.settle(references, others_wait, of_others)

    def __getitem__(self, name: str) -> Any:
        """Return the handle of a learner's actor."""
        return self._handles[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the learners' names."""
        return iter(self._handles)

    def number(self, learner: str) -> int:
        """Return the number of a learner's next call or question, and count on."""
        number = self._sent.get(learner, 0)
        self._sent[learner] = number + 1
        return number

    def fetch_all(self, references: Mapping[str, Any], others_wait: bool = False) -> dict[str, Any]:
        """As `Fetching.fetch_all`."""
        return self._fetching.fetch_all(references, others_wait)

    def _was_draining(self, learner: str) -> bool:
        return self._drains is not None and self._drains.was_told_of(learner)

    def notice(self) -> EngineError | None:
        """As `Drains.notice`."""
        return None if self._drains is None else self._drains.notice()

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give learners the states of a checkpoint."""
        self.fetch_all({name: self[name].restore.remote(state) for name, state in states.items()})

    def describe(self, notes: Mapping[str, str]) -> dict[str, str]:
        """Return where each learner lives, in words, with a note for each."""
        return {
            name: f"actor {place['pid']} on {place['host']}, {place['device']}; {notes[name]}"
            for name, place in self.places.items()
        }

    def activity(self) -> float | None:
        """Return the seconds that the learners on this machine have computed so far; None while none is waited for.

        It does not grow while a learner, or the Ray between, hangs.
        """
        # What learners on other nodes compute, or those that are away, cannot be seen from here: a second signal ends
        # such as hang.
        if not is_waiting_for_ray() or len(self._watched) < self._number:
            return None
        seconds = 0.0
        for name in self._watched:
            with contextlib.suppress(psutil.Error):
                used = psutil.Process(self.places[name]["pid"]).cpu_times()
                seconds += used.user + used.system
        return seconds

    def abandon(self) -> None:
        """End a private Ray at once, so that what waits for it fails; on a cluster nothing can be done."""
        private = current_private_ray()
        if private is not None:
            private.kill()

    def close(self) -> None:
        """End the actors, give back what they reserved, and stop a Ray that was started for this run.

        It may be left to the next team; see `lasting_private_ray`.
        """
        for watched in self._watched.values():
            watched.close()
        if self._owns_ray and not leave_private_ray():
            # All ends with it, also where it is too far gone to be asked for anything.
            self._handles.clear()
            disconnect()
            return
        for actor in self._handles.values():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(actor)
        self._handles.clear()
        if self._bundles is not None:
            self._bundles.close()


def nodes_of(actors: LearnerActors) -> set[str]:
    """Return the nodes on which actors live."""
    return {place["node"] for place in actors.places.values()}
