"""The search for a baseline's best settings, by running it: what is compared with must not be handicapped by us.

An estimate tells where to begin, never where to end. First all starts run, then what lies around the better ones, step
by step as long as a neighbour is faster; at last the fastest run again, in turns, and the median decides. What was
tried, and how fast it was, is reported beside the result.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.benchmarking.baselines.launch import CaseFailed

Settings = Mapping[str, Any]


class Ran(NamedTuple):
    """A run of settings."""

    seconds: float
    """Of a step."""
    kept: int | None = None
    """Bytes that are kept, where they decide, too."""
    others: float | None = None
    """Share of a core that other processes used meanwhile; None where this machine does not tell."""


Run = Callable[[Settings, bool], Ran]
"""Run settings for a few steps, and check first that they train rightly if asked to. Raises CaseFailed."""

SECONDS = 300.0
"""After which no more neighbours are tried; starts and finalists always are."""

# Neighbours are tried of what is not slower than this many times the fastest start, at most of so many: a better cut
# brings no more than that.
_PROMISING, _MOST_PROMISING = 1.25, 4
_MOST_NEIGHBOURS, _FEW_NEIGHBOURS, _CLEARLY = 24, 6, 0.98
_FINALISTS, _FINAL_ROUNDS = 4, 3


@dataclass
class Attempt:
    """Settings that were tried.

    Attributes:
        settings: of the case.
        first: seconds of a step when they were tried first; None if that failed.
        again: the same of a finalist, by round.
        kept: bytes that autograd keeps at most at one time, where they decide, too.
        failed: why they cannot be used; "" if they can.
        others: share of a core that other processes used, by run; None where this machine does not tell.
    """

    settings: Settings
    first: float | None = None
    again: list[float] = field(default_factory=list)
    kept: int | None = None
    failed: str = ""
    others: list[float | None] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of a step: the median of all that is known."""
        assert self.first is not None
        return statistics.median([self.first, *self.again])


@dataclass(frozen=True)
class Search:
    """What was tried for one baseline.

    Attributes:
        name: of the baseline.
        attempts: in order.
        chosen: the fastest; empty if all failed.
        seconds: that the search took.
        is_cut_short: whether neighbours were left untried, because there were many or the time was over.
    """

    name: str
    attempts: Sequence[Attempt]
    chosen: Attempt | None
    seconds: float
    is_cut_short: bool

    @property
    def usable(self) -> list[Attempt]:
        """Attempts that did not fail, the fastest first."""
        return _fastest_first(self.attempts)

    @property
    def leanest(self) -> Attempt | None:
        """The attempt that keeps least, of those the fastest; None where that was not counted."""
        counted = [each for each in self.usable if each.kept is not None]
        return min(counted, key=lambda each: each.kept or 0, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "name": self.name,
            "seconds": self.seconds,
            "is_cut_short": self.is_cut_short,
            "chosen": None if self.chosen is None else self.chosen.settings,
            "attempts": [
                {
                    "settings": each.settings,
                    "milliseconds": None if each.first is None else 1e3 * each.first,
                    "final_milliseconds": [1e3 * seconds for seconds in each.again],
                    "kept": each.kept,
                    "others_cores": each.others,
                    "failed": each.failed,
                }
                for each in self.attempts
            ],
        }


class SettingsSearch:
    """One search.

    Args:
        name: of the baseline.
        starts: settings to begin with, at least one. If the first of a ``schedule`` end their processes, or make them
            wait in vain, the others of it are not tried.
        around: gives the neighbours of settings.
        run: see `Run`.
        limit: seconds; see `SECONDS`.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        name: str,
        starts: Sequence[Settings],
        around: Callable[[Settings], Sequence[Settings]],
        run: Run,
        limit: float = SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._starts, self._around, self._run, self._now = name, starts, around, run, now
        self._begun = now()
        self._end = self._begun + limit
        self._tried: dict[str, Attempt] = {}
        self._is_cut_short = False
        # To wait for hanging processes again and again would take hours.
        self._ended: dict[str | None, str] = {}

    def search(self) -> Search:
        """Run everything."""
        for start in self._starts:
            self._try(start, check=True)
        usable = self._usable()
        for attempt in usable[:_MOST_PROMISING]:
            if attempt.seconds <= _PROMISING * usable[0].seconds:
                self._walk(attempt)
        finalists = self._usable()[:_FINALISTS]
        if len(finalists) > 1:
            for _ in range(_FINAL_ROUNDS):
                for attempt in finalists:
                    self._repeat(attempt)
        chosen = min((each for each in finalists if not each.failed), key=lambda each: each.seconds, default=None)
        attempts = list(self._tried.values())
        return Search(self._name, attempts, chosen, self._now() - self._begun, self._is_cut_short)

    def _usable(self) -> list[Attempt]:
        return _fastest_first(self._tried.values())

    def _walk(self, attempt: Attempt) -> None:
        """Go from settings to a faster neighbour, and on from there, until none is faster."""
        left = _MOST_NEIGHBOURS
        while True:
            fastest, around = attempt, self._around(attempt.settings)
            for settings in around:
                if _key(settings) not in self._tried:
                    if self._now() > self._end or not left:
                        self._is_cut_short = True
                        return
                    left -= 1
                near = self._try(settings, check=False)
                if not near.failed and near.seconds < fastest.seconds:
                    fastest = near
                    # With many neighbours there is no time to try all of them before the first move.
                    if len(around) > _FEW_NEIGHBOURS and near.seconds < _CLEARLY * attempt.seconds:
                        break
            if fastest is attempt:
                return
            attempt = fastest

    def _try(self, settings: Settings, check: bool) -> Attempt:
        key = _key(settings)
        if key in self._tried:
            return self._tried[key]
        attempt = self._tried[key] = Attempt(settings)
        schedule = settings.get("schedule")
        if schedule in self._ended and not any(each.settings.get("schedule") == schedule for each in self._usable()):
            attempt.failed = self._ended[schedule]
            return attempt
        try:
            ran = self._run(settings, check)
            attempt.first, attempt.kept = ran.seconds, ran.kept
            attempt.others.append(ran.others)
        except CaseFailed as failed:
            attempt.failed = str(failed)
            if failed.is_over:
                self._ended[schedule] = str(failed)
        return attempt

    def _repeat(self, attempt: Attempt) -> None:
        if attempt.failed:
            return
        try:
            ran = self._run(attempt.settings, False)
            attempt.again.append(ran.seconds)
            attempt.others.append(ran.others)
        except CaseFailed as failed:
            attempt.failed = str(failed)


def _fastest_first(attempts: Iterable[Attempt]) -> list[Attempt]:
    ran = [each for each in attempts if each.first is not None and not each.failed]
    return sorted(ran, key=lambda each: each.seconds)


def _key(settings: Settings) -> str:
    return json.dumps(dict(settings), sort_keys=True)
