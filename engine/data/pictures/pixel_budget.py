"""Bounds the memory of pictures that several threads decode at the same time.

The limit for one picture would be worth little where sixteen threads decode one each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """Pixels that are in memory at once; who would be too many waits for others to be done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def taken(self, pixels: int, most: int) -> Iterator[None]:
        """Wait until so many pixels fit in, and keep them for the block.

        A thread may not take twice at a time: it could wait for itself.

        Args:
            pixels: of one picture; one that has more than `most` gets in alone.
            most: how many there may be at once.
        """
        share = min(pixels, most)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + share <= most or self._taken == 0)
            self._taken += share
        try:
            yield
        finally:
            with self._changed:
                self._taken -= share
                self._changed.notify_all()
