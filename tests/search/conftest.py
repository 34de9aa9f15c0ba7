"""What do the tests of searches share: a small search over a tiny recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
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
