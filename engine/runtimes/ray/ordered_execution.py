"""Ordered execution: in which order, and in which thread, an actor does its learner's work.

Calls come in several threads, so that the messages of the next call are fetched and those of the last one are stored
while the learner computes; the work itself is done in one thread, in the order in which it was asked for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = tuple[Callable[[], Any], "Future[Any]"]


class OrderedExecution:
    """The thread in which a learner lives.

    It is one and the same from the learner's birth on: numbers of threads, streams and modes of torch belong to a
    thread. It is a daemon, because a learner that waits for a partner must not keep its process from ending.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._turn = threading.Condition()
        self._next = 0
        threading.Thread(target=self._live, name="learner", daemon=True).start()

    def _live(self) -> None:
        while True:
            work, future = self._work.get()
            try:
                result = work()
            except BaseException as error:  # told to whoever asked for the work
                del work
                future.set_exception(error)
            else:
                # Work holds the messages that it takes, and the next may not come for long.
                del work
                future.set_result(result)
                del result
            del future

    def do(self, work: Callable[[], Any]) -> Any:
        """Do work after what was asked for so far; returns its result, or raises what it raises."""
        future: Future[Any] = Future()
        self._work.put((work, future))
        return future.result()

    def do_in_turn(self, number: int, work: Callable[[], Any]) -> Any:
        """Do the work number 0, 1, 2, ... after that of all lower numbers, in whatever order these are asked for."""
        future: Future[Any] = Future()
        with self._turn:
            self._turn.wait_for(lambda: self._next == number)
            self._work.put((work, future))
            self._next += 1
            self._turn.notify_all()
        return future.result()

    @property
    def next(self) -> int:
        """The number of the next work to be done in turn."""
        return self._next

    def continue_at(self, number: int) -> None:
        """Take a number for that of the next work; while nobody waits for a turn."""
        with self._turn:
            self._next = number
            self._turn.notify_all()
