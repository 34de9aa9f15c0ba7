"""Validation images: a recipe that has none holds out a part of its training images."""

from __future__ import annotations

import dataclasses

from engine.recipes import Plan, Recipe
from engine.tracking import Console, Preparation
from engine.training.session import Session

VALIDATION_FRACTION = 0.1


def with_validation(recipe: Recipe, console: Console) -> Recipe:
    """Return a recipe that holds out a tenth of its training images, unless validation images are there already.

    They are there if the recipe holds some out itself, or if its data set brings a split of its own.

    Raises:
        RecipeError, DataError: the images cannot be used.
    """
    if recipe.data.validation_fraction:
        return recipe
    with Session(recipe, Plan(), Preparation(console.message)) as session:
        if session.source.facts.sizes.get("validation"):
            return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validation_fraction=VALIDATION_FRACTION))
