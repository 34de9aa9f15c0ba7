"""Is a team that cannot be started at once tried again, for as long as was asked, and does the user hear of it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import (
    BEGINS_AGAIN,
    GOES_ON,
    DriverPreempted,
    LearnerLost,
    LearnerPreempted,
    NotRecovered,
    PlanError,
    RayEnded,
)
from engine.recipes import Plan, Recovery, apply_overrides, load_recipe, plan_from_dict, plan_to_dict
from engine.runtimes.ray.placement import Placement
from engine.training import recovery
from engine.training.faults import Faults
from tests.training.recovery_stand_ins import DIED, Clock, Record, Trainings, session_of


def test_it_is_tried_again_with_growing_pauses_until_what_was_lost_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, record = Clock(monkeypatch), Record()
    Trainings(monkeypatch, (40, DIED), (60, "finished"))
    busy = PlanError("the cluster has 1 CPU, and the plan asks for 2")
    session = session_of(Recovery(), busy, busy, LearnerLost("segment0", "did not start"), busy)
    result: Any = recovery.train_on(session, record)  # type: ignore[arg-type]
    assert result == "finished"
    assert clock.pauses == [1.0, 2.0, 4.0, 8.0]
    assert record.faults == [("learner segment1: its process 7 died: signal SIGKILL", 40)]
    assert record.said[0] == (
        "learner segment1: its process 7 died: signal SIGKILL; the team is started again, from the checkpoint of "
        "step 40 (failure 1 of at most 3, plan.recovery.max_failures)"
    )
    assert record.said[1] == f"the team cannot be started yet: {busy}; tried again in 1 s, for 600 s at most"


def test_the_first_start_is_tried_again_where_a_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heard = Clock(monkeypatch), list[str]()
    gone = RayEnded("Ray's gcs_server ended with signal SIGKILL")
    session = session_of(Recovery(max_failures=2), DIED, gone)
    first = recovery.start_at_first(session, heard.append)
    assert first.told == heard
    assert [(each.cause, each.step, each.repeated_steps, each.seconds_lost) for each in first.faults.found] == [
        ("learner segment1: its process 7 died: signal SIGKILL", 0, 0, 1.0),
        ("the private Ray is gone: Ray's gcs_server ended with signal SIGKILL", 0, 0, 2.0),
    ]
    assert (session.left, clock.pauses) == ([], [1.0, 2.0])
    assert heard == [
        "learner segment1: its process 7 died: signal SIGKILL; the team is started again in 1 s "
        "(failure 1 of at most 2, plan.recovery.max_failures)",
        "the private Ray is gone: Ray's gcs_server ended with signal SIGKILL; the team is started again in 2 s "
        "(failure 2 of at most 2, plan.recovery.max_failures)",
    ]


@pytest.mark.parametrize(("most", "error"), [(0, DIED), (2, PlanError("the plan does not fit")), (1, DIED)])
def test_the_first_start_is_given_up(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    Clock(monkeypatch)
    session = session_of(Recovery(max_failures=most), error, error, error)
    with pytest.raises(type(error)) as caught:
        recovery.start_at_first(session, lambda _: None)
    assert len(session.left) == (1 if most == 1 else 2)
    if error is DIED:
        assert str(caught.value) == (
            "learner segment1: its process 7 died: signal SIGKILL (this command has trained nothing; the same command "
            "tries again)"
        )


@pytest.mark.parametrize("error", [DIED, RayEnded("Ray's raylet ended with exit code 1")])
def test_no_checkpoint_is_promised_before_there_is_one(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    Trainings(monkeypatch, (0, error))
    with pytest.raises(type(error)) as caught:
        recovery.train_on(session_of(Recovery(max_failures=0)), Record())  # type: ignore[arg-type]
    assert str(caught.value) == str(error).replace(GOES_ON, BEGINS_AGAIN)
    assert str(caught.value).endswith("(there is no checkpoint yet; the same command begins again)")


def test_it_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, record = Clock(monkeypatch), Record()
    Trainings(monkeypatch, (0, RayEnded("Ray's raylet ended with signal SIGKILL")))
    session = session_of(Recovery(wait_seconds=100), *[PlanError("no room")] * 50)
    with pytest.raises(NotRecovered) as caught:
        recovery.train_on(session, record)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "the private Ray is gone: Ray's raylet ended with signal SIGKILL; the team could not be started again within "
        f"plan.recovery.wait_seconds=100: no room ({BEGINS_AGAIN})"
    )
    assert caught.value.exit_code == 3
    assert max(clock.pauses) == 30.0
    assert clock.now <= 100


def test_learners_are_laid_over_less_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, record = Clock(monkeypatch), Record()
    Trainings(monkeypatch, (40, DIED), (60, "finished"))
    session = session_of(Recovery(wait_seconds=5), *[PlanError("no room")] * 50, less=Placement(2, 1.0, 0.5, "PACK", 4))
    result: Any = recovery.train_on(session, record)  # type: ignore[arg-type]
    assert result == "finished"
    # All the time that was asked for is given to the node that may come back.
    assert clock.pauses == [1.0, 2.0]
    assert record.said[-1] == (
        "the learners are laid over what is left: 2 actors with 1 CPU and 0.5 GPU each, PACK, window 4, instead of "
        "2 actors with 1 CPU and 1 GPU each, PACK, window 4"
    )
    assert not session.reservations.less_will_do


def test_less_is_no_remedy_for_learners_that_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    Trainings(monkeypatch, (40, DIED))
    refusals = [LearnerLost("segment0", "did not start")] * 50
    with pytest.raises(NotRecovered, match="segment0: did not start"):
        less = Placement(2, 1.0, 0.5, "PACK", 4)
        recovery.train_on(session_of(Recovery(wait_seconds=5), *refusals, less=less), Record())  # type: ignore[arg-type]


def test_what_was_saved_between_two_failures_counts_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()
    Trainings(monkeypatch, (10, DIED), (20, DIED), (20, DIED), (30, DIED), (30, DIED), (30, DIED))
    with pytest.raises(LearnerLost):
        recovery.train_on(session_of(Recovery(max_failures=2)), record)  # type: ignore[arg-type]
    assert [checkpoint for _, checkpoint in record.faults] == [10, 20, 20, 30, 30]


@pytest.mark.parametrize("error", [DIED, RayEnded("Ray's raylet ended with exit code 1")])
@pytest.mark.parametrize(("most", "is_interrupted"), [(0, False), (3, True)])
def test_nothing_is_tried_where_the_user_says_so(
    error: Exception, most: int, is_interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record()
    Trainings(monkeypatch, (10, error)).is_interrupted = is_interrupted
    with pytest.raises(type(error)) as caught:
        recovery.train_on(session_of(Recovery(max_failures=most)), record)  # type: ignore[arg-type]
    assert caught.value is error
    assert not record.said


DRAINS = LearnerPreempted("segment1", f"its node 10.0.0.3 is draining, and ends in 27 s ({GOES_ON})")


def test_a_node_that_is_taken_away_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()
    Trainings(monkeypatch, *[(10, DRAINS)] * 20, (10, DIED), (12, DRAINS), (12, "finished"))
    record.reached = 10
    recovery.train_on(session_of(Recovery(max_failures=1)), record)  # type: ignore[arg-type]
    assert record.faults[0] == ("learner segment1: its node 10.0.0.3 is draining, and ends in 27 s", 10)
    assert record.said[0].endswith(
        "ends in 27 s; the team is started again, from the checkpoint of step 10 (preemption failure 1)"
    )
    assert record.said[-1].endswith("from the checkpoint of step 12 (preemption failure 21)")


def test_preemptions_are_counted_whatever_was_done_between(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()
    Trainings(monkeypatch, (10, DRAINS), (20, DRAINS), (30, DRAINS))
    with pytest.raises(LearnerPreempted):
        recovery.train_on(session_of(Recovery(max_preemption_failures=2)), record)  # type: ignore[arg-type]
    assert record.said[-1].endswith("(preemption failure 2 of at most 2, plan.recovery.max_preemption_failures)")
    Trainings(monkeypatch, (10, DRAINS))
    with pytest.raises(LearnerPreempted):
        recovery.train_on(session_of(Recovery(max_preemption_failures=0)), record)  # type: ignore[arg-type]
    assert len(record.said) == 2


def test_the_end_of_the_own_node_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()
    Trainings(monkeypatch, (10, DriverPreempted("the node of the training itself is draining")))
    with pytest.raises(DriverPreempted):
        recovery.train_on(session_of(Recovery()), record)  # type: ignore[arg-type]
    assert not record.said


def test_endless_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record()
    Trainings(monkeypatch, *[(0, DIED)] * 50, (0, "finished"))
    recovery.train_on(session_of(Recovery(max_failures=-1)), record)  # type: ignore[arg-type]
    assert record.said[-1].endswith("from the first step (failure 50)")


def test_an_error_that_would_come_again_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    Trainings(monkeypatch, (10, engine.LearnerError("segment0", "ValueError: the loss is not finite")))
    with pytest.raises(engine.LearnerError, match="not finite"):
        recovery.train_on(session_of(Recovery()), Record())  # type: ignore[arg-type]


def test_seconds_are_lost_until_the_same_step_is_reached_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, faults = Clock(monkeypatch), Faults()
    faults.add("first", step=50, checkpoint=40)
    clock.now = 7.0
    faults.reached(45)
    faults.add("second", step=45, checkpoint=40)
    clock.now = 20.0
    faults.reached(45)
    clock.now = 90.0
    faults.reached(50)
    faults.settle()
    assert [(each.cause, each.repeated_steps, each.seconds_lost) for each in faults.found] == [
        ("first", 10, 7.0),
        ("second", 5, 13.0),
    ]


def test_the_fields(tmp_path: Path) -> None:
    recipe = load_recipe("infopro_digits")
    _, plan = apply_overrides(recipe, Plan(), ["plan.recovery.max_failures=-1", "plan.recovery.wait_seconds=5"])
    assert plan.recovery == Recovery(max_failures=-1, wait_seconds=5.0)
    assert plan_from_dict(plan_to_dict(plan)) == plan
    # Of a plan.json of before there was recovery.
    older = plan_to_dict(plan)
    del older["recovery"]
    assert plan_from_dict(older).recovery == Recovery()
    with pytest.raises(engine.RecipeError, match=r"plan\.recovery\.max_failure: .*max_failures"):
        apply_overrides(recipe, Plan(), ["plan.recovery.max_failure=1"])
    with pytest.raises(engine.RecipeError, match=r"plan\.recovery\.max_failures: found -2"):
        apply_overrides(recipe, Plan(), ["plan.recovery.max_failures=-2"])
