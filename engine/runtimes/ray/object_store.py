"""Runs programs on Ray actors: the driver submits the calls as actor methods and passes references, nothing else.

Features go from actor to actor through the object store. An actor runs its calls in the order in which they were
submitted, so segment k + 1 sees exactly the features that running in turn would give it, whatever the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError, LearnerLost
from engine.phases import PHASES
from engine.program import BATCH, SOURCE, Call, Program
from engine.runtimes.ray.actors import LearnerActors
from engine.runtimes.ray.comeback import ComeBack
from engine.runtimes.ray.history import Asked, Given, History
from engine.runtimes.ray.waiting import put_while_alive
from engine.runtimes.runtime import Answer, Losses


@dataclass(frozen=True)
class _Step:
    """A step in flight.

    Attributes:
        asked: its calls.
        done: what the calls give that give no message, by learner: nothing. Everything that is given is taken by one of
            them in the end, so they tell that the step is done without moving features here.
    """

    asked: Sequence[Asked]
    done: Mapping[str, Given]


class _Answer:
    """What learners say to one question."""

    def __init__(
        self, runtime: ObjectStoreRuntime, given: Mapping[str, Given], told: Callable[[Any], None] | None
    ) -> None:
        self._runtime, self._given, self._told = runtime, given, told

    def result(self) -> dict[str, Any]:
        answers = self._runtime.fetch(self._given)
        if self._told is not None:
            self._told(answers)
        return answers


class ObjectStoreRuntime:
    """A team of actors whose messages travel through Ray's object store.

    Args:
        actors: the team, which ends with the runtime.
        window: steps in flight.
        reason: why messages travel in this way.
        history_bytes: of messages that may be kept for a learner that is lost; 0 where it cannot come back alone.
    """

    def __init__(self, actors: LearnerActors, window: int, reason: str, history_bytes: int = 0) -> None:
        self._actors, self._window, self._reason = actors, window, reason
        self._history_bytes = history_bytes
        self._come_back = ComeBack(actors, self, self._is_in_flight)
        self._methods: dict[tuple[str, int], Any] = {}
        self._in_flight: deque[_Step] = deque()

    def submit(self, program: Program, batch: Batch) -> None:
        """Submit the calls of one step, after waiting for the oldest step when the window is full."""
        while len(self._in_flight) >= self._window:
            self._finish_oldest()
        messages = {BATCH: Given(put_while_alive(batch))}
        done: dict[str, Given] = {}
        asked = []
        for call in program.calls:
            if call.learner == SOURCE:
                continue
            given = tuple(messages.setdefault(name, Given()) for name in call.gives) or (Given(),)
            if not call.gives:
                done[call.learner] = given[0]
            asked.append(self._call(program, call, {name: messages[name] for name in call.takes}, given))
        for each in asked:
            each.ask()
        self._in_flight.append(_Step(asked, done))
        if self._come_back.history is not None:
            is_training = PHASES[program.calls[-1].phase].use == "training"
            self._come_back.history.add(asked, program.bytes_per_step, int(is_training))

    def _call(self, program: Program, call: Call, takes: Mapping[str, Given], given: tuple[Given, ...]) -> Asked:
        number = self._actors.number(call.learner)

        def send() -> Sequence[Any]:
            references = self._method(call.learner, len(given)).remote(
                number,
                call.phase,
                program.given_by(call),
                {name: taken.reference for name, taken in takes.items()},
            )
            return [references] if len(given) == 1 else references

        return Asked(call.learner, number, send, given)

    def _method(self, learner: str, gives: int) -> Any:
        key = (learner, gives)
        if key not in self._methods:
            self._methods[key] = self._actors[learner].call.options(num_returns=gives)
        return self._methods[key]

    def ask(self, question: str) -> Answer:
        """Ask all learners a question after what was submitted; they answer while later steps are submitted."""
        asked = [self._question(name, question) for name in self._actors]
        for each in asked:
            each.ask()
        told = None
        history = self._come_back.history
        if history is not None:
            history.add(asked, 0, 0)
            told = history.asked_for_states() if question == "state" else None
        return _Answer(self, {each.learner: each.given[0] for each in asked}, told)

    def _question(self, learner: str, question: str) -> Asked:
        number = self._actors.number(learner)
        return Asked(learner, number, lambda: [self._actors[learner].ask.remote(number, question)], (Given(),))

    def fetch(self, given: Mapping[str, Given]) -> dict[str, Any]:
        """Return what learners have given, by learner; brings back such as are lost meanwhile.

        Raises:
            LearnerLost: one cannot come back alone.
            LearnerError: one has failed.
        """
        while True:
            try:
                return self._actors.fetch_all({name: each.reference for name, each in given.items()})
            except LearnerLost as error:
                self._come_back.bring_back(error)

    def _finish_oldest(self) -> None:
        # In flight until it is known to be done: a learner that is lost meanwhile may not have done it.
        self.fetch(self._in_flight[0].done)
        self._in_flight.popleft()

    wait = False

    def part_from(self, lost: Collection[str]) -> None:
        """Nothing: what the others take next was never made, which stops them."""

    def are_built(self, history: History) -> None:
        """Wait until the others have done what they still can."""
        self._actors.settle([given.reference for asked in history for given in asked.given])

    def go_on(self, lost: Collection[str], history: History) -> Mapping[str, int]:
        """Let the others go on where they were stopped; returns the first call that each has yet to make."""
        begin = self._actors.resume(set(self._actors) - set(lost))
        self._methods.clear()
        return begin

    def _is_in_flight(self, asked: Asked) -> bool:
        return any(asked is each for step in self._in_flight for each in step.asked)

    def keep_for_losses(self, losses: Losses) -> str | None:
        """Keep the messages since the newest states from now on; as `Runtime.keep_for_losses`."""
        if not self._history_bytes:
            return "the object store has no room for messages beside those in flight"
        self._come_back.keep(losses, self._history_bytes)
        return None

    @property
    def needs_states(self) -> bool:
        """As `Runtime.needs_states`."""
        return self._come_back.needs_states

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        self._actors.restore(states)
        self._come_back.begin_with(states)

    def finish(self) -> None:
        """Wait for all steps in flight."""
        while self._in_flight:
            self._finish_oldest()

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
        self._come_back.history = None
        self._actors.close()
