"""Does a learner that comes back alone count as one failure, and is it said when and why none does?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import GOES_ON, LearnerLost, LearnerPreempted, PlanError
from engine.recipes import Recovery
from engine.training import recovery
from tests.training.recovery_stand_ins import DIED, Clock, Record, Trainings, session_of


class Lonely:
    """Stands for a training in which the runtime brings learners back alone, as far as it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, session: Any, losses: Any) -> None:
        self.session, self.losses = session, list(losses)
        self.is_interrupted, self.saved = False, 40
        monkeypatch.setattr(recovery, "Training", lambda *_: self)

    def run(self) -> Any:
        while self.losses:
            lost, comes_back = self.losses.pop(0)
            if not self.session.kept_for[-1].may_come_back([lost], 3) or not comes_back:
                raise lost
            self.session.kept_for[-1].are_back()
        return "finished"


def test_a_learner_that_comes_back_alone_counts_as_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    record: Any = Record()
    record.reached = 50
    settled: list[int] = []
    noted = record.faults
    record.note_fault = lambda cause, step: noted.append((cause, step))
    record.faults = SimpleNamespace(settle=lambda: settled.append(len(noted)))
    record.show_faults = lambda: None
    session = session_of(Recovery(max_failures=2))
    Lonely(monkeypatch, session, [(DIED, True), (DIED, False), (DIED, True)])
    with pytest.raises(LearnerLost):
        recovery.train_on(session, record)
    cause = "learner segment1: its process 7 died: signal SIGKILL"
    # The second could not come back, so the team was started again: no further fault, and no further failure.
    assert noted == [(cause, 47), (cause, 47)]
    assert settled == [1]
    assert record.said == [
        f"{cause}; it alone is started again, at least 3 steps behind, while the others wait "
        "(failure 1 of at most 2, plan.recovery.max_failures)",
        f"{cause}; it alone is started again, at least 3 steps behind, while the others wait "
        "(failure 2 of at most 2, plan.recovery.max_failures)",
        f"{cause}; the team is started again, from the checkpoint of step 40 "
        "(failure 2 of at most 2, plan.recovery.max_failures)",
    ]


@pytest.mark.parametrize("why", ["interrupted", "taken away"])
def test_nobody_comes_back_alone(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    record: Any = Record()
    session = session_of(Recovery(max_preemption_failures=0))
    lost = DIED if why == "interrupted" else LearnerPreempted("segment1", "its node is draining")
    Lonely(monkeypatch, session, [(lost, True)]).is_interrupted = why == "interrupted"
    with pytest.raises(LearnerLost):
        recovery.train_on(session, record)
    assert (record.said, record.faults) == ([], [])


def test_the_log_says_why_nobody_comes_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    record: Any = Record()
    logged: list[str] = []
    record.folder = SimpleNamespace(log=logged.append)
    session = session_of(Recovery())
    session.runtime = SimpleNamespace(keep_for_losses=lambda _: "there is no room")
    lost = LearnerLost("segment1", "its process 7 died")
    lost.__cause__ = PlanError(f"the cluster has 1 CPU ({GOES_ON})")
    Trainings(monkeypatch, (40, lost), (60, "finished"))
    recovery.train_on(session, record)
    alone = "a lost learner does not come back alone here, but with its whole team: there is no room"
    assert logged == [alone, "it does not come back alone: the cluster has 1 CPU", alone]


def test_the_log_has_the_stacks_of_one_that_hung_and_comes_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    record: Any = Record()
    logged: list[str] = []
    record.folder = SimpleNamespace(log=logged.append)
    record.faults = SimpleNamespace(settle=lambda: None)
    record.note_fault = lambda *_: None
    record.show_faults = lambda: None
    session = session_of(Recovery())
    Lonely(monkeypatch, session, [(LearnerLost("segment1", "its process made no progress", "thread learner"), True)])
    recovery.train_on(session, record)
    assert logged == ["thread learner"]
