"""A learner's present activity, to be asked from outside while it goes on."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Of one thread, from the outermost call that is not Python's own.
_MOST_LINES = 40


@dataclass(frozen=True)
class Sign:
    """A sign of life of a learner's process.

    Attributes:
        count: of what it has begun so far; grows while it makes progress.
        doing: in words, such as ``forward of step 12 of epoch 0``; empty while it waits for work or for a partner.
        processor_seconds: that its process has used.
        stacks: of its threads in Python, as text; empty unless asked for.
    """

    count: int
    doing: str
    processor_seconds: float
    stacks: str = ""


class Doing:
    """Remembers what a learner's thread has begun; others may look at any time.

    Attributes:
        looks: how often somebody has looked: the driver does so again and again while it waits for the learners.
    """

    def __init__(self) -> None:
        self._count, self._doing = 0, ""
        self.looks = 0

    @contextmanager
    def while_in(self, what: str) -> Iterator[None]:
        """Mark a block in which the learner computes."""
        self._count, self._doing = self._count + 1, what
        try:
            yield
        finally:
            self._count, self._doing = self._count + 1, ""

    def sign(self, *, with_stacks: bool) -> Sign:
        """Return a sign of life."""
        self.looks += 1
        return Sign(self._count, self._doing, time.process_time(), _stacks() if with_stacks else "")


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    parts = []
    for number, frame in sys._current_frames().items():
        if number != own:
            lines = "".join(traceback.format_stack(frame)).splitlines()[-_MOST_LINES:]
            parts.append(f"thread {names.get(number, number)}:\n" + "\n".join(lines))
    return "\n".join(parts)
