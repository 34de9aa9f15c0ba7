"""The history of a team: what its learners were asked for since their newest states, and what they gave.

All that passes between learners is a message, and all messages are kept here: what a learner has become follows from an
earlier state and what it took since then. So one that is lost is built anew, takes up that state, and is asked again,
while the others wait with what they know.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.checkpoints import KNOWLEDGE_FOLLOWS, LearnerState
from engine.methods import Team
from engine.recipes import Plan
from engine.runtimes.keeping import ASKING_SHARE, WINDOW_SHARE, steps_before_full

# Of the room in the object store that the messages in flight leave, which serves whoever else needs it, too.
_SHARE = 0.5


def history_bytes(team: Team, plan: Plan, spare_bytes: int) -> int:
    """Return how many bytes of messages are kept; 0 where states would have to be asked for all the time.

    What an evaluation gives may be more, and is then let go before it is over.

    Args:
        team: whose messages.
        plan: how many steps are in flight.
        spare_bytes: of the object store, beside what the steps in flight need.
    """
    kept = int(_SHARE * max(0, spare_bytes))
    step = max(program.bytes_per_step for program in team.training)
    return kept if steps_before_full(kept, step) >= plan.steps_in_flight(len(team.names)) else 0


def store_bytes_for_history(team: Team, plan: Plan) -> int:
    """Return how many spare bytes of an object store are enough for `history_bytes` not to be 0."""
    step = max(program.bytes_per_step for program in team.training)
    return math.ceil(plan.steps_in_flight(len(team.names)) * step / WINDOW_SHARE / _SHARE)


@dataclass
class Given:
    """What a call gives, or an answer: its place in the object store, which changes when it is made again.

    Attributes:
        reference: to the object.
        is_gone: whether whoever was to give it went away: nobody has it.
    """

    reference: Any = None
    is_gone: bool = False


@dataclass(frozen=True)
class Asked:
    """One call or question of one learner.

    Attributes:
        learner: its name.
        number: of the call, as of `LearnerActor.call`.
        send: asks the learner; returns the references to what it will give.
        given: what it gives, in this order.
    """

    learner: str
    number: int
    send: Callable[[], Sequence[Any]]
    given: tuple[Given, ...]

    @property
    def name(self) -> tuple[str, int]:
        """Learner and number, which no other call or question of the team has."""
        return self.learner, self.number

    def ask(self) -> None:
        """Ask the learner, for the first time or again."""
        for given, reference in zip(self.given, self.send(), strict=True):
            given.reference = reference


@dataclass
class _Chapter:
    """What was asked for between two questions for states.

    Attributes:
        number: no other of its history has it.
        states: of the learners at its beginning; empty for initial weights, None while they have not been told.
        begins: how many steps of any program had been asked for.
        trained: how many steps of training.
        asked: in order.
        bytes: of the messages.
        steps: of training.
    """

    number: int
    states: Mapping[str, LearnerState] | None
    begins: int
    trained: int
    asked: list[Asked] = field(default_factory=list)
    bytes: int = 0
    steps: int = 0


class History:
    """Keeps what was asked for, and with it the messages, within a number of bytes.

    Args:
        most_bytes: of messages that may be kept. Beyond that the oldest are let go, and no learner can be told again
            until the next states are known.
        states: of the learners now; empty for initial weights.
        begins: steps of any program that had been asked for before.

    Attributes:
        position: how many steps of any program have been asked for.
        trained: how many steps of training, since the states with which it began.
    """

    def __init__(self, most_bytes: int, states: Mapping[str, LearnerState], begins: int = 0) -> None:
        self._most, self.position, self.trained = most_bytes, begins, 0
        self._is_of_use = True
        self._chapters: deque[_Chapter] = deque([_Chapter(0, states, begins, 0)])
        self._newest = 0

    def beginning_with(self, states: Mapping[str, LearnerState]) -> History:
        """Return a history that begins here, with states that the learners were given."""
        return History(self._most, states, self.position)

    def add(self, asked: Sequence[Asked], size: int, steps: int, moments: int = 0) -> None:
        """Keep what was asked for.

        Args:
            asked: calls or questions.
            size: bytes of the messages that the calls give.
            steps: of training that they make up.
            moments: steps of any program, an evaluation's batches among them.
        """
        self.position += moments
        self.trained += steps
        if not self._chapters:
            return
        newest = self._chapters[-1]
        newest.asked.extend(asked)
        newest.bytes += size
        newest.steps += steps
        while self._chapters and sum(chapter.bytes for chapter in self._chapters) > self._most:
            self._chapters.popleft()

    @property
    def is_full(self) -> bool:
        """Whether states have to be asked for now, so that what is kept can be let go in time."""
        if not self._is_of_use or not self._chapters:
            return self._is_of_use
        kept = sum(chapter.bytes for chapter in self._chapters)
        # Where they were just asked for, the answer is to come.
        return kept > ASKING_SHARE * self._most and self._chapters[-1].bytes > WINDOW_SHARE * self._most

    def asked_for_states(self) -> Callable[[Mapping[str, LearnerState]], None]:
        """Take note that the learners were just asked for their states; returns what is to be told them."""
        self._newest += 1
        number = self._newest
        if self._is_of_use:
            self._chapters.append(_Chapter(number, None, self.position, self.trained))

        def told(states: Mapping[str, LearnerState]) -> None:
            if number not in (chapter.number for chapter in self._chapters):
                return
            # A knowledge store says what it has changed: less than its state, and the next one would miss it.
            if any(KNOWLEDGE_FOLLOWS in state.extra for state in states.values()):
                self._is_of_use = False
                self._chapters.clear()
                return
            while self._chapters[0].number != number:
                self._chapters.popleft()
            self._chapters[0].states = states

        return told

    @property
    def states(self) -> Mapping[str, LearnerState] | None:
        """States from which a learner can be told again; empty for initial weights, None where none are known."""
        return self._chapters[0].states if self._chapters else None

    @property
    def begins(self) -> int | None:
        """How many steps of any program had been asked for then; None where nobody will ever be told again."""
        if not self._is_of_use:
            return None
        return self._chapters[0].begins if self._chapters else self.position

    @property
    def known(self) -> int:
        """Steps of training after which the learners had these states."""
        return self._chapters[0].trained

    @property
    def steps(self) -> int:
        """Steps of training since then."""
        return sum(chapter.steps for chapter in self._chapters)

    def __iter__(self) -> Iterator[Asked]:
        """Iterate over what was asked for since then."""
        for chapter in self._chapters:
            yield from chapter.asked
