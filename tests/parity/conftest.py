"""What do the tests of parity share: runs without pictures, and small trainings of methods with sub-networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.recipes import SGD, Augmentation, Backbone, Constant, Recipe
from tests.parity.network_by_hand import BATCH, DECAY, MOMENTUM, RATE, SEED, STEPS

TinyRecipe = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture
def small(tiny_recipe: TinyRecipe) -> TinyRecipe:
    """A function: the method and the epochs, and the recipe that they give."""

    def recipe(method: Any, epochs: int) -> Recipe:
        return tiny_recipe(
            method=method,
            epochs=epochs,
            seed=SEED,
            backbone=Backbone(name="resnet20", widths=(4, 4, 4)),
            optimizer=SGD(learning_rate=RATE, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY),
            schedule=Constant(),
            data={"train_limit": BATCH * STEPS, "batch_size": BATCH, "augmentation": Augmentation()},
        )

    return recipe
