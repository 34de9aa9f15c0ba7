"""Chunks: steps that learners on direct links are handed out together, and what they say after them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.data import Batch
from engine.program import Program, is_evaluation
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.away_learners import AwayLearners
from engine.runtimes.ray.history import Asked, Given, History
from engine.runtimes.ray.linked_learner import Answered
from engine.runtimes.ray.waiting import put_while_alive

STATE, SCORE = "state", "score"


@dataclass
class _Handed:
    """What learners are handed out, as long as one may be asked again for it.

    Attributes:
        steps: the name of the program, and the batch.
        questions: asked after the last step.
        keep_since: as of `LearnerActor.run_schedule`.
        reference: to the steps, while they are in the object store.
    """

    steps: tuple[tuple[str, Batch], ...]
    questions: Sequence[str]
    keep_since: int | None
    reference: Any = None

    def put(self) -> Any:
        """Put the steps into the object store, in one object that all actors of a node read without a copy."""
        return put_while_alive(self.steps)

    def asked(self, actors: LearnerActors, learner: str) -> Asked:
        """Return what asks one learner to walk the steps, and to answer."""
        number = actors.number(learner)

        def send() -> Sequence[Any]:
            steps = self.put() if self.reference is None else self.reference
            return [actors[learner].run_schedule.remote(number, steps, self.questions, self.keep_since)]

        return Asked(learner, number, send, (Given(),))


class Chunk:
    """Steps, and questions after them, that are handed out together.

    Attributes:
        steps: the program, and the batch; none once they are handed out.
        questions: asked after the last step.
        size: how many steps were handed out.
        trained: how many of them are of training.
        asked: of each learner.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[Program, Batch]] = []
        self.questions: list[str] = []
        self.size = self.trained = 0
        self.asked: list[Asked] = []
        self._answers: dict[str, Answered] = {}
        self._states: dict[str, Any] = {}
        self._tell: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the images."""
        return sum(batch.images.nbytes for _, batch in self.steps)

    @property
    def is_handed_out(self) -> bool:
        """Whether the actors were asked for it."""
        return bool(self.asked)

    def hand_out(self, actors: LearnerActors, history: History | None) -> None:
        """Let all actors walk the steps, and answer.

        Args:
            actors: the team.
            history: takes note of it; None where nobody is asked again.
        """
        keep_since = history.begins if history is not None else None
        handed = _Handed(tuple((program.name, batch) for program, batch in self.steps), self.questions, keep_since)
        handed.reference = handed.put()
        self.asked = [handed.asked(actors, name) for name in actors]
        for each in self.asked:
            each.ask()
        # The object is let go when the actors have it; the batches, with the history.
        handed.reference = None
        self.trained = sum(not is_evaluation(program) for program, _ in self.steps)
        if history is None:
            handed.steps = ()
        else:
            size = sum(program.bytes_per_step for program, _ in self.steps)
            history.add(self.asked, size, self.trained, len(self.steps))
            if STATE in self.questions:
                self._tell = history.asked_for_states()
        self.size, self.steps = len(self.steps), []

    @property
    def evaluates(self) -> bool:
        """Whether there is something in it of what networks are scored with, or asked for."""
        return SCORE in self.questions or self.size > self.trained or any(is_evaluation(each) for each, _ in self.steps)

    def leave_out(self, away: Collection[str]) -> None:
        """Expect nothing of learners that are away."""
        self.asked = [each for each in self.asked if each.learner not in away]

    def answers(self, place: int) -> dict[str, Any]:
        """Return the answers to a question, of which the result is known; to that for states, those of all."""
        found = {name: answered.answers[place] for name, answered in self._answers.items()}
        return self._states if self.questions[place] == STATE else found

    def result(self, actors: LearnerActors, others_wait: bool, away_learners: AwayLearners) -> dict[str, Answered]:
        """Return what each actor said, once all have finished.

        Args:
            actors: the team.
            others_wait: as of `LearnerActors.fetch_all`.
            away_learners: of the team.
        """
        if not self._answers:
            references = {each.learner: each.given[0].reference for each in self.asked}
            self._answers = actors.fetch_all(references, others_wait)
            if STATE in self.questions:
                place = self.questions.index(STATE)
                said = {name: answered.answers[place] for name, answered in self._answers.items()}
                self._states = away_learners.completed(said)
                if self._tell is not None:
                    self._tell(self._states)
        return self._answers
