"""Check that weights can be copied between all settings of a search, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from engine.checkpoints.state import slots_of
from engine.data import Facts
from engine.errors import PlanError, RecipeError
from engine.learners import make_optimizer
from engine.methods import method_of
from engine.recipes import Plan, Recipe
from engine.search.definition import Sweep
from engine.search.settings import Settings, choices, ends, examples, recipe_with
from engine.training.preview import Preview, preview

_ROOTS = ("method", "optimizer", "schedule")

Form = dict[str, tuple[int, ...]]
"""Shapes of all tensors of a checkpoint, by learner and name."""


def steps_between_copies(sweep: Sweep, base: Recipe, plan: Plan) -> int:
    """Return the optimizer steps between two moments at which members of a population copy each other.

    Args:
        sweep: a search with ``scheduler="pbt"``.
        base: its recipe before any setting.
        plan: where and how members run.

    Raises:
        RecipeError: a field changes images, the length of the run or the shapes of weights, or no member would ever
            copy another one.
        PlanError: members would not be evaluated in time.
        DataError: the images are missing.
    """
    for name in sweep.space:
        parts = name.split(".")
        if parts[0] not in _ROOTS or parts[-1] == "kind":
            raise RecipeError(
                f"sweep {sweep.name}: space[{name!r}] must not change while weights are copied; scheduler='pbt' takes "
                "weights of losses, learning rates and other numbers of method, optimizer and schedule: set this field "
                "with fields, or search it with scheduler='asha'"
            )
    every = sweep.perturb_every_epochs
    if every >= base.epochs:
        raise RecipeError(
            f"sweep {sweep.name}: perturb_every_epochs={every}, but trials have {base.epochs} epochs, so none would "
            "copy another: lower it"
        )
    if every % plan.evaluate_every_epochs:
        raise PlanError(
            f"plan.evaluate_every_epochs={plan.evaluate_every_epochs}: members are compared after every {every} epochs "
            f"(perturb_every_epochs of sweep {sweep.name}), so expected a divisor of {every}"
        )
    usual = next(examples(sweep))
    previewed = preview(recipe_with(base, sweep, usual), resume="never")
    expected = _form(previewed.recipe, previewed)
    for name, settings in _varied(sweep, usual):
        found = _form(recipe_with(base, sweep, settings), previewed)
        if (difference := _difference(expected, found)) is not None:
            tensor, before, now = difference
            raise RecipeError(
                f"sweep {sweep.name}: space[{name!r}] changes which weights there are, so they could not be copied: "
                f"with {usual[name]!r} {tensor} {before}, with {settings[name]!r} it {now}; set this field with "
                "fields, or search it with scheduler='asha'"
            )
    return every * previewed.steps_per_epoch


def _varied(sweep: Sweep, usual: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield settings that differ in one field, and its name: all listed values, and the ends of whole numbers."""
    for name in sweep.space:
        listed = choices(sweep, name)
        for value in ends(sweep, name) if listed is None else listed:
            yield name, {**usual, name: value}


def _form(recipe: Recipe, previewed: Preview) -> Form:
    found: Form = {}
    facts: Facts = previewed.facts
    method = method_of(recipe)
    # One learner at a time: a whole team may be larger than this machine.
    for name in method.team(recipe, facts).names:
        learner: Any = method.build_learner(recipe, facts, previewed.steps_per_epoch, name, torch.device("cpu"))
        state = learner.ask_state()
        found |= {f"{key} of {name}": tuple(value.shape) for key, value in state.tensors.items()}
        found |= {f"knowledge {key} of {name}": tuple(value.shape) for key, value in state.knowledge.items()}
    # What most optimizers remember they have only once they have made a step.
    optimizer = make_optimizer(recipe.optimizer, [nn.Parameter(torch.zeros(1))])
    return found | {f"{slot} of the optimizer": () for slot in sorted(slots_of(optimizer))}


def _difference(expected: Form, found: Form) -> tuple[str, str, str] | None:
    """Return the first tensor that differs, and in words how it is here and there; None if there is none."""
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            shapes = (expected.get(name), found.get(name))
            before, now = (
                "is missing" if shape is None else f"has shape {list(shape)}" if shape else "is there"
                for shape in shapes
            )
            return name, before, now
    return None
