"""What do the tests of overrides share: a recipe to start with, what words make of it, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RecipeError
from engine.recipes import Backbone, Data, InfoPro, Plan, Recipe, apply_overrides


def start(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "start",
        "method": InfoPro(num_segments=4, head="contrastive"),
        "backbone": Backbone(name="resnet14"),
        "data": Data(name="digits"),
    }
    return Recipe(**(fields | changes))


def changed(*words: str, recipe: Recipe | None = None) -> Recipe:
    return apply_overrides(recipe or start(), Plan(), words)[0]


def problems(*words: str, recipe: Recipe | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        changed(*words, recipe=recipe)
    return str(caught.value).splitlines()
