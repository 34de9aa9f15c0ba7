"""Losses of learners in a training: who may come back alone or go away, how often, and what is noted of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.errors import GOES_ON, EngineError, LearnerLost, LearnerPreempted
from engine.training.loop import Training
from engine.training.run_record import RunRecord
from engine.training.session import Session
from engine.training.snapshots import Snapshots


class LossesOfTraining:
    """Says whether lost learners may come back while the others wait or go on, and takes note of it; see `Losses`.

    Args:
        training: in which learners are lost.
        snapshots: of it.
        budget: of failures.
        record: of the run.
        session: whose learners they are.
    """

    def __init__(
        self, training: Training, snapshots: Snapshots, budget: Budget, record: RunRecord, session: Session
    ) -> None:
        self._training, self._snapshots, self._budget, self._record = training, snapshots, budget, record
        self._noted: list[LearnerLost] = []
        goes_on = session.recipe.method.goes_on_without_lost
        # All learners of a network go with any of them: its other segments have nothing to take.
        self._networks = {name: each.learners for name, each in session.team.networks.items()} if goes_on else {}

    @property
    def is_hurried(self) -> bool:
        """As `Losses.is_hurried`."""
        return self._training.is_interrupted

    def may_come_back(self, lost: Sequence[LearnerLost], steps: int) -> bool:
        """As `Losses.may_come_back`."""
        if not self._may_go_on(lost):
            return False
        self._noted += lost
        for error in lost:
            cause = without_remedy(error)
            self._record.note_fault(cause, self._record.reached - steps)
            self._record.say(
                f"{cause}; it alone is started again, at least {steps:,} steps behind, while the others wait "
                f"({self._budget.describe()})"
            )
            if error.details:
                self._record.folder.log(error.details)
        return True

    def _may_go_on(self, lost: Sequence[LearnerLost]) -> bool:
        if any(isinstance(error, LearnerPreempted) for error in lost):
            # Its bundle may still be on the node that is taken away.
            return False
        kept = max(self._training.saved, self._snapshots.step)
        if self._training.is_interrupted or not self._budget.allows(kept, self._record.reached):
            # Nor may the team be started again for those that were lost before.
            self._noted = []
            return False
        return True

    def are_back(self) -> None:
        """As `Losses.are_back`."""
        self._record.faults.settle()
        self._record.show_faults()
        self._noted = []

    def gone_with(self, lost: Collection[str]) -> frozenset[str]:
        """As `Losses.gone_with`."""
        if self._training.is_ending:
            # Else what is kept of it would not be what was scored.
            return frozenset()
        found = {name for names in self._networks.values() if set(names) & set(lost) for name in names}
        # Who has diverged trains nothing: steps would pass that nobody learns from.
        idle = found.union(self._training.diverged)
        is_anybody_left = any(not set(names) & idle for names in self._networks.values())
        return frozenset(found) if is_anybody_left else frozenset()

    def may_go_on_without(self, lost: Sequence[LearnerLost]) -> bool:
        """As `Losses.may_go_on_without`."""
        if not self._may_go_on(lost):
            return False
        self._noted += lost
        for error in lost:
            self._record.note_fault(without_remedy(error), self._record.reached)
            if error.details:
                self._record.folder.log(error.details)
        return True

    def have_left(self, lost: Sequence[LearnerLost], away: Collection[str], known: int) -> None:
        """As `Losses.have_left`."""
        # Nobody waits.
        self.are_back()
        known += self._training.first_step
        causes = {error.learner: without_remedy(error) for error in lost}
        for network, names in self._networks.items():
            if set(names) & set(away):
                cause = next(cause for name, cause in causes.items() if name in names)
                since = self._record.absences.begin(network, cause, known)
                self._record.say(
                    f"{cause}; the others go on without {network}, which returns as it was after step {since:,} "
                    f"({self._budget.describe()})"
                )

    def have_returned(self, returned: Collection[str], trained: int) -> None:
        """As `Losses.have_returned`."""
        step = self._training.first_step + trained
        for network, names in self._networks.items():
            if set(names) & set(returned):
                self._record.absences.end(network, step)
                self._record.say(f"{network} takes part again, from step {step + 1:,} on")

    def has_noted(self, error: EngineError) -> bool:
        """Return whether an error was noted as one after which this team was to go on, which it did not."""
        return any(error is noted for noted in self._noted)


class Budget:
    """Counts failures between which training came no further than it had been.

    Args:
        most: how many are recovered from; -1 for any number.
        kind: of failure, in words; the field of the plan is named after it.
        of_all: whether all are counted: before a node is taken away training always comes further.
    """

    def __init__(self, most: int, kind: str, of_all: bool = False) -> None:
        self._most, self._kind, self._of_all = most, kind, of_all
        self._count, self._furthest = 0, -1

    def allows(self, kept: int, reached: int) -> bool:
        """Return whether one more failure may be recovered from.

        Args:
            kept: step of the newest snapshot or checkpoint.
            reached: last step that was reported.
        """
        if kept > self._furthest and not self._of_all:
            self._count = 0
        self._furthest = max(self._furthest, kept, reached)
        self._count += 1
        return self._most < 0 or self._count <= self._most

    @property
    def is_first(self) -> bool:
        """Whether the last one was the first since training came further."""
        return self._count == 1

    def describe(self) -> str:
        """Return how many there were, in words."""
        field = f"plan.recovery.max_{self._kind.replace(' ', '_')}s"
        most = "" if self._most < 0 else f" of at most {self._most}, {field}"
        return f"{self._kind} {self._count}{most}"


def without_remedy(error: EngineError) -> str:
    """Return an error's text without what the user could do about it, which is done here."""
    return str(error).replace(f" ({GOES_ON})", "")
