"""Do learners remember when they worked, and does the timeline say so?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from engine.benchmarking.timeline import Call, Calls, busy_seconds, calls_of, ends_of_steps, plot_timeline, write_trace
from engine.data import open_source
from engine.learners import meters
from engine.learners.meters import Timeline
from engine.methods import method_of
from engine.recipes import Greedy, Plan, Recipe
from engine.runtimes import open_runtime

CALLS: Calls = {
    "segment0": [Call("forward", 0, 10.0, 10.25), Call("update", 0, 10.25, 10.5), Call("forward", 1, 10.5, 10.75)],
    "segment1": [Call("forward", 0, 10.25, 11.0), Call("update", 0, 11.0, 11.5)],
}


def test_every_call_of_a_learner_is_remembered_with_its_step(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2))
    source = open_source(recipe.data, recipe.seed)
    team = method_of(recipe).team(recipe, source.facts)
    runtime = open_runtime(recipe, source.facts, team, 4, Plan(executor="process"))
    before = time.time()
    for number in range(5):
        epoch, step = divmod(number, 4)
        runtime.submit(team.program(number), source.batch(epoch, step))
    calls = calls_of(runtime.ask("timeline").result(), 4)
    after = time.time()
    runtime.close()
    assert list(calls) == ["segment0", "segment1"]
    for own in calls.values():
        assert [(call.phase, call.step) for call in own] == [(p, n) for n in range(5) for p in ("forward", "update")]
    in_order = sorted((call for own in calls.values() for call in own), key=lambda call: call.start)
    assert all(one.end <= next_one.start for one, next_one in pairwise(in_order))
    assert before - 0.01 <= in_order[0].start <= in_order[-1].end <= after + 0.01


def test_old_calls_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_REMEMBERED_CALLS", 3)
    timeline = Timeline()
    for number in range(5):
        timeline.add(f"phase{number}", None, float(number), number + 0.5)
    assert [phase for phase, *_ in timeline.report()["calls"]] == ["phase2", "phase3", "phase4"]


def test_a_step_ends_when_its_last_learner_has_ended() -> None:
    assert ends_of_steps(CALLS) == {0: 11.5, 1: 10.75}


def test_busy_is_the_time_inside_of_calls() -> None:
    assert busy_seconds(CALLS["segment0"]) == 0.75


def test_a_trace_has_an_event_for_every_call_and_begins_at_zero(tmp_path: Path) -> None:
    write_trace({"K = 2": CALLS}, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = [event for event in events if event["ph"] == "X"]
    assert len(calls) == 5
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} == {"segment0", "segment1"}
    assert min(event["ts"] for event in calls) == 0
    assert max(event["ts"] + event["dur"] for event in calls) == 1_500_000


@pytest.mark.slow
def test_the_picture_is_a_png(tmp_path: Path) -> None:
    plot_timeline({"K = 2": CALLS, "K = 1": {"segment0": CALLS["segment0"]}}, tmp_path / "timeline.png", "title")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
