"""Runs programs on Ray actors: the driver submits the calls as actor methods and passes references, nothing else.

Features go from actor to actor through the object store. An actor runs its calls in the order in which they were
submitted, so segment k + 1 sees exactly the features that running in turn would give it, whatever the window.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.data import Batch, Facts
from engine.errors import EngineError, LearnerError, PlanError
from engine.learners import LearnerState
from engine.methods import Team
from engine.program import BATCH, SOURCE, Program
from engine.recipes import Plan, Recipe, recipe_to_dict
from engine.runtimes.ray.actor import LearnerActor
from engine.runtimes.ray.cluster import connect, node_resources, private_node
from engine.runtimes.ray.failures import LostStep, as_engine_error, is_death, original_error
from engine.runtimes.ray.placement import choose_placement, store_bytes_needed
from engine.runtimes.ray.processes import WatchedProcess

# How long the learners have to say how they are, when it is not known which one failed.
_CHECK_SECONDS = 5.0


class _Pending:
    """Answers that the actors have yet to give."""

    def __init__(self, runtime: ObjectStoreRuntime, references: dict[str, Any]) -> None:
        self._runtime = runtime
        self._references = references

    def result(self) -> dict[str, Any]:
        return {name: self._runtime.fetch(name, reference) for name, reference in self._references.items()}


class ObjectStoreRuntime:
    """A team of actors, one per learner, in one placement group.

    Raises:
        PlanError: the cluster cannot hold the team; found before any actor starts.
        LearnerError: a learner could not be built.
    """

    def __init__(self, recipe: Recipe, facts: Facts, team: Team, steps_per_epoch: int, plan: Plan) -> None:
        if plan.address is None and not ray.is_initialized():
            # Ray takes seconds to start; this machine is known without it.
            choose_placement(plan, recipe, len(team.names), [private_node()])
        self._owns_ray = connect(plan, store_bytes_needed(team, plan))
        self._group: Any = None
        self._owns_group = True
        self._actors: dict[str, Any] = {}
        self._methods: dict[tuple[str, int], Any] = {}
        self._places: dict[str, dict[str, Any]] = {}
        self._watched: dict[str, WatchedProcess] = {}
        self._sent: dict[str, int] = {}
        # For each step in flight, the calls that give no message: what they return is empty, and everything that is
        # given is taken by one of them in the end, so they tell that the step is done without moving features here.
        self._in_flight: deque[dict[str, Any]] = deque()
        try:
            self._placement = choose_placement(plan, recipe, len(team.names), node_resources())
            self._start(recipe, facts, team, steps_per_epoch, plan.start_timeout_seconds)
        except BaseException:
            self.close()
            raise

    def _start(self, recipe: Recipe, facts: Facts, team: Team, steps_per_epoch: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        placement = self._placement
        # A trial of a search has reserved all that it needs, behind the bundle that it runs in: another reservation
        # inside it might wait for ever for what other trials hold that wait as well.
        self._group = get_current_placement_group()
        self._owns_group = self._group is None
        if self._owns_group:
            self._group = placement_group([placement.bundle] * placement.actors, strategy=placement.strategy)
        if not self._group.wait(timeout):
            raise PlanError(
                f"the cluster did not free {placement.describe()} within plan.start_timeout_seconds="
                f"{timeout:g}: others are using it; wait, lower what the plan asks for, or add nodes"
            )
        first = self._group.bundle_count - placement.actors
        actor_class: Any = ray.remote(LearnerActor)
        for index, name in enumerate(team.names):
            self._actors[name] = actor_class.options(
                num_cpus=placement.bundle.get("CPU", 0),
                num_gpus=placement.gpus,
                # A restarted actor would have lost its weights, and a repeated call would train a batch twice.
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, first + index),
            ).remote(
                json.dumps(recipe_to_dict(recipe)),
                json.dumps(facts.to_json()),
                steps_per_epoch,
                name,
                bool(placement.gpus),
            )
        places = {name: actor.build.remote() for name, actor in self._actors.items()}
        _, late = ray.wait(
            list(places.values()), num_returns=len(places), timeout=max(0.0, deadline - time.monotonic())
        )
        for name, reference in places.items():
            if reference in late:
                raise LearnerError(
                    name, f"did not start within plan.start_timeout_seconds={timeout:g}; raise it if the node is slow"
                )
        self._places = {name: self.fetch(name, reference) for name, reference in places.items()}
        here = ray.get_runtime_context().get_node_id()
        self._watched = {
            name: WatchedProcess(place["pid"]) for name, place in self._places.items() if place["node"] == here
        }

    def submit(self, program: Program, batch: Batch) -> None:
        """Submit the calls of one step, after waiting for the oldest step when the window is full."""
        while len(self._in_flight) >= self._placement.window:
            self._finish_oldest()
        messages: dict[str, Any] = {BATCH: ray.put(batch)}
        done: dict[str, Any] = {}
        for call in program.calls:
            if call.learner == SOURCE:
                continue
            method = self._method(call.learner, len(call.gives))
            given = method.remote(
                self._number(call.learner),
                call.phase,
                len(call.gives),
                call.takes,
                *(messages[name] for name in call.takes),
            )
            if len(call.gives) > 1:
                messages.update(zip(call.gives, given, strict=True))
            elif call.gives:
                messages[call.gives[0]] = given
            else:
                done[call.learner] = given
        self._in_flight.append(done)

    def _method(self, learner: str, gives: int) -> Any:
        key = (learner, gives)
        if key not in self._methods:
            self._methods[key] = self._actors[learner].call.options(num_returns=max(gives, 1))
        return self._methods[key]

    def _number(self, learner: str) -> int:
        """Return the number of a learner's next call or question."""
        number = self._sent.get(learner, 0)
        self._sent[learner] = number + 1
        return number

    def _finish_oldest(self) -> None:
        step = self._in_flight.popleft()
        try:
            ray.get(list(step.values()))
        except ray.exceptions.RayError:
            for learner, reference in step.items():
                self.fetch(learner, reference)

    def fetch(self, learner: str, reference: Any) -> Any:
        """Return what a reference holds; raises LearnerError that names the learner that failed first."""
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            raise self._blame(learner, error) from None

    def _blame(self, learner: str, error: BaseException) -> EngineError:
        """Return the error of the learner that is to blame, rather than of those that waited for it."""
        error = original_error(error)
        if is_death(error) or isinstance(error, LostStep):
            learner, error = self._find_culprit(learner, error)
        watched = self._watched.get(learner)
        ending = watched.ending() if watched is not None and is_death(error) else None
        return as_engine_error(error, learner, self._places.get(learner, {}).get("pid"), ending)

    def _find_culprit(self, learner: str, error: BaseException) -> tuple[str, BaseException]:
        actor = getattr(error, "actor_id", None)
        for name, place in self._places.items():
            if actor is not None and place["actor"] == actor:
                return name, error
        # Ray does not say who it was: all are asked at once, and a death explains more than a failure.
        names = {actor.check.remote(): name for name, actor in self._actors.items()}
        answered, _ = ray.wait(list(names), num_returns=len(names), timeout=_CHECK_SECONDS)
        found = [(names[reference], _error_of(reference)) for reference in answered]
        culprits = [(name, why) for name, why in found if why is not None and not isinstance(why, LostStep)]
        return min(culprits, key=lambda pair: not is_death(pair[1]), default=(learner, error))

    def ask(self, question: str) -> _Pending:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted."""
        return _Pending(self, {n: a.ask.remote(self._number(n), question) for n, a in self._actors.items()})

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        waiting = {name: actor.restore.remote(states[name]) for name, actor in self._actors.items()}
        for name, reference in waiting.items():
            self.fetch(name, reference)

    def finish(self) -> None:
        """Wait for all steps in flight."""
        while self._in_flight:
            self._finish_oldest()

    def describe(self) -> dict[str, str]:
        """Return where each learner lives, in words."""
        return {
            name: f"actor {place['pid']} on {place['host']}, {place['device']}" for name, place in self._places.items()
        }

    def close(self) -> None:
        """End the actors, give back what they reserved, and stop a Ray that was started for this run."""
        self._in_flight.clear()
        for watched in self._watched.values():
            watched.close()
        for actor in self._actors.values():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(actor)
        self._actors.clear()
        if self._group is not None and self._owns_group:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(self._group)
        if self._owns_ray:
            ray.shutdown()


def _error_of(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return original_error(error)
    return None
