"""A team of actors, whichever way messages travel between them: start, questions, blame, end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
import ray
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.checkpoints import LearnerState
from engine.errors import EngineError, LearnerError, LearnerLost
from engine.runtimes.ray.actor import OVERLAPPING, THREADS, WATCHING, Builder, LearnerActor
from engine.runtimes.ray.cluster import disconnect
from engine.runtimes.ray.drains import Drains, drains_of
from engine.runtimes.ray.failures import LostStep, as_engine_error, is_death, original_error
from engine.runtimes.ray.groups import wait_for_group
from engine.runtimes.ray.placement import Placement
from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.ray.processes import WatchedProcess
from engine.runtimes.ray.stalls import Stalls
from engine.runtimes.ray.waiting import check_after, get_while_alive, is_waiting_for_ray

# How long the learners have to say how they are, when it is not known which one failed.
_CHECK_SECONDS = 5.0


class _Pending:
    """Answers that the actors have yet to give."""

    def __init__(self, actors: LearnerActors, references: dict[str, Any]) -> None:
        self._actors = actors
        self._references = references

    def result(self) -> dict[str, Any]:
        return self._actors.fetch_all(self._references)


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
        self._owns_ray = owns_ray
        self._stalls: Stalls | None = None
        self._drains: Drains | None = None
        self._group: Any = None
        self._owns_group = True
        self._handles: dict[str, Any] = {}
        self._watched: dict[str, WatchedProcess] = {}
        self._sent: dict[str, int] = {}
        self.places: dict[str, dict[str, Any]] = {}
        """Actor's id, process, node, the node's address, host, device, GPU and NCCL of each learner."""
        try:
            self._start(builder, names, placement, timeout)
            self._stalls = Stalls(self._handles, self.places, stall_seconds)
            # What a trial of a search has reserved cannot be moved.
            self._drains = drains_of(self.places) if self._owns_group else None
        except BaseException:
            self.close()
            raise

    def _start(self, builder: Builder, names: Sequence[str], placement: Placement, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # A trial of a search has reserved all that it needs, behind the bundle that it runs in: another reservation
        # inside it might wait for ever for what other trials hold that wait as well.
        self._group = get_current_placement_group()
        self._owns_group = self._group is None
        if self._owns_group:
            self._group = placement_group([placement.bundle] * placement.actors, strategy=placement.strategy)
        wait_for_group(self._group, placement, timeout)
        first = self._group.bundle_count - placement.actors
        actor_class: Any = ray.remote(concurrency_groups={OVERLAPPING: THREADS, WATCHING: 1})(LearnerActor)
        for index, name in enumerate(names):
            self._handles[name] = actor_class.options(
                num_cpus=placement.bundle.get("CPU", 0),
                num_gpus=placement.gpus,
                # A restarted actor would have lost its weights, and a repeated call would train a batch twice.
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, first + index),
            ).remote(builder, name)
        places = {name: actor.build.remote() for name, actor in self._handles.items()}
        _, late = ray.wait(
            list(places.values()), num_returns=len(places), timeout=max(0.0, deadline - time.monotonic())
        )
        for name, reference in places.items():
            if reference in late:
                raise LearnerError(
                    name, f"did not start within plan.start_timeout_seconds={timeout:g}; raise it if the node is slow"
                )
        self.places = self.fetch_all(places)
        here = ray.get_runtime_context().get_node_id()
        self._watched = {
            name: WatchedProcess(place["pid"]) for name, place in self.places.items() if place["node"] == here
        }

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

    def fetch_all(self, references: Mapping[str, Any]) -> dict[str, Any]:
        """Return what references hold, by learner; raises LearnerError that names the learner that failed first."""
        waiting = list(references.values())
        try:
            return dict(zip(references, get_while_alive(waiting, self._look), strict=True))
        except ray.exceptions.RayError as error:
            check_after(error)
            # One by one, to know whose it was: first those that have an answer, because others may wait for a partner
            # that is no more.
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_CHECK_SECONDS)
            order = sorted(references, key=lambda name: references[name] not in ready)
            found = {name: self._fetch(name, references[name]) for name in order}
            return {name: found[name] for name in references}

    def _look(self) -> None:
        if self._stalls is not None:
            self._stalls.look()

    def _fetch(self, learner: str, reference: Any) -> Any:
        try:
            return get_while_alive(reference, self._look)
        except ray.exceptions.RayError as error:
            raise self._blame(learner, error) from None

    def _blame(self, learner: str, error: BaseException) -> EngineError:
        """Return the error of the learner that is to blame, rather than of those that waited for it."""
        error = original_error(error)
        if is_death(error) or isinstance(error, LostStep):
            learner, error = self._find_culprit(learner, error)
            # Again, because what came first may have been the word of a learner that waited for a dead one.
            check_after(error)
        if isinstance(error, LostStep):
            return LearnerLost(learner, str(error))
        watched = self._watched.get(learner)
        ending = watched.ending() if watched is not None and is_death(error) else None
        was_draining = self._drains is not None and is_death(error) and self._drains.was_told_of(learner)
        return as_engine_error(error, learner, self.places.get(learner, {}).get("pid"), ending, was_draining)

    def _find_culprit(self, learner: str, error: BaseException) -> tuple[str, BaseException]:
        actor = getattr(error, "actor_id", None)
        for name, place in self.places.items():
            if actor is not None and place["actor"] == actor:
                return name, error
        # Ray does not say who it was: all are asked at once, and a death explains more than a failure.
        names = {actor.check.remote(): name for name, actor in self._handles.items()}
        answered, _ = ray.wait(list(names), num_returns=len(names), timeout=_CHECK_SECONDS)
        found = [(names[reference], _error_of(reference)) for reference in answered]
        culprits = [(name, why) for name, why in found if why is not None and not isinstance(why, LostStep)]
        return min(culprits, key=lambda pair: not is_death(pair[1]), default=(learner, error))

    def notice(self) -> EngineError | None:
        """As `Drains.notice`."""
        return None if self._drains is None else self._drains.notice()

    def ask(self, question: str) -> _Pending:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted."""
        return _Pending(self, {name: self[name].ask.remote(self.number(name), question) for name in self})

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        self.fetch_all({name: self[name].restore.remote(states[name]) for name in self})

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
        # What learners on other nodes compute cannot be seen from here: a second signal ends those that hang.
        if not is_waiting_for_ray() or len(self._watched) < len(self.places):
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
        """End the actors, give back what they reserved, and stop a Ray that was started for this run."""
        for watched in self._watched.values():
            watched.close()
        if self._owns_ray:
            # All ends with it, also where it is too far gone to be asked for anything.
            self._handles.clear()
            disconnect()
            return
        for actor in self._handles.values():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(actor)
        self._handles.clear()
        if self._group is not None and self._owns_group:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(self._group)


def nodes_of(actors: LearnerActors) -> set[str]:
    """Return the nodes on which actors live."""
    return {place["node"] for place in actors.places.values()}


def _error_of(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return original_error(error)
    return None
