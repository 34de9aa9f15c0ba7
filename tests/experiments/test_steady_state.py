"""Is a step in steady state timed by what a GPU does, however early the host is done?"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from engine.benchmarking.batches import read_images
from engine.methods import method_of
from engine.recipes import EndToEnd, Plan, Recipe
from experiments.benchmarks import steady_state
from tests.benchmarking.gpu_stand_in import Behind


def test_a_step_on_a_gpu_takes_as_long_as_the_device_takes(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = read_images(tiny_recipe(method=EndToEnd()))
    team = method_of(images.recipe).team(images.recipe, images.facts)
    runtime, plan = Behind(0.001, 0.01, 0.05), Plan(executor="process")
    monkeypatch.setattr(steady_state, "open_runtime", lambda *_: runtime)
    monkeypatch.setattr(steady_state, "time", SimpleNamespace(perf_counter=lambda: runtime.now))
    seconds, memory = steady_state.steady_state(images.recipe, images.facts, team, images.batches, plan, 5, 3)
    assert seconds == pytest.approx(0.01)
    assert memory == {"segment0": {"total": 7, "reserved": 9}}
