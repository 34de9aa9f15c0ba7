"""Which file holds the method that a recipe asks for?"""

from __future__ import annotations

import importlib

from engine.methods.chain import Chain
from engine.methods.tasks import refuse_other_tasks
from engine.methods.team import Method
from engine.recipes import Recipe


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe asks for: ``METHOD`` in the file named like its ``kind``.

    Raises:
        RecipeError: the method does not take the recipe's task.
    """
    refuse_other_tasks(recipe)
    method: Method = importlib.import_module(f"engine.methods.{recipe.method.kind}").METHOD
    return method


def chain_of(recipe: Recipe) -> Chain:
    """Return the method of a recipe that trains one chain of segments, or an uncut network."""
    method = method_of(recipe)
    assert isinstance(method, Chain), f"{recipe.method.kind} is no chain"
    return method
