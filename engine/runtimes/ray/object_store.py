"""Runs programs on Ray actors: the driver submits the calls as actor methods and passes references, nothing else.

Features go from actor to actor through the object store. An actor runs its calls in the order in which they were
submitted, so segment k + 1 sees exactly the features that running in turn would give it, whatever the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError, LearnerLost
from engine.program import BATCH, SOURCE, Call, Program, is_evaluation
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.chunks import SCORE, STATE
from engine.runtimes.ray.comeback import ComeBack
from engine.runtimes.ray.history import Asked, Given, History
from engine.runtimes.ray.submitted import SubmittedQuestion, SubmittedStep, is_there
from engine.runtimes.ray.waiting import put_while_alive
from engine.runtimes.runtime import Answer, Losses


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
        self._programs: dict[tuple[str, frozenset[str]], Program] = {}
        self._in_flight: deque[SubmittedStep] = deque()
        # Of which nobody has wanted to know the answers yet.
        self._unheard: list[SubmittedQuestion] = []
        # Asked for after the step that was finished last.
        self._states: list[SubmittedQuestion] = []

    def submit(self, program: Program, batch: Batch) -> None:
        """Submit the calls of one step, after waiting for the oldest step when the window is full."""
        while len(self._in_flight) >= self._window:
            self._finish_oldest()
        # After that: who is lost in those steps is waited for, too.
        if self._come_back.let_return(wait=is_evaluation(program)):
            self._methods.clear()
        program = self._without_those_away(program)
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
        is_training = not is_evaluation(program)
        self._in_flight.append(SubmittedStep(asked, is_training, done))
        if self._come_back.history is not None:
            self._come_back.history.add(asked, program.bytes_per_step, int(is_training))

    def _call(self, program: Program, call: Call, takes: Mapping[str, Given], given: tuple[Given, ...]) -> Asked:
        number = self._actors.number(call.learner)

        def send() -> Sequence[Any]:
            references = self._method(call.learner, len(given)).remote(
                number,
                call.phase,
                program.given_by(call),
                {name: taken.reference for name, taken in takes.items() if not taken.is_gone},
            )
            return [references] if len(given) == 1 else references

        return Asked(call.learner, number, send, given)

    def _without_those_away(self, program: Program) -> Program:
        away = frozenset(self._come_back.away_learners.away)
        if not away:
            return program
        if (program.name, away) not in self._programs:
            self._programs[program.name, away] = program.without(away)
        return self._programs[program.name, away]

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
        told: Callable[[Any], None] | None = None
        history = self._come_back.history
        if history is not None:
            history.add(asked, 0, 0)
            told = history.asked_for_states() if question == STATE else None
        answer = SubmittedQuestion(question, {each.learner: each.given[0] for each in asked}, told, self._result)
        self._unheard.append(answer)
        if told is not None:
            (self._in_flight[-1].states if self._in_flight else self._states).append(answer)
        return answer

    def _question(self, learner: str, question: str) -> Asked:
        number = self._actors.number(learner)
        return Asked(learner, number, lambda: [self._actors[learner].ask.remote(number, question)], (Given(),))

    def _fetch(self, given: Mapping[str, Given]) -> dict[str, Any]:
        """Return what learners have given, by learner; brings back such as are lost meanwhile.

        Raises:
            LearnerLost: one cannot come back alone.
            LearnerError: one has failed.
        """
        while True:
            try:
                return self._actors.fetch_all(
                    {name: each.reference for name, each in given.items() if not each.is_gone}
                )
            except LearnerLost as error:
                self._come_back.bring_back(error)

    def _result(self, answer: SubmittedQuestion) -> dict[str, Any]:
        found = self._fetch(answer.given)
        self._unheard.remove(answer)
        return self._come_back.away_learners.completed(found) if answer.question == STATE else found

    def _finish_oldest(self) -> None:
        # In flight until it is known to be done: a learner that is lost meanwhile may not have done it.
        self._fetch(self._in_flight[0].done)
        states, self._states = self._states, self._in_flight.popleft().states
        # The step after them is done, so these are there: what came before them need not be kept any longer.
        for answer in states:
            answer.result()

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

    @property
    def steps_in_flight(self) -> int:
        """As `Others.steps_in_flight`."""
        return sum(step.is_training for step in self._in_flight)

    @property
    def are_evaluating(self) -> bool:
        """As `Others.are_evaluating`."""
        scores = [each.given.values() for each in self._unheard if each.question == SCORE]
        return not (
            all(step.is_training for step in self._in_flight)
            and all(is_there(given) for values in scores for given in values)
        )

    def go_without(self, away: Collection[str], history: History) -> Mapping[str, int]:
        """Let the others go on with what they have, where they were stopped; returns the first call of each to come."""
        self._actors.settle([each.reference for asked in history if asked.learner not in away for each in asked.given])
        for step in self._in_flight:
            for given in (given for asked in step.asked if asked.learner in away for given in asked.given):
                given.is_gone = True
        for answer in self._unheard:
            for given in (given for name, given in answer.given.items() if name in away):
                # Who returns with an older state has that one in all that is kept meanwhile, too.
                given.is_gone = answer.question == STATE or not is_there(given)
        return self._actors.resume(list(self._actors))

    def _is_in_flight(self, asked: Asked) -> bool:
        return any(asked.name == each.name for step in self._in_flight for each in step.asked)

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
        self._states.clear()
        self._unheard.clear()
        self._come_back.away_learners.close()
        self._come_back.history = None
        self._actors.close()
