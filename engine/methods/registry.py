"""Registry of methods."""

from __future__ import annotations

import importlib
import sys

from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.chain import Chain
from engine.methods.team import Method, Taught, Team
from engine.recipes import METHODS, Recipe, without_files
from engine.recipes.own_files import is_own


def method_of(recipe: Recipe) -> Method:
    """Return the method that a recipe asks for.

    It is ``METHOD`` in this room's file of the same name as its ``kind``, or in the user's own file that defines its
    settings.

    Raises:
        RecipeError: the method does not take the recipe's task, or what that adds to the loss; or the user's file
            defines none.
    """
    _refuse_other_tasks(recipe)
    _refuse_further_terms(recipe)
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
            "`METHOD = WholeNetwork(objective, self_distillation)`"
        )
    return method


def trained_team(recipe: Recipe, facts: Facts) -> Team:
    """Return the team of a recipe that was trained, for which its checkpoint is enough.

    Whatever the training started from or learned from need not exist any more: it is neither opened nor in the team.

    Raises:
        RecipeError: as `method_of`, or there can be no such team.
    """
    recipe, method = without_files(recipe), method_of(recipe)
    return method.team_alone(recipe, facts) if isinstance(method, Taught) else method.team(recipe, facts)


def _refuse_other_tasks(recipe: Recipe) -> None:
    takes = recipe.method.takes_tasks
    if takes is not None and recipe.task.learned_as not in takes:
        every = ", ".join(kind for kind, settings in METHODS.items() if settings.takes_tasks is None)
        raise RecipeError(
            f"task.kind={recipe.task.kind}: method.kind={recipe.method.kind} takes only {' or '.join(takes)}: set "
            f"task.kind={takes[0]}, or choose a method that takes every task, such as {every}"
        )


def _refuse_further_terms(recipe: Recipe) -> None:
    fields = recipe.task.further_fields
    if fields and not recipe.method.takes_further_terms:
        name, value = next(iter(fields.items()))
        raise RecipeError(
            f"task.{name}={value}: method.kind={recipe.method.kind} has a label loss of its own, to which a task adds "
            f"nothing: set task.{name}=0, or choose end_to_end, dml, distillation, stochastic_depth, a method that "
            "cuts, or one with branches in one learner"
        )


def chain_of(recipe: Recipe) -> Chain:
    """Return the method of a recipe that trains one chain of segments, or an uncut network."""
    method = method_of(recipe)
    assert isinstance(method, Chain), f"{recipe.method.kind} is no chain"
    return method
