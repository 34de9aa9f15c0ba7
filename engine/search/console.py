"""Progress of a search: a table of trials on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO, cast

from engine.tracking.plain import PlainConsole

_MOST_ROWS = 20


class SweepConsole(PlainConsole):
    """Keeps a table of trials at the bottom of a terminal, while messages scroll above it.

    Args:
        stream: where to write, as `Output`; a table only if it is a terminal.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream, show_progress=False)
        self._live = None
        if self._stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
            from rich.console import Console as Terminal
            from rich.live import Live

            # What others print goes to a file meanwhile, so nothing need be moved aside.
            terminal = Terminal(
                file=cast(TextIO, self._stream), force_terminal=True, markup=False, emoji=False, highlight=False
            )
            self._live = Live(console=terminal, redirect_stdout=False, redirect_stderr=False)

    def message(self, text: str) -> None:
        """Write a line, above the table if there is one."""
        if self._live is None:
            super().message(text)
        else:
            self._live.console.print(text, soft_wrap=True)

    def show(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show the trials as they are now; nothing where there is no terminal."""
        if self._live is None:
            return
        from rich.table import Table

        table = Table(*titles, box=None, header_style="bold")
        for row in rows[:_MOST_ROWS]:
            table.add_row(*row)
        if len(rows) > _MOST_ROWS:
            table.caption = f"and {len(rows) - _MOST_ROWS} more"
        self._live.update(table)
        if not self._live.is_started:
            self._live.start(refresh=True)

    def close(self) -> None:
        """Leave the last table where it is; a second call does nothing."""
        live, self._live = self._live, None
        if live is not None and live.is_started:
            live.stop()
        super().close()
