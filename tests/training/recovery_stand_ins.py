"""Stand-ins for what recovery drives: time, trainings, the record of a run, its session and an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import GOES_ON, LearnerLost
from engine.recipes import Plan, Recovery
from engine.runtimes import Losses, Reservations
from engine.runtimes.ray.placement import Placement
from engine.training import recovery


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Trainings:
    """Stands for `Training`: each attempt ends as the next of some outcomes says."""

    is_interrupted = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        monkeypatch.setattr(recovery, "Training", self.begin)

    def begin(self, *_: Any) -> Any:
        saved, outcome = self.outcomes.pop(0)

        def run() -> Any:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return SimpleNamespace(saved=saved, run=run, is_interrupted=self.is_interrupted)


class Record:
    """What `train_on` says and notes."""

    def __init__(self) -> None:
        self.reached = 0
        self.said: list[str] = []
        self.faults: list[tuple[str, int]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def note_fault(self, cause: str, checkpoint: int) -> None:
        self.faults.append((cause, checkpoint))

    def show_faults(self) -> None:
        self.said.append(f"faults: {len(self.faults)}")


def session_of(settings: Recovery, *refusals: Exception, less: Placement | None = None) -> Any:
    left, reservations = list(refusals), Reservations()
    reservations.note(Placement(2, 1.0, 1.0, "PACK", 4))

    def start() -> None:
        if reservations.less_will_do and less is not None:
            reservations.note(less)
        elif left:
            raise left.pop(0)

    kept_for: list[Losses] = []
    runtime = SimpleNamespace(keep_for_losses=kept_for.append)
    return SimpleNamespace(
        plan=Plan(recovery=settings),
        recipe=SimpleNamespace(method=SimpleNamespace(goes_on_without_lost=False)),
        team=SimpleNamespace(networks={}),
        start=start,
        left=left,
        reservations=reservations,
        runtime=runtime,
        kept_for=kept_for,
    )


DIED = LearnerLost("segment1", f"its process 7 died: signal SIGKILL ({GOES_ON})")
