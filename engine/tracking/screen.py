"""Contents of the live table, and what it leaves out when the terminal is narrow."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from engine.tracking.progress import Progress
from engine.tracking.records import (
    ACCURACY_GAP,
    ENSEMBLE,
    IMAGES_PER_SECOND,
    KL_BETWEEN_PEERS,
    LEARNING_RATE,
    LOSS_PREFIX,
    LOSS_TOTAL,
    MEMORY_BYTES,
    TRAIN,
    WAITING_SHARE,
)
from engine.tracking.scores import format_score, words_of
from engine.tracking.tables import (
    format_bytes,
    format_nats,
    format_points,
    format_rate,
    format_seconds,
    format_share,
)

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.console import ConsoleOptions, RenderableType

_GAP = 2
_BETWEEN_PEERS = (
    (ACCURACY_GAP, "accuracy gap", format_points),
    (KL_BETWEEN_PEERS, "KL between peers", format_nats),
)


class Screen:
    """The live table as rich draws it, for whatever width the terminal has at that moment.

    Args:
        progress: what to show.
        lock: held while reading `progress`, which another thread may be changing.
        clock: the steady clock that `progress` was given its times of.
    """

    def __init__(self, progress: Progress, lock: threading.Lock, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._lock = lock
        self._clock = clock

    def __rich_console__(self, terminal: Terminal, options: ConsoleOptions) -> Iterator[RenderableType]:
        with self._lock:
            parts = list(self._parts(options.max_width))
        yield from parts

    def _parts(self, width: int) -> Iterator[RenderableType]:
        from rich.text import Text

        progress, now = self._progress, self._clock()
        yield Text(progress.title, style="bold")
        yield _bar(progress)
        columns = _columns(progress)
        shown = _fitting(columns, width)
        yield _table(shown)
        if hidden := [column.header.replace("\n", " ") for column in columns if column not in shown]:
            yield Text(f"too narrow for: {', '.join(hidden)}", style="dim")
        yield Text("  ".join(_rates(progress, now)))
        if evaluations := _evaluations(progress):
            yield Text("  ".join(evaluations), style="bold")
        if (stalled := progress.seconds_stalled(now)) is not None:
            yield Text(f"no step finished for {format_seconds(stalled)}", style="bold yellow")


@dataclass(frozen=True)
class _Column:
    header: str
    cells: tuple[str, ...]
    rank: int  # The largest goes first when the terminal is narrow; 0 always stays.

    @property
    def width(self) -> int:
        return max(len(line) for text in (self.header, *self.cells) for line in text.split("\n"))


@dataclass(frozen=True)
class _Row:
    label: str
    learner: str | None
    evaluated: str | None  # Whose score on other images stands in the row: a peer's with its last learner.


def _rows(progress: Progress, names: Sequence[str]) -> list[_Row]:
    """One row for each learner, those of a peer one below the other, then the ensemble and the team."""
    rows = []
    for network, learners in progress.networks().items():
        for learner in learners:
            label = f"{learner} (left)" if progress.has_left(learner) else learner
            rows.append(_Row(label, learner, network if learner == learners[-1] else learner))
    if progress.evaluation_splits(ENSEMBLE):
        rows.append(_Row(ENSEMBLE, ENSEMBLE, ENSEMBLE))
    if any(progress.newest(None, TRAIN, name) for name in names):
        rows.append(_Row("team", None, None))
    return rows


def _columns(progress: Progress) -> list[_Column]:
    """One column for each thing that at least one learner has measured."""
    losses, headline = progress.loss_names(), progress.headline
    words, form = words_of(headline), partial(format_score, headline)
    rows = _rows(progress, (*losses, headline.name, WAITING_SHARE, MEMORY_BYTES))

    def column(header: str, split: str, name: str, form: Callable[[float], str], rank: int) -> _Column | None:
        owners = [row.learner if split == TRAIN else row.evaluated for row in rows]
        found = [progress.newest(owner, split, name) for owner in owners]
        if not any(found):
            return None
        return _Column(header, tuple("-" if record is None else form(record.value) for record in found), rank)

    steps = [progress.newest_step(row.learner) for row in rows]
    candidates = [
        _Column("learner", tuple(row.label for row in rows), 0),
        _Column("step", tuple("-" if step is None else str(step) for step in steps), 6) if any(steps) else None,
    ]
    for name in losses:
        header, rank = ("loss", 1) if name == LOSS_TOTAL else (name[len(LOSS_PREFIX) :].replace("_", "\n"), 5)
        candidates.append(column(header, TRAIN, name, _loss, rank))
    candidates.append(column(words, TRAIN, headline.name, form, 3))
    evaluated = [row.evaluated for row in rows if row.evaluated is not None]
    for split in sorted({split for network in evaluated for split in progress.evaluation_splits(network)}):
        candidates.append(column(f"{split}\n{words}", split, headline.name, form, 2))
    candidates.append(column("images/s", TRAIN, IMAGES_PER_SECOND, format_rate, 4))
    candidates.append(column("waiting", TRAIN, WAITING_SHARE, partial(format_share, decimals=0), 7))
    candidates.append(column("memory", TRAIN, MEMORY_BYTES, format_bytes, 3))
    return [found for found in candidates if found is not None]


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """The columns that fit, the least important of the others left out."""
    shown = list(columns)
    while len(shown) > 1 and sum(column.width for column in shown) + _GAP * (len(shown) - 1) > width:
        # The last of equals goes first.
        shown.remove(max(reversed(shown), key=lambda column: column.rank))
    return shown


def _table(columns: Sequence[_Column]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(Text(column.header), justify="right" if index else "left", no_wrap=True, vertical="bottom")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell, style="bold red" if "nan" in cell or "inf" in cell else "") for cell in cells))
    return table


def _bar(progress: Progress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, _GAP, 0, 0), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    epoch = "waiting for the first step" if progress.epoch is None else f"epoch {progress.epoch}"
    share = progress.step / progress.total_steps if progress.total_steps else 0.0
    line.add_row(
        Text(f"{epoch}  step {progress.step}/{progress.total_steps}"),
        ProgressBar(total=max(1, progress.total_steps), completed=progress.step),
        Text(format_share(share, 0)),
    )
    return line


def _rates(progress: Progress, now: float) -> list[str]:
    numbers = [f"{format_seconds(progress.seconds_since_start(now))} gone"]
    if (left := progress.seconds_left(now)) is not None:
        numbers.append(f"{format_seconds(left)} left")
    if (speed := progress.images_per_second()) is not None:
        numbers.append(f"{format_rate(speed)} images/s")
    found = [progress.newest(learner, TRAIN, LEARNING_RATE) for learner in [None, *progress.learners]]
    rates = {record.value for record in found if record is not None}
    if len(rates) == 1:
        numbers.append(f"learning rate {rates.pop():.3g}")
    return numbers


def _evaluations(progress: Progress) -> list[str]:
    """What was measured of the whole team, and of all peers of a cohort together."""
    found, headline = [], progress.headline
    shown: list[tuple[str | None, str, str, Callable[[float], str]]] = [
        (None, headline.name, words_of(headline), partial(format_score, headline)),
        *((ENSEMBLE, *score) for score in _BETWEEN_PEERS),
    ]
    for owner, name, words, form in shown:
        for split in progress.evaluation_splits(owner):
            if record := progress.newest(owner, split, name):
                found.append(f"{split} {words} {form(record.value)} (epoch {record.epoch})")
    return found


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 100 or not math.isfinite(value) else f"{value:.3e}"
