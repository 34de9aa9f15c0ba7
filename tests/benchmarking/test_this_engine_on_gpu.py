"""Is a step on a GPU timed by what the device does, however early the host is done, and nothing guessed of learners?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.benchmarking.baselines import this_engine
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.this_engine import EngineRun
from engine.benchmarking.batches import read_images
from engine.errors import EngineError
from engine.recipes import EndToEnd, Plan, Recipe
from tests.benchmarking.gpu_stand_in import Behind

HOST, DEVICE, FILLING = 0.001, 0.01, 0.05

Open = Callable[..., EngineRun]


@pytest.fixture
def opened(tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    images = read_images(tiny_recipe(method=EndToEnd()))
    images.batches.write(tmp_path / "batches.npz")

    def open_(executor: Any, *times: float) -> EngineRun:
        runtime, plan = Behind(*times), Plan(executor=executor)
        monkeypatch.setattr(this_engine, "open_runtime", lambda *_: runtime)
        monkeypatch.setattr(this_engine, "time", SimpleNamespace(perf_counter=lambda: runtime.now))
        job = Job("engine", images.recipe, plan, images.facts, str(tmp_path / "batches.npz"), {})
        return EngineRun(images.recipe, plan, job)

    return open_


def test_a_step_takes_as_long_as_the_device_takes(opened: Open) -> None:
    found = opened("ray", HOST, DEVICE, FILLING).run(5)
    assert found["seconds"] == pytest.approx(DEVICE)
    assert found["device_bytes"] == 7
    # When learners were done with their calls, nobody knows.
    assert found["waiting"] is None and "busy" not in found and "calls" not in found
    # In one process nothing is filled, and the device waits for the first step to be asked for.
    assert opened("process", HOST, DEVICE, 0.0).run(5)["seconds"] == pytest.approx(DEVICE + HOST / 5)


def test_steps_that_take_no_time_are_refused(opened: Open) -> None:
    with pytest.raises(EngineError, match="give more --steps"):
        opened("ray", 0.0, 0.0, 0.0).run(5)
