"""Does the end of a learner in the middle of many steps on direct links wake everybody, and is nothing left behind?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import engine
from engine.data import Source, open_source
from engine.errors import LearnerError
from engine.methods import method_of
from engine.recipes import SGD, Backbone, Constant, Recipe
from engine.runtimes import Runtime, open_runtime
from engine.runtimes.ray import StreamRuntime, launch

RAY_CPUS = 3

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

NOTICED_WITHIN_SECONDS = 30.0
# More than are ever in flight.
STEPS = 2000


def _open(recipe: Recipe, way: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Runtime, Any, Source]:
    monkeypatch.setattr(launch, "choose_way", lambda *_: way)
    source = open_source(recipe.data, recipe.seed)
    team = method_of(recipe).team(recipe, source.facts)
    runtime = open_runtime(recipe, source.facts, team, source.steps_per_epoch(), engine.Plan(transport="direct"))
    return runtime, team, source


@pytest.mark.parametrize(
    ("learner", "way"),
    # On CPUs the group is one of gloo.
    [("segment0", "memory"), ("segment1", "memory"), ("segment2", "memory"), ("segment1", "tcp"), ("segment1", "nccl")],
)
def test_a_killed_learner_is_named(
    learner: str, way: str, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/dev/shm"))
    runtime, team, source = _open(tiny_recipe(epochs=10**6), way, monkeypatch)
    assert isinstance(runtime, StreamRuntime)
    process_ids = {name: place["pid"] for name, place in runtime._actors.places.items()}
    processes = [psutil.Process(number) for number in process_ids.values()]
    killed_at, most = 0.0, 0
    try:
        with pytest.raises(LearnerError) as caught:
            for step in range(STEPS):
                runtime.submit(team.program(step), source.batch(0, 0))
                most = max(most, runtime._steps)
                if step == 300:
                    assert most > 1, "steps are so long that none are handed out together"
                    os.kill(process_ids[learner], signal.SIGKILL)
                    killed_at = time.monotonic()
            runtime.finish()
        assert time.monotonic() - killed_at < NOTICED_WITHIN_SECONDS
        assert caught.value.learner == learner
        assert f"its process {process_ids[learner]} died" in str(caught.value)
    finally:
        runtime.close()
        source.close()
    _, alive = psutil.wait_procs(processes, NOTICED_WITHIN_SECONDS)
    assert not alive
    assert {name for name in set(os.listdir("/dev/shm")) - before if "learn" in name or "link" in name} == set()


@pytest.mark.parametrize(("failing", "way"), [(0, "memory"), (1, "tcp"), (1, "nccl"), (2, "memory")])
def test_a_learner_that_fails_is_named(
    failing: int,
    way: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block of its segment refuses the 200th batch."""
    network = tmp_path / "mine.py"
    network.write_text(
        "from torch import nn\n\n"
        "class Refusing(nn.Conv2d):\n"
        "    seen = 0\n"
        "    def forward(self, features):\n"
        "        self.seen += self.training and features.device.type != 'meta'\n"
        "        if self.seen > 200:\n"
        "            raise ZeroDivisionError('refused')\n"
        "        return super().forward(features)\n\n"
        "def mine(num_classes, image_shape):\n"
        "    c, h, w = image_shape\n"
        f"    kinds = [Refusing if place == {failing} else nn.Conv2d for place in range(3)]\n"
        "    last = nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))\n"
        "    return nn.Sequential(*[kind(c, c, 3, padding=1) for kind in kinds], last)\n"
    )
    recipe = tiny_recipe(
        epochs=10**6,
        backbone=Backbone(name=f"{network}:mine"),
        optimizer=SGD(learning_rate=1e-6),
        schedule=Constant(),
    )
    runtime, team, source = _open(recipe, way, monkeypatch)
    try:
        with pytest.raises(LearnerError, match="refused") as caught:
            for step in range(STEPS):
                runtime.submit(team.program(step), source.batch(0, 0))
            runtime.finish()
        assert caught.value.learner == f"segment{failing}"
        # Whoever asks later hears the same.
        with pytest.raises(LearnerError, match=f"learner segment{failing}: .*refused"):
            runtime.ask("metrics").result()
    finally:
        runtime.close()
        source.close()


def test_answers_from_before_a_failure_are_there_after_it(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that was asked for is whole, although nobody looked at it before a learner died."""
    runtime, team, source = _open(tiny_recipe(epochs=10**6), "memory", monkeypatch)
    assert isinstance(runtime, StreamRuntime)
    try:
        for step in range(5):
            runtime.submit(team.program(step), source.batch(0, 0))
        answer = runtime.ask("state")
        for step in range(5, 8):
            runtime.submit(team.program(step), source.batch(0, 0))
        runtime.finish()
        os.kill(runtime._actors.places["segment1"]["pid"], signal.SIGKILL)
        with pytest.raises(LearnerError, match="learner segment1"):
            for step in range(STEPS):
                runtime.submit(team.program(step), source.batch(0, 0))
        assert {name: state.extra["steps"] for name, state in answer.result().items()} == dict.fromkeys(team.names, 5)
    finally:
        runtime.close()
        source.close()
