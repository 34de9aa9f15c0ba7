"""Runs programs on Ray actors: the driver submits the calls as actor methods and passes references, nothing else.

Features go from actor to actor through the object store. An actor runs its calls in the order in which they were
submitted, so segment k + 1 sees exactly the features that running in turn would give it, whatever the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import ray

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError
from engine.program import BATCH, SOURCE, Program
from engine.runtimes.ray.actors import LearnerActors
from engine.runtimes.ray.waiting import waiting_for_ray
from engine.runtimes.runtime import Answer


class ObjectStoreRuntime:
    """A team of actors whose messages travel through Ray's object store.

    Args:
        actors: the team, which ends with the runtime.
        window: steps in flight.
        reason: why messages travel in this way.
    """

    def __init__(self, actors: LearnerActors, window: int, reason: str) -> None:
        self._actors, self._window, self._reason = actors, window, reason
        self._methods: dict[tuple[str, int], Any] = {}
        # For each step in flight, the calls that give no message: what they return is empty, and everything that is
        # given is taken by one of them in the end, so they tell that the step is done without moving features here.
        self._in_flight: deque[dict[str, Any]] = deque()

    def submit(self, program: Program, batch: Batch) -> None:
        """Submit the calls of one step, after waiting for the oldest step when the window is full."""
        while len(self._in_flight) >= self._window:
            self._actors.fetch_all(self._in_flight.popleft())
        with waiting_for_ray():
            messages: dict[str, Any] = {BATCH: ray.put(batch)}
        done: dict[str, Any] = {}
        for call in program.calls:
            if call.learner == SOURCE:
                continue
            method = self._method(call.learner, len(call.gives))
            given = method.remote(
                self._actors.number(call.learner),
                call.phase,
                program.given_by(call),
                {name: messages[name] for name in call.takes},
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

    def ask(self, question: str) -> Answer:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted."""
        return self._actors.ask(question)

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        self._actors.restore(states)

    def finish(self) -> None:
        """Wait for all steps in flight."""
        while self._in_flight:
            self._actors.fetch_all(self._in_flight.popleft())

    def notice(self) -> EngineError | None:
        """As `LearnerActors.notice`."""
        return self._actors.notice()

    def activity(self) -> float | None:
        """As `LearnerActors.activity`."""
        return self._actors.activity()

    def abandon(self) -> None:
        """As `LearnerActors.abandon`."""
        self._actors.abandon()

    def describe(self) -> dict[str, str]:
        """Return where each learner lives, in words."""
        return self._actors.describe(dict.fromkeys(self._actors, f"messages: object store ({self._reason})"))

    def close(self) -> None:
        """End the actors; see `LearnerActors.close`."""
        self._in_flight.clear()
        self._actors.close()
