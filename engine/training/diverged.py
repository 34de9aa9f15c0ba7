"""Diverged peers that have left their cohort, and whether anybody is left to train."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.errors import LearnerDiverged
from engine.methods import Network


class DivergedLearners:
    """The learners that have left their cohort.

    Args:
        networks: of the team.
        tell: told of each learner that has left.

    Attributes:
        reasons: why each learner has left, by name.
    """

    def __init__(self, networks: Iterable[Network], tell: Callable[[str], None]) -> None:
        self._networks, self._tell = list(networks), tell
        self.reasons: dict[str, str] = {}

    def note(self, answers: dict[str, str | None]) -> None:
        """Take in what learners answered to the question ``diverged``.

        Raises:
            LearnerDiverged: nobody is left.
        """
        for learner, reason in answers.items():
            if reason is None:
                # One that was lost may have returned as it was before it diverged.
                self.reasons.pop(learner, None)
            elif learner not in self.reasons:
                self.reasons[learner] = reason
                self._tell(f"{learner} has left the cohort: {reason}")
        left = [set(network.learners) & set(self.reasons) for network in self._networks]
        if all(left):
            learner = min(left[-1])
            raise LearnerDiverged(learner, f"every peer has left the cohort, this one last: {self.reasons[learner]}")
