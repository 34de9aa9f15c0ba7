"""Reservations of a session: what its actors had when they were started before, which is what they are given again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.runtimes.ray.placement import Placement


@dataclass
class Reservations:
    """What the actors of one session reserve, however often they are started.

    Attributes:
        first: what they reserved at the first start; None before it, and in one process.
        latest: what they reserved at the newest start.
        less_will_do: whether a cluster that has no room for the first may give them less.
    """

    first: Placement | None = None
    latest: Placement | None = None
    less_will_do: bool = False

    def note(self, placement: Placement) -> None:
        """Take note of what actors that have started reserve."""
        self.first, self.latest = self.first or placement, placement

    def describe(self) -> str:
        """Return in words what they reserve, and instead of what; empty where it is what they had first."""
        if self.first is None or self.latest is None or self.latest == self.first:
            return ""
        return f"{self.latest.describe()}, instead of {self.first.describe()}"
