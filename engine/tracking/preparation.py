"""Progress of reading images, before there is anything to train on."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE = 5.0
_PAUSE_WITHOUT_NEWS = 60.0


class Preparation:
    """Says every few seconds how far something is; what is done sooner is not mentioned.

    Args:
        say: writes a line.
        clock: a steady clock in seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._last_line, self._last_at = "", clock()

    def __call__(self, text: str, share: float) -> None:
        """Take in that so much of something is done, 0 to 1."""
        line, now = f"{text} {share:.0%}", self._clock()
        if now - self._last_at >= (_PAUSE_WITHOUT_NEWS if line == self._last_line else _PAUSE):
            self._last_line, self._last_at = line, now
            self._say(line)
