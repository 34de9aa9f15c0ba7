"""The interface of a runtime to the training loop; every runtime gives the same weights, bit for bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import EngineError, LearnerLost
from engine.program import Program


class Answer(Protocol):
    """What learners will have answered once they have finished all that was submitted before the question."""

    def result(self) -> dict[str, Any]:
        """Return each learner's answer by name, waiting if needed; raises LearnerError if a learner failed."""


class Losses(Protocol):
    """Who decides whether learners that are lost come back alone."""

    @property
    def is_hurried(self) -> bool:
        """Whether an end is wanted soon, so that no evaluation waits for those that are away."""

    def may_come_back(self, lost: Sequence[LearnerLost], steps: int) -> bool:
        """Return whether they may; else their loss is an error.

        Args:
            lost: says of each how it was lost.
            steps: of training that they are known to have done since their newest states, and have to do again.
        """

    def are_back(self) -> None:
        """Hear that they have caught up."""

    def gone_with(self, lost: Collection[str]) -> frozenset[str]:
        """Return without which learners the others go on, these and all that are nothing without them; none if not."""

    def may_go_on_without(self, lost: Sequence[LearnerLost]) -> bool:
        """Return whether the others may go on without learners that are lost; else their loss is an error."""

    def have_left(self, lost: Sequence[LearnerLost], away: Collection[str], known: int) -> None:
        """Hear that the others go on without them.

        Args:
            lost: says of each that is lost how it was lost.
            away: all that `gone_with` has named.
            known: steps of training after which they had the states with which they return, counted from those with
                which the team began.
        """

    def have_returned(self, returned: Collection[str], trained: int) -> None:
        """Hear that learners that were away take part again.

        Args:
            returned: their names.
            trained: steps of training, counted as above, that the others have made.
        """


class Runtime(Protocol):
    """Holds the learners of a team and runs programs on them."""

    def submit(self, program: Program, batch: Batch) -> None:
        """Run a program on a batch; may return before it is done, and waits when too many steps are in flight.

        Raises:
            LearnerError: an earlier or this step failed.
            LearnersAway: it would score networks of which some are away, and an end is wanted sooner.
        """

    def ask(self, question: str) -> Answer:
        """Ask all learners one of `engine.phases.QUESTIONS`, at this place in their order."""

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""

    def keep_for_losses(self, losses: Losses) -> str | None:
        """Keep from now on what a learner needs that is lost and comes back alone; before anything is submitted.

        Returns:
            why that cannot be done here, in words; None where it can. What is kept is let go as soon as the learners'
            states were asked for again.
        """

    @property
    def needs_states(self) -> bool:
        """Whether learners should be asked for their states, whatever that costs: little more can be kept."""

    def finish(self) -> None:
        """Wait until all that was submitted is done; raises LearnerError if a learner failed."""

    def notice(self) -> EngineError | None:
        """Return what a training has to end with soon, once what it has is kept; nearly always None.

        A node of its learners, or its own, is about to be taken away. It is asked between any two steps, and costs
        nothing.
        """

    def activity(self) -> float | None:
        """Return how many seconds the learners have computed so far; None while this process waits for none of them.

        It is asked from another thread, to tell slow learners from such as hang.
        """

    def abandon(self) -> None:
        """Let what waits for learners that hang fail, as far as that can be done; asked from another thread."""

    def describe(self) -> dict[str, str]:
        """Return where each learner lives, in words."""

    def close(self) -> None:
        """Let the learners go; leaves no process behind."""
