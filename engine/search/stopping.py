"""Signals during a search: at once, or when what must not be cut short has come to an end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import ray
from typing_extensions import Self

from engine.errors import Interrupted
from engine.training.interruption import ONE_EVENT_SECONDS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the word of a scheduler, and a terminal that is closed: all mean the same."""


class Stop:
    """While entered, turns signals into Interrupted, and inside of `held` remembers them until it ends.

    An exception that a signal raises in the middle of Ray's own code can end the process with SIGABRT. A signal that
    this process was started to ignore, as by nohup, stays ignored. Signals can be handled in the main thread only;
    elsewhere nothing is changed.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0
        self._holding = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in SIGNALS}
            # What Python does not know was set by another library, and is left to it.
            self._before = {number: each for number, each in before.items() if each not in (signal.SIG_IGN, None)}
            self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self.requested
        if again and now - self._since < ONE_EVENT_SECONDS:
            return
        self.requested, self._since = True, now
        # Whoever asks twice does not want to wait.
        if again or not self._holding:
            raise Interrupted

    @contextmanager
    def held(self) -> Iterator[None]:
        """Run a block that a first signal does not cut short; after it `requested` says whether one has come.

        Ray sets a handler of its own when it starts, whose SystemExit is no interruption: it is not let in.

        Raises:
            Interrupted: the block failed after a signal, which may have reached what it waited for, too.
        """
        before, self._holding = self._holding, True
        set_handler = getattr(ray._private.utils, "set_sigterm_handler", None)
        if self._before and set_handler is not None:
            ray._private.utils.set_sigterm_handler = lambda handler: None
        try:
            yield
        except Exception as error:
            self.raise_if_requested(error)
            raise
        finally:
            self._holding = before
            if self._before and set_handler is not None:
                ray._private.utils.set_sigterm_handler = set_handler
                self._install()

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Run a block that Interrupted may end after a signal; what comes after it asks `requested`."""
        try:
            yield
        except Interrupted:
            if not self.requested:
                raise

    def raise_if_requested(self, cause: Exception | None = None) -> None:
        """Raise Interrupted if a signal has come; ``cause`` is what failed since."""
        if self.requested:
            raise Interrupted from cause
