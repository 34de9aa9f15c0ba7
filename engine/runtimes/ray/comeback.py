"""Coming back alone: learners that are lost are built anew, take up their newest states, and are asked again.

Or they go away: the others go on without them, and they return, when they are built, with their newest states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from ray.exceptions import RayError

from engine.checkpoints import LearnerState
from engine.errors import EngineError, LearnerError, LearnerLost, LearnersAway, PlanError
from engine.reading import first_line
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.away_learners import AwayLearners
from engine.runtimes.ray.history import Asked, History
from engine.runtimes.ray.waiting import SLICE_SECONDS
from engine.runtimes.runtime import Losses


class Others(Protocol):
    """What becomes of the learners that are not lost, which depends on how messages travel.

    Attributes:
        wait: whether they wait for one that is lost in the midst of a call, which then neither ends nor fails.
    """

    wait: bool

    @property
    def steps_in_flight(self) -> int:
        """Steps of training that were asked for and are not known to be done."""

    def part_from(self, lost: Collection[str]) -> None:
        """Let them wait with what they know, before those that are lost are built anew."""

    def are_built(self, history: History) -> None:
        """Wait for what has to be over, once those are built, before it is looked who else has ended meanwhile."""

    def go_on(self, lost: Collection[str], history: History) -> Mapping[str, int]:
        """Let them go on with those that were built; returns the first call of each that it is to be asked again.

        Of those that are not named nothing is asked again.
        """

    @property
    def are_evaluating(self) -> bool:
        """Whether what is in flight is scored, or may be."""

    def go_without(self, away: Collection[str], history: History) -> Mapping[str, int]:
        """Let them go on without those that are away, which have left; as `go_on`."""

    def finish(self) -> None:
        """Wait for all that is in flight."""


class ComeBack:
    """Brings learners of a team back that are lost, each alone, as long as somebody lets it.

    Args:
        actors: the team.
        others: what becomes of those that are not lost.
        is_in_flight: whether what was asked may not have been done yet when a learner was lost.
    """

    def __init__(self, actors: LearnerActors, others: Others, is_in_flight: Callable[[Asked], bool]) -> None:
        self._actors, self._others, self._is_in_flight = actors, others, is_in_flight
        self._losses: Losses | None = None
        self.away_learners = AwayLearners(actors)
        # Steps of training after which somebody has returned last.
        self._returned = 0
        self.history: History | None = None
        """What was asked for since the newest states; None where nothing is kept."""

    def keep(self, losses: Losses, most_bytes: int) -> None:
        """Keep from now on what a lost learner needs, within so many bytes of messages."""
        self._losses = losses
        self.history = History(most_bytes, {})

    def begin_with(self, states: Mapping[str, LearnerState]) -> None:
        """Take note that the learners have taken up states."""
        if self.history is not None:
            self.history = self.history.beginning_with(states)

    @property
    def needs_states(self) -> bool:
        """As `Runtime.needs_states`."""
        return self.history is not None and self.history.is_full

    def bring_back(self, error: LearnerLost) -> None:
        """Build the learners that are lost anew, and ask them again for what they did since their newest states.

        Args:
            error: says of one of them how it was lost.

        Raises:
            LearnerLost: that cannot be done, or is not wanted.
        """
        # Until it is done, and for ever where it fails: then the team is given up.
        history, losses, self._losses = self.history, self._losses, None
        states = history.states if history is not None else None
        if history is None or losses is None:
            raise error
        if states is None:
            raise error from EngineError(
                "more was given since its newest state than is kept, or that is not all it knows"
            )
        found = self._actors.lost()
        if error.learner in found:
            found[error.learner] = error
        elif not found:
            raise error
        away = losses.gone_with(found.keys() | self.away_learners.away) - self.away_learners.away
        if away and states and not self._others.are_evaluating:
            if not losses.may_go_on_without(list(found.values())):
                raise error
            self._go_on_without({name: states[name] for name in away}, history, error)
            self._losses = losses
            losses.have_left(list(found.values()), away, history.known)
            return
        if self.away_learners.away or history.known < self._returned:
            raise error from EngineError("others were away since its newest state")
        lost = set[str]()
        begin: dict[str, int] = {}
        try:
            # Again, because another one may have ended meanwhile.
            while found:
                steps = max(0, history.steps - self._others.steps_in_flight)
                if not losses.may_come_back(list(found.values()), steps):
                    raise error
                lost |= found.keys()
                self._others.part_from(lost)
                for asked in history:
                    if asked.learner in found:
                        begin.setdefault(asked.learner, asked.number)
                self._actors.replace(found, {name: states[name] for name in found if states}, begin)
                self._others.are_built(history)
                found = self._actors.lost()
            begin |= self._others.go_on(lost, history)
        except (LearnerError, PlanError) as why:
            # Whoever hears of it starts the team again.
            raise error from (why if why is not error else None)
        again = self._ask_again(begin, history, error)
        done = itertools.takewhile(lambda asked: not self._is_in_flight(asked), again)
        others = {
            given.reference: asked.learner
            for asked in history
            if asked.learner not in lost and self._is_in_flight(asked)
            for given in asked.given
        }
        self._losses = losses
        try:
            self._actors.settle([given.reference for asked in done for given in asked.given], self._others.wait, others)
        except LearnerLost as another:
            # Those that catch up may wait for this one.
            self.bring_back(another)
        else:
            losses.are_back()

    def _go_on_without(self, states: Mapping[str, LearnerState], history: History, error: LearnerLost) -> None:
        try:
            self.away_learners.begin(states)
            begin = self._others.go_without(states.keys(), history)
        except (LearnerError, PlanError) as why:
            raise error from (why if why is not error else None)
        self._ask_again(begin, history, error)

    def _ask_again(self, begin: Mapping[str, int], history: History, error: LearnerLost) -> list[Asked]:
        again = [asked for asked in history if asked.learner in begin and asked.number >= begin[asked.learner]]
        try:
            for asked in again:
                asked.ask()
        except RayError as why:
            raise error from EngineError(f"it cannot be asked again: {first_line(why)}")
        return again

    def let_return(self, *, wait: bool) -> Collection[str]:
        """Take up those that were away once nothing is in flight, if all are built; returns their names.

        Args:
            wait: for them to be built; else they return another time.

        Raises:
            LearnersAway: they are waited for, and an end is wanted sooner.
            LearnerLost: one was not built in time, could not be built, or has ended again.
        """
        if not self._could_return(wait=wait):
            return ()
        self._others.finish()
        # Another one may have been lost in what was in flight, and is being built now.
        if not self._could_return(wait=wait):
            return ()
        assert self.history is not None and self._losses is not None
        returned = self.away_learners.end()
        self._returned = self.history.trained
        self._losses.have_returned(returned, self.history.trained)
        return returned

    def _could_return(self, *, wait: bool) -> bool:
        if not self.away_learners.away:
            return False
        while not self.away_learners.are_built(SLICE_SECONDS if wait else 0.0):
            if not wait:
                return False
            if self._losses is not None and self._losses.is_hurried:
                raise LearnersAway(f"{', '.join(sorted(self.away_learners.away))}: not built anew yet")
        return True
