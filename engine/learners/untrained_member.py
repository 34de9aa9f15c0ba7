"""A member of a team in which nothing is trained."""

from __future__ import annotations

from typing import Any

from engine.learners.member import Member
from engine.learners.meters import Timeline


class UntrainedMember(Member):
    """A member of a team that takes part in its programs but does not learn; it answers what a `Learner` answers."""

    def ask_metrics(self) -> dict[str, float]:
        """Return nothing: it does not learn."""
        return {}

    def ask_score(self) -> dict[str, dict[str, float]]:
        """Return nothing: it is not what is trained."""
        return {}

    def ask_timeline(self) -> dict[str, Any]:
        """Return no calls; otherwise as `Learner.ask_timeline`."""
        return Timeline().report()

    def ask_diverged(self) -> None:
        """Return nothing: it never leaves."""
        return None
