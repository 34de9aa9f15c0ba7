"""Progress of a training, whoever shows it, and of reading images before there is anything to train on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.tracking.records import (
    ENSEMBLE,
    IMAGES_PER_SECOND,
    LOSS_PREFIX,
    LOSS_TOTAL,
    TRAIN,
    Record,
    learners_by_network,
)

if TYPE_CHECKING:
    from engine.tasks import Metric

_SECONDS_BETWEEN_MARKS = 0.5
_MARKS = 120  # With the spacing above the rate is that of the last minute, or of longer steps' last 120.
_SECONDS_UNTIL_STALLED = 15.0
_STEPS_UNTIL_STALLED = 10.0
_PAUSE = 5.0
_PAUSE_WITHOUT_NEWS = 60.0


class Progress:
    """The newest value of every metric, and how fast the steps go by.

    All times are of one steady clock, in seconds, and are given by the caller.

    Args:
        title: what is trained.
        learners: names in the order to show them; others are added when their first record comes.
        total_steps: steps of the whole run.
        first_step: steps that were finished before, 0 unless the run goes on from a checkpoint.
        headline: the score by which the networks are judged.
        now: time of the start.
    """

    def __init__(
        self, title: str, learners: Sequence[str], total_steps: int, first_step: int, headline: Metric, now: float
    ) -> None:
        self.title = title
        self.learners = list(learners)
        self.total_steps = total_steps
        self.step = first_step
        self.headline = headline
        self.epoch: int | None = None
        self._newest: dict[tuple[str | None, str, str], Record] = {}
        self._trained_until: dict[str | None, int] = {}
        self._start = (now, first_step)
        self._latest = self._start
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MARKS)

    def advance(self, step: int, epoch: int, records: Sequence[Record], now: float) -> None:
        """Take in that `step` steps are finished, and new records."""
        self.step, self.epoch = step, epoch
        if step != self._latest[1]:
            self._latest = (now, step)
            if not self._marks or now - self._marks[-1][0] >= _SECONDS_BETWEEN_MARKS:
                self._marks.append(self._latest)
        for record in records:
            self._newest[record.learner, record.split, record.name] = record
            if record.split == TRAIN:
                self._trained_until[record.learner] = record.step
            if record.learner is not None and record.learner not in (ENSEMBLE, *self.learners):
                self.learners.append(record.learner)

    def newest(self, learner: str | None, split: str, name: str) -> Record | None:
        """The last record of a metric, None if there was none."""
        return self._newest.get((learner, split, name))

    def newest_step(self, learner: str | None) -> int | None:
        """The step of the learner's last training record."""
        return self._trained_until.get(learner)

    def networks(self) -> dict[str, list[str]]:
        """The learners of each network, in the order to show them; as `learners_by_network`."""
        return learners_by_network(self.learners)

    def has_left(self, learner: str) -> bool:
        """Whether the learner has trained here and does no more, since it left its cohort: learners report together."""
        return self._trained_until.get(learner, self.step) < max(self._trained_until.values(), default=0)

    def loss_names(self) -> list[str]:
        """Names of the losses seen in training, in order of appearance, the total first."""
        names = dict.fromkeys(
            name for _, split, name in self._newest if split == TRAIN and name.startswith(LOSS_PREFIX)
        )
        return sorted(names, key=lambda name: name != LOSS_TOTAL)

    def evaluation_splits(self, learner: str | None) -> list[str]:
        """Splits other than the training set on which this learner's headline score was measured."""
        return sorted(
            split
            for who, split, name in self._newest
            if who == learner and name == self.headline.name and split != TRAIN
        )

    def images_per_second(self) -> float | None:
        """The team's speed: its own record or, without one, that of its slowest learner."""
        if team := self.newest(None, TRAIN, IMAGES_PER_SECOND):
            return team.value
        found = [self.newest(learner, TRAIN, IMAGES_PER_SECOND) for learner in self.learners]
        return min((record.value for record in found if record is not None), default=None)

    def seconds_since_start(self, now: float) -> float:
        """Seconds since this process began, without those before a checkpoint."""
        return now - self._start[0]

    def seconds_left(self, now: float) -> float | None:
        """Seconds to the last step at the recent rate; None if no rate is known, at the end, and when overdue."""
        rate = self._steps_per_second()
        if rate is None:
            return None
        left = (self.total_steps - self._latest[1]) / rate - (now - self._latest[0])
        return left if left > 0 else None

    def seconds_stalled(self, now: float) -> float | None:
        """Seconds since the last finished step if that is much longer than steps took before, else None."""
        rate = self._steps_per_second()
        idle = now - self._latest[0]
        if rate is None or idle < max(_SECONDS_UNTIL_STALLED, _STEPS_UNTIL_STALLED / rate):
            return None
        return idle if self.step < self.total_steps else None

    def _steps_per_second(self) -> float | None:
        # The first step also loads and compiles, so the time before it counts only while nothing else is known.
        origin = self._marks[0] if self._marks and self._marks[0] != self._latest else self._start
        seconds, steps = self._latest[0] - origin[0], self._latest[1] - origin[1]
        return steps / seconds if seconds > 0 and steps > 0 else None


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
