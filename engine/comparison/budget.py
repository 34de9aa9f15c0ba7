"""The budget that compared recipes share: images, network, epochs and numerics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.recipes import Recipe, recipe_to_dict
from engine.recipes.overrides import dotted_fields

# What recipes of one budget share; method, optimizer and schedule are what is compared.
_BUDGET = ("epochs", "task", "backbone", "data", "numerics")
# Where images lie and how they are shown has no influence on the numbers.
_NO_BUDGET = {"data.download", "data.evaluation_batch_size"}


def budget_warnings(recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """Return a line for each recipe whose images, network, epochs or numerics differ from the first one's."""
    (_, baseline), *others = recipes.items()
    warnings = []
    for label, recipe in others:
        differences = _differences(recipe, baseline)
        if differences:
            warnings.append(f"not one budget: {label}: {', '.join(differences)}")
    return tuple(warnings)


def _differences(recipe: Recipe, baseline: Recipe) -> list[str]:
    ours, theirs = dotted_fields(_budget(recipe)), dotted_fields(_budget(baseline))
    names = [name for name in {**theirs, **ours} if name not in _NO_BUDGET and ours.get(name) != theirs.get(name)]
    return [f"{name} {ours.get(name)} against {theirs.get(name)}" for name in names]


def _budget(recipe: Recipe) -> dict[str, Any]:
    values = recipe_to_dict(recipe)
    return {name: values[name] for name in _BUDGET}
