"""The registry of tasks: a file of this room for each ``kind``, or a class in a file of one's own."""

from __future__ import annotations

import importlib

import torch

from engine.data import Facts
from engine.errors import RecipeError
from engine.reading import first_line
from engine.recipes import OwnTask, Recipe
from engine.recipes.own_files import own_class
from engine.tasks.metric import (
    ACCURACY,
    CALIBRATION_ERROR,
    LOSS,
    MEAN_CLASS_ACCURACY,
    MEAN_IOU,
    PIXEL_ACCURACY,
    TOP5_ACCURACY,
    Metric,
)
from engine.tasks.retrieval_score import RETRIEVAL_SCORES
from engine.tasks.task import Task

SCORES = {
    metric.name: metric
    for metric in (
        *(ACCURACY, TOP5_ACCURACY, LOSS, CALIBRATION_ERROR),
        *(MEAN_IOU, PIXEL_ACCURACY, MEAN_CLASS_ACCURACY),
        *RETRIEVAL_SCORES,
    )
}
"""What evaluations of single networks measure, of all tasks that ship with the engine, by name."""

_LABELS = {
    "classes": ("one class for each image", "classification, or a data set that fits the task"),
    "identities": ("other identities in its test set than in its training set", "retrieval"),
    "label_maps": ("label maps", "segmentation, and a backbone for it, such as deeplabv3_resnet18"),
}


def headline_of(recipe: Recipe) -> Metric:
    """Return the metric that says how good a recipe's networks are, such as accuracy; raises as `task_of`."""
    return _class_of(recipe).headline


def task_of(recipe: Recipe, facts: Facts) -> Task:
    """Return the task of a recipe, bound to what is known of its data.

    It is ``TASK`` in the file of this room that is named like its ``kind``; of ``path/to/file.py:Name``, the class.

    Raises:
        RecipeError: there is no such class, it is no complete `Task`, it cannot be made of this recipe, or it does not
            take labels of this kind.
    """
    settings, found = recipe.task, _class_of(recipe)
    kind = recipe.data.label_kind
    if kind not in settings.takes_labels:
        has, remedy = _LABELS[kind]
        raise RecipeError(
            f"task.kind={settings.kind} does not take the labels of data.name={recipe.data.name}, which has {has}: set "
            f"task.kind={remedy}"
        )
    if not isinstance(settings, OwnTask):
        return found(settings, facts)
    try:
        return found(settings, facts)
    except Exception as error:
        raise RecipeError(
            f"task.kind={settings.kind}: {found.__name__}(settings, facts) failed with {type(error).__name__}: "
            f"{first_line(error)}; correct the file, or task.options={dict(settings.options)}"
        ) from error


def _class_of(recipe: Recipe) -> type[Task]:
    settings = recipe.task
    if not isinstance(settings, OwnTask):
        found: type[Task] = importlib.import_module(f"engine.tasks.{settings.kind}").TASK
        return found
    # What a file makes beside its class must have values, even if a network without any is made when it is imported.
    with torch.device("cpu"):
        own = own_class(settings.kind, "task.kind")
    place = f"task.kind={settings.kind}"
    if not issubclass(own, Task):
        raise RecipeError(f"{place}: {own.__name__} is no task; expected a subclass of engine.tasks.Task")
    missing = sorted(own.__abstractmethods__)
    missing += [] if hasattr(own, "headline") else ["headline"]
    if missing:
        raise RecipeError(f"{place}: {own.__name__} does not say what a task must: define {', '.join(missing)}")
    return own
