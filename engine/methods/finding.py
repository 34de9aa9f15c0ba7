"""Which file holds the method that a recipe asks for?"""

from __future__ import annotations

import importlib
import sys

from engine.errors import RecipeError
from engine.methods.chain import Chain
from engine.methods.team import Method
from engine.recipes import Recipe
from engine.recipes.own_classes import is_own


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe asks for.

    It is ``METHOD`` in this room's file of the same name as its ``kind``, or in the user's own file that defines its
    settings.

    Raises:
        RecipeError: the user's file defines none.
    """
    settings, kind = recipe.method, recipe.method.kind
    if is_own(kind):
        module = sys.modules[type(settings).__module__]
    else:
        module = importlib.import_module(f"engine.methods.{kind}")
    method = vars(module).get("METHOD")
    if not isinstance(method, Method):
        raise RecipeError(
            f"method.kind={kind}: {module.__file__} defines no METHOD with the functions team and build_learner; "
            "expected one beside the settings, such as `METHOD = Chain(local_objective)` or "
            "`METHOD = WholeNetwork(objective, teaching)`"
        )
    return method


def chain_of(recipe: Recipe) -> Chain:
    """Return the method of a recipe that trains one chain of segments, or an uncut network."""
    method = method_of(recipe)
    assert isinstance(method, Chain), f"{recipe.method.kind} is no chain"
    return method
