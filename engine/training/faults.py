"""Faults that a run has recovered from, and what each of them has cost."""

from __future__ import annotations

import dataclasses
import time

from engine.tracking import format_seconds
from engine.training.result import Fault


class Faults:
    """Keeps the faults of a run.

    Attributes:
        found: in their order, those of earlier commands first; the last one costs more until the step is reached again
            at which it came.
    """

    def __init__(self) -> None:
        self.found: list[Fault] = []
        self._since: float | None = None

    def add(self, cause: str, step: int, checkpoint: int) -> None:
        """Note a fault that has just been seen.

        Args:
            cause: who failed, and how.
            step: the last one that was reported.
            checkpoint: the step from which training goes on.
        """
        self.settle()
        self.found.append(Fault(cause, step, max(0, step - checkpoint), 0.0))
        self._since = time.monotonic()

    def describe(self) -> list[str]:
        """Return each in words, with what it has cost if that is known yet."""
        lines = []
        for number, each in enumerate(self.found, start=1):
            is_over = self._since is None or number < len(self.found)
            cost = f"{each.repeated_steps:,} steps repeated, {format_seconds(each.seconds_lost)} lost"
            lines.append(f"{number}. after step {each.step:,}: {each.cause}" + (f" ({cost})" if is_over else ""))
        return lines

    def reached(self, step: int) -> None:
        """Take note that training has come as far as a step."""
        if self.found and step >= self.found[-1].step:
            self.settle()

    def settle(self) -> None:
        """Take what the last fault has cost so far for all of it."""
        if self._since is not None:
            seconds, self._since = time.monotonic() - self._since, None
            self.found[-1] = dataclasses.replace(self.found[-1], seconds_lost=seconds)
