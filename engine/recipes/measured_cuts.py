"""Cuts that are chosen by times measured when a training starts: which recipes ask for them, and what they become."""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.errors import RecipeError
from engine.recipes.methods.local_learning import Segmented
from engine.recipes.recipe import Recipe, recipe_identity

MEASURED = "measured"
"""The rule ``cuts=measured``: a recipe that is trained, and every recipe.json, has the names of blocks instead."""


def segmented(recipe: Recipe) -> Segmented | None:
    """Return the settings by which a recipe cuts its networks; None if it does not."""
    inside = recipe.method.inside
    return inside if isinstance(inside, Segmented) else None


def has_measured_cuts(recipe: Recipe) -> bool:
    """Return whether the cuts of a recipe are still to be chosen by measured times."""
    inside = segmented(recipe)
    return inside is not None and inside.cuts == MEASURED


def with_cuts(recipe: Recipe, cuts: str | tuple[str, ...]) -> Recipe:
    """Return a recipe that cuts by another rule, or after the blocks that are named.

    Args:
        recipe: whose method cuts.
        cuts: a rule, or the K - 1 blocks.
    """
    inside: Any = segmented(recipe)
    assert inside is not None, f"{recipe.method.kind} does not cut"
    return dataclasses.replace(recipe, method=recipe.method.with_inside(dataclasses.replace(inside, cuts=cuts)))


def with_modelled_cuts(recipe: Recipe) -> Recipe:
    """Return a recipe with ``balanced_time`` where its cuts are still to be measured: for what is said beforehand.

    Learners are as many, and messages nearly as large.

    Raises:
        RecipeError: no cut can be measured for it; see `refuse_different_networks`.
    """
    if not has_measured_cuts(recipe):
        return recipe
    refuse_different_networks(recipe)
    return with_cuts(recipe, "balanced_time")


def refuse_different_networks(recipe: Recipe) -> None:
    """Refuse measured cuts of a cohort whose peers, which are all cut after the same blocks, have different networks.

    Raises:
        RecipeError: names the networks.
    """
    first, *others = (each.without_weights() for each in recipe.method.networks(recipe.backbone))
    if any(other != first for other in others):
        networks, field = ", ".join(dict.fromkeys(each.name for each in (first, *others))), recipe.method.inside_field
        raise RecipeError(
            f"{field}.cuts={MEASURED}: the peers have different networks ({networks}), and the blocks after which one "
            f"is cut are not those of another: set {field}.cuts=balanced_time, which cuts each by itself, or give all "
            "the same backbone"
        )


def with_cuts_of(recipe: Recipe, earlier: Recipe) -> Recipe:
    """Return a recipe with the cuts that were chosen for it earlier.

    Args:
        recipe: that is to be trained now.
        earlier: that an earlier run has stored; with the names of blocks if its cuts were measured.

    Returns:
        the recipe as it is where it does not ask for measured cuts, or where the two differ in anything else.
    """
    before = segmented(earlier)
    if not has_measured_cuts(recipe) or before is None or isinstance(before.cuts, str):
        return recipe
    if recipe_identity(with_cuts(earlier, MEASURED)) != recipe_identity(recipe):
        return recipe
    return with_cuts(recipe, before.cuts)
