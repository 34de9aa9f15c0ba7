"""A task's share in a method: the loss of a local head, classes, and what peers can compare."""

from __future__ import annotations

from engine.data import Facts
from engine.errors import RecipeError
from engine.objectives import Objective, Term
from engine.partition import Segment
from engine.recipes import Recipe
from engine.tasks import HeadStyle, Task, task_of


def require_classes(recipe: Recipe, facts: Facts, found: str, remedy: str) -> int:
    """Return the number of classes, of which each image has one.

    Args:
        recipe: whose task is asked.
        facts: what is known of the data.
        found: the field that needs classes, such as ``method.head=contrastive``.
        remedy: what to do instead.

    Raises:
        RecipeError: the task knows no classes.
    """
    num_classes = task_of(recipe, facts).num_classes
    if num_classes is None:
        raise RecipeError(f"{found} needs the class of each image, which task.kind={recipe.task.kind} lacks: {remedy}")
    return num_classes


def distribution_axis(recipe: Recipe, facts: Facts, found: str) -> int:
    """Return along which axis of what is predicted there is a distribution, the axis of the batch being 0.

    Args:
        recipe: whose task is asked.
        facts: what is known of the data.
        found: the field that asks for it, such as ``method.weight``.

    Raises:
        RecipeError: what is predicted is no distribution.
    """
    axis = task_of(recipe, facts).distribution_axis
    if axis is None:
        raise RecipeError(
            f"{found} compares distributions, but what is predicted for task.kind={recipe.task.kind} is none: set "
            f"{found}=0"
        )
    return axis


def local_term(recipe: Recipe, facts: Facts, segment: Segment, style: HeadStyle) -> Term:
    """Return the task's loss behind a segment, on a local head of a style.

    Raises:
        RecipeError: there is no such head for features of this shape.
    """
    task = task_of(recipe, facts)
    return task.local_term(task.local_head(style, segment.features, facts.image_shape, segment.final_channels))


def with_further_terms(objective: Objective, recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    """Return the objective of a segment with what the task adds to the loss on the network's output."""
    return _with_further(objective, task_of(recipe, facts)) if segment.is_last else objective


def whole_objective(recipe: Recipe, facts: Facts, label_weight: float = 1.0) -> Objective:
    """Return the objective of a network that one learner holds: the task's label loss, and what the task adds to it.

    Args:
        recipe: whose task is asked.
        facts: what is known of the data.
        label_weight: of the label loss, above 0.
    """
    task = task_of(recipe, facts)
    final = task.final_term()
    return _with_further(Objective({final.name: final}, {final.name: label_weight}), task)


def _with_further(objective: Objective, task: Task) -> Objective:
    further = task.further_terms()
    return objective.plus(
        {name: term for name, (term, _) in further.items()}, {name: weight for name, (_, weight) in further.items()}
    )


def local_objective_of_task(recipe: Recipe, facts: Facts, segment: Segment, style: HeadStyle) -> Objective:
    """Return an objective of nothing but the task's loss on a local head; raises as `local_term`."""
    term = local_term(recipe, facts, segment, style)
    return Objective({term.name: term}, {term.name: 1.0})
