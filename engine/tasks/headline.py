"""The score by which a recipe's networks are judged."""

from __future__ import annotations

from engine.errors import RecipeError
from engine.recipes import Recipe
from engine.tasks.metric import ACCURACY, Metric

HEADLINES: dict[str, Metric] = {"classification": ACCURACY}
"""By the kind of the recipe's task."""


def headline_of(recipe: Recipe) -> Metric:
    """Return the score that says how good a recipe's networks are, such as accuracy.

    Raises:
        RecipeError: the recipe's task is not known.
    """
    kind = recipe.task.kind
    if kind not in HEADLINES:
        raise RecipeError(f"task.kind={kind!r}: expected one of {', '.join(HEADLINES)}")
    return HEADLINES[kind]
