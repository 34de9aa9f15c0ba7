"""The console of a training: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from typing_extensions import Self

from engine.tracking.live import LiveConsole
from engine.tracking.output import Output
from engine.tracking.plain import PlainConsole
from engine.tracking.records import Record

if TYPE_CHECKING:
    from engine.tasks import Metric


class Console(Protocol):
    """Shows the progress of one training; a context manager that leaves the terminal as it found it."""

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, headline: Metric) -> None:
        """Say what is trained, by whom, for how many steps, how many of them are done, and what judges them."""

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Take in that `step` steps are finished, and what was measured since the last call."""

    def message(self, text: str) -> None:
        """Say something that the user should not miss; allowed before `start`, too."""

    def finish(self, summary: Sequence[str]) -> None:
        """End the progress and write these lines."""

    def close(self) -> None:
        """Restore the terminal; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_console(stream: TextIO | None, quiet: bool) -> Console:
    """Choose how to tell the progress.

    Args:
        stream: where to write; standard error, so that standard output stays free for results. Whatever becomes of it,
            nothing is raised; None is a process that was started without it.
        quiet: tell no progress, only messages and the summary.
    """
    if stream is None or quiet or not Output(stream).isatty() or os.environ.get("TERM", "") in ("dumb", "unknown"):
        return PlainConsole(stream, show_progress=not quiet)
    return LiveConsole(stream)
