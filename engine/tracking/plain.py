"""Progress line by line, where there is no terminal: log files, pipes, continuous integration."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from typing_extensions import Self

from engine.tracking.output import Output
from engine.tracking.progress import Progress
from engine.tracking.records import (
    ACCURACY_GAP,
    ENSEMBLE,
    KL_BETWEEN_PEERS,
    LOSS_TOTAL,
    MEMORY_BYTES,
    TRAIN,
    Record,
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
    from engine.tasks import Metric

_SHORTEST_PAUSE = 5.0
_LONGEST_PAUSE = 60.0
_SHARE_OF_ELAPSED = 0.02  # Pauses grow with the run, so that a run of days does not fill its log.
_LEARNERS_BY_NAME = 4


class PlainConsole:
    """Writes one line of progress every few seconds and one for each evaluation.

    Args:
        stream: where to write; as `Output`.
        show_progress: False keeps messages and the summary only.
        clock: a steady clock in seconds.
    """

    def __init__(
        self, stream: TextIO | None, show_progress: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = Output(stream)
        self._show_progress = show_progress
        self._clock = clock
        self._progress: Progress | None = None
        self._last_line_at: float | None = None

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, headline: Metric) -> None:
        """Say what is going to be trained."""
        self._progress = Progress(title, learners, total_steps, first_step, headline, self._clock())
        self._last_line_at = None
        if self._show_progress:
            count = "1 learner" if len(learners) == 1 else f"{len(learners)} learners"
            resumed = f", going on after step {first_step}" if first_step else ""
            self._write(f"{title}: {count} ({', '.join(learners)}), {total_steps} steps{resumed}")

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        """Take in new records, and write a line if it is time for one or something was evaluated."""
        assert self._progress is not None, "start() comes before update()"
        now = self._clock()
        self._progress.advance(step, epoch, records, now)
        if not self._show_progress:
            return
        pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, _SHARE_OF_ELAPSED * self._progress.seconds_since_start(now)))
        trained = any(record.split == TRAIN for record in records)
        due = trained if self._last_line_at is None else now - self._last_line_at >= pause
        if due or (trained and step >= self._progress.total_steps):
            self._last_line_at = now
            self._write(progress_line(self._progress, now))
        for line in evaluation_lines(records, self._progress.headline):
            self._write(line)

    def message(self, text: str) -> None:
        """Write a line that is shown whatever the settings."""
        self._write(text)

    def finish(self, summary: Sequence[str]) -> None:
        """Write the summary; no progress is told afterwards."""
        for line in summary:
            self._write(line)

    def close(self) -> None:
        """Nothing to restore: lines leave a stream as it was."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def progress_line(progress: Progress, now: float) -> str:
    """One line: where the run is, total loss and headline score by learner, speed, largest memory, time left."""
    share = f" ({format_share(progress.step / progress.total_steps, 0)})" if progress.total_steps else ""
    parts = [f"epoch {progress.epoch}", f"step {progress.step}/{progress.total_steps}{share}"]
    headline = progress.headline
    parts += _by_learner(progress, LOSS_TOTAL, "loss", "{:.4f}".format)
    parts += _by_learner(progress, headline.name, words_of(headline), partial(format_score, headline))
    if (speed := progress.images_per_second()) is not None:
        parts.append(f"{format_rate(speed)} images/s")
    if memory := _newest_in_training(progress, MEMORY_BYTES):
        parts.append(f"memory {'up to ' if len(memory) > 1 else ''}{format_bytes(max(memory.values()))}")
    if (left := progress.seconds_left(now)) is not None:
        parts.append(f"{format_seconds(left)} left")
    return "  ".join(parts)


def evaluation_lines(records: Sequence[Record], headline: Metric) -> list[str]:
    """One line for each split that was evaluated: the team's headline score, then that of each network.

    For several networks that of their ensemble comes first, and at the end how far they are from one another.
    """
    measured: dict[tuple[str, int, int], dict[tuple[str | None, str], float]] = {}
    for record in records:
        if record.split != TRAIN:
            found = measured.setdefault((record.split, record.epoch, record.step), {})
            found[record.learner, record.name] = record.value
    lines = []
    for (split, epoch, step), found in measured.items():
        scores = {learner: value for (learner, name), value in found.items() if name == headline.name}
        together = [
            f"{learner or ''} {format_score(headline, scores.pop(learner))}".strip()
            for learner in (None, ENSEMBLE)
            if learner in scores
        ]
        if scores:
            networks = _by_name(scores, partial(format_score, headline), "peers")
            together.append(f"({networks})" if together else networks)
        if not together:
            continue
        parts = [f"epoch {epoch}", f"step {step}", f"{split} {words_of(headline)} {' '.join(together)}"]
        if (gap := found.get((ENSEMBLE, ACCURACY_GAP))) is not None:
            parts.append(f"gap {format_points(gap)}")
        if (divergence := found.get((ENSEMBLE, KL_BETWEEN_PEERS))) is not None:
            parts.append(f"KL between peers {format_nats(divergence)}")
        lines.append("  ".join(parts))
    return lines


def _newest_in_training(progress: Progress, name: str) -> dict[str | None, float]:
    """The newest values of the team and of its learners, those of a peer one after the other."""
    learners = [learner for part in progress.networks().values() for learner in part]
    found = {learner: progress.newest(learner, TRAIN, name) for learner in (None, *learners)}
    return {learner: record.value for learner, record in found.items() if record is not None}


def _by_learner(progress: Progress, name: str, label: str, form: Callable[[float], str]) -> list[str]:
    values = _newest_in_training(progress, name)
    if len(values) <= 1:
        return [f"{label} {form(value)}" for value in values.values()]
    left = [learner for learner in values if learner is not None and progress.has_left(learner)]
    words = _by_name({learner: value for learner, value in values.items() if learner not in left}, form, "learners")
    return [f"{label} {', '.join([words, *(f'{learner} left' for learner in left)])}"]


def _by_name(values: Mapping[str | None, float], form: Callable[[float], str], what: str) -> str:
    """Each value with its owner, or the range of many."""
    if len(values) <= _LEARNERS_BY_NAME:
        return ", ".join(f"{name or 'team'} {form(value)}" for name, value in values.items())
    broken = [str(name or "team") for name, value in values.items() if not math.isfinite(value)]
    finite = [value for value in values.values() if math.isfinite(value)]
    parts = [f"{form(min(finite))} to {form(max(finite))} over {len(finite)} {what}"] if finite else []
    return ", ".join([*parts, *([f"not finite in {', '.join(broken)}"] if broken else [])])
