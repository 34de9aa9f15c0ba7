"""Does a training that has notice of the end of a node keep all it has, and go on from that very step?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import DriverPreempted, EngineError, LearnerPreempted
from engine.recipes import Recipe, Recovery
from engine.runtimes import ProcessRuntime

STEP_OF_NOTICE = 5


def plan_of(**changes: Any) -> engine.Plan:
    # Neither a checkpoint nor a report falls on the step of the notice by itself.
    return engine.Plan(executor="process", report_every_steps=3, checkpoint_every_steps=4, **changes)


@pytest.fixture
def notices(monkeypatch: pytest.MonkeyPatch) -> list[EngineError]:
    """Errors of which the next one is given as the notice before a step, once."""
    left: list[EngineError] = []
    asked = 0

    def notice(_: Any) -> EngineError | None:
        nonlocal asked
        asked += bool(left)
        return left.pop(0) if asked > STEP_OF_NOTICE and left else None

    monkeypatch.setattr(ProcessRuntime, "notice", notice)
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    return left


def test_nothing_is_repeated(notices: list[EngineError], tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    undisturbed = engine.train(tiny_recipe(), plan_of(), tmp_path / "undisturbed")
    notices.append(LearnerPreempted("segment1", "its node 10.0.0.3 is draining"))
    # Before the team that goes on has made a step.
    notices.append(LearnerPreempted("segment2", "its node 10.0.0.4 is draining"))
    result = engine.train(tiny_recipe(), plan_of(recovery=Recovery(max_failures=0)), tmp_path / "noticed")
    assert not notices
    assert result.weights_sha256 == undisturbed.weights_sha256
    assert result.metrics == undisturbed.metrics
    assert [(fault.cause, fault.repeated_steps) for fault in result.faults] == [
        ("learner segment1: its node 10.0.0.3 is draining", 0),
        ("learner segment2: its node 10.0.0.4 is draining", 0),
    ]
    log = (tmp_path / "noticed" / "log.txt").read_text()
    assert log.count("the team is started again, from the checkpoint of step ") == 2
    steps = [line.rpartition(" ")[2] for line in log.splitlines() if "checkpoint after step" in line]
    assert len(steps) == len(set(steps)), "a checkpoint that is there is not written again"


@pytest.mark.parametrize(
    "error", [LearnerPreempted("segment1", "its node is draining"), DriverPreempted("the node is draining")]
)
def test_a_run_that_ends_has_lost_nothing(
    error: EngineError, notices: list[EngineError], tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    notices.append(error)
    with pytest.raises(type(error)) as caught:
        engine.train(tiny_recipe(), plan_of(recovery=Recovery(max_preemption_failures=0)), tmp_path)
    assert caught.value is error
    assert engine.load(tmp_path).checkpoint.step == STEP_OF_NOTICE
