"""The state behind both consoles: newest values, rate, time left."""

from __future__ import annotations

import pytest

from engine.tasks import ACCURACY
from engine.tracking import Record
from engine.tracking.progress import Progress


def record(step: int, learner: str | None, name: str, value: float, split: str = "train") -> Record:
    return Record(0.0, 0, step, learner, split, name, value)


def test_newest_values_and_learners_that_come_late() -> None:
    progress = Progress("title", ["b"], 10, 0, ACCURACY, now=0.0)
    progress.advance(1, 0, [record(1, "b", "loss/x", 1.0), record(1, "b", "loss/total", 2.0)], 1.0)
    progress.advance(2, 0, [record(2, "a", "accuracy", 0.5), record(2, "b", "loss/x", 3.0)], 2.0)
    progress.advance(2, 0, [record(2, None, "accuracy", 0.7, "test")], 2.0)
    assert progress.learners == ["b", "a"]
    assert progress.loss_names() == ["loss/total", "loss/x"]
    newest = progress.newest("b", "train", "loss/x")
    assert newest is not None and newest.value == 3.0
    assert progress.newest("a", "train", "loss/x") is None
    assert (progress.newest_step("a"), progress.newest_step("b"), progress.newest_step(None)) == (2, 2, None)
    assert (progress.evaluation_splits(None), progress.evaluation_splits("a")) == (["test"], [])


def test_time_left_follows_the_rate_after_the_first_step() -> None:
    progress = Progress("title", [], 100, 20, ACCURACY, now=0.0)
    assert progress.seconds_left(5.0) is None
    progress.advance(21, 0, [], 40.0)
    assert progress.seconds_left(40.0) == pytest.approx(79 * 40), "nothing else is known yet"
    for step in range(22, 31):
        progress.advance(step, 0, [], 40.0 + 2.0 * (step - 21))
    assert progress.seconds_left(58.0) == pytest.approx(70 * 2.0), "40 s of loading are forgotten"
    assert progress.seconds_left(59.0) == pytest.approx(70 * 2.0 - 1.0)
    assert progress.seconds_left(1000.0) is None, "overdue"


def test_time_left_follows_a_change_of_speed() -> None:
    progress = Progress("title", [], 10_000, 0, ACCURACY, now=0.0)
    now = 0.0
    for step in range(1, 2001):
        now += 0.1 if step <= 1000 else 1.0
        progress.advance(step, 0, [], now)
    assert progress.seconds_left(now) == pytest.approx(8000.0, rel=0.01)


def test_at_the_end_no_time_is_left() -> None:
    progress = Progress("title", [], 2, 0, ACCURACY, now=0.0)
    progress.advance(1, 0, [], 1.0)
    progress.advance(2, 0, [], 2.0)
    assert progress.seconds_left(2.0) is None
    assert progress.seconds_stalled(1000.0) is None


def test_a_run_of_slow_steps_is_not_called_stalled() -> None:
    progress = Progress("title", [], 100, 0, ACCURACY, now=0.0)
    assert progress.seconds_stalled(1e6) is None, "no step yet: it may be loading"
    progress.advance(1, 0, [], 10.0)
    progress.advance(2, 0, [], 20.0)
    assert progress.seconds_stalled(60.0) is None
    assert progress.seconds_stalled(121.0) == pytest.approx(101.0)


def test_the_team_is_as_fast_as_its_slowest_learner_unless_it_says_otherwise() -> None:
    progress = Progress("title", ["a", "b"], 10, 0, ACCURACY, now=0.0)
    assert progress.images_per_second() is None
    progress.advance(1, 0, [record(1, "a", "images_per_second", 50.0), record(1, "b", "images_per_second", 30.0)], 1.0)
    assert progress.images_per_second() == 30.0
    progress.advance(2, 0, [record(2, None, "images_per_second", 40.0)], 2.0)
    assert progress.images_per_second() == 40.0


def test_learners_report_together_and_who_does_not_has_left() -> None:
    progress = Progress("title", ["teacher", "peer0", "peer1"], 10, 4, ACCURACY, now=0.0)
    assert not progress.has_left("peer1")
    progress.advance(5, 0, [record(5, name, "accuracy", 0.5) for name in ("peer0", "peer1")], 1.0)
    assert [name for name in progress.learners if progress.has_left(name)] == []
    progress.advance(6, 0, [record(6, "peer0", "accuracy", 0.5), record(6, "peer1", "accuracy", 0.0, "test")], 2.0)
    assert [name for name in progress.learners if progress.has_left(name)] == ["peer1"], "a teacher never trains"


def test_the_ensemble_is_no_learner() -> None:
    progress = Progress("title", ["peer0_segment0", "peer1_segment0", "peer0_segment1"], 10, 0, ACCURACY, now=0.0)
    progress.advance(1, 0, [record(1, "ensemble", "accuracy", 0.5, "test")], 1.0)
    progress.advance(1, 0, [record(1, "peer0", "accuracy", 0.5, "test")], 1.0)
    assert progress.networks() == {"peer0": ["peer0_segment0", "peer0_segment1"], "peer1": ["peer1_segment0"]}
    assert progress.evaluation_splits("ensemble") == ["test"]
