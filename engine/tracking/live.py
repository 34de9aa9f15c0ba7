"""The terminal while training: one table, refreshed in place, and given back at the end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TextIO, cast

from typing_extensions import Self

from engine.tracking.output import Output
from engine.tracking.progress import Progress
from engine.tracking.records import Record
from engine.tracking.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.live import Live

    from engine.tasks import Metric

_REFRESHES_PER_SECOND = 2.0


class LiveConsole:
    """Keeps one table at the bottom of a terminal up to date, while messages scroll above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console as Terminal

        self._terminal: Terminal = Terminal(
            file=cast(TextIO, Output(stream)), force_terminal=True, markup=False, emoji=False, highlight=False
        )
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._progress: Progress | None = None

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, headline: Metric) -> None:
        """Show the table; it is refreshed by a thread of its own, so that a slow step does not look like a hang."""
        from rich.live import Live

        self.close()
        self._progress = Progress(title, learners, total_steps, first_step, headline, time.monotonic())
        screen = Screen(self._progress, self._lock, time.monotonic)
        self._live = Live(
            console=self._terminal,
            get_renderable=lambda: screen,
            refresh_per_second=_REFRESHES_PER_SECOND,
            # Standard output may be a pipe that wants its results; only what goes to this terminal is moved aside.
            redirect_stdout=Output(sys.stdout).isatty(),
            redirect_stderr=Output(sys.stderr).isatty(),
        )
        self._live.start(refresh=True)

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Take in new records; they appear at the next refresh."""
        assert self._progress is not None, "start() comes before update()"
        with self._lock:
            self._progress.advance(step, epoch, records, time.monotonic())

    def message(self, text: str) -> None:
        """Write a line above the table."""
        self._terminal.print(text, soft_wrap=True)

    def finish(self, summary: Sequence[str]) -> None:
        """Leave the last table where it is and write the summary below it."""
        self.close()
        for line in summary:
            self._terminal.print(line, soft_wrap=True)

    def close(self) -> None:
        """Stop refreshing and give the cursor back; a second call does nothing."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
