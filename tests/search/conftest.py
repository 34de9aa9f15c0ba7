"""What do the tests of searches share: a small search over a tiny recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray import tune

from engine.recipes import Recipe
from engine.search import Sweep


@pytest.fixture
def make_sweep(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Sweep]:
    """A function: changes of a search over the weight of InfoPro's reconstruction and its segments."""

    def make(**changes: Any) -> Sweep:
        fields: dict[str, Any] = {
            "name": "tiny",
            "recipe": tiny_recipe(data={"validation_fraction": 0.2}),
            "space": {
                "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
                "method.num_segments": tune.choice([1, 2, 3]),
            },
            **changes,
        }
        return Sweep(**fields)

    return make


@pytest.fixture
def assert_given_back() -> Callable[[int], None]:
    """A function: how many CPUs Ray has free again, for which it takes a moment."""

    def check(cpus: int) -> None:
        deadline = time.monotonic() + 30
        while ray.available_resources().get("CPU", 0) < cpus:
            assert time.monotonic() < deadline, ray.available_resources()
            time.sleep(0.1)

    return check
