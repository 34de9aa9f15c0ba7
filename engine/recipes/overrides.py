"""Turns `field=value` words from the command line into a checked recipe and plan."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from engine.errors import RecipeError
from engine.recipes.methods import METHODS
from engine.recipes.optimizer import SGD, Adam, AdamW, Constant, Cosine, Exponential, Polynomial, RMSProp, Step
from engine.recipes.plan import Plan, plan_from_dict, plan_to_dict
from engine.recipes.problems import describe_problems, leaf_names, suggest_field
from engine.recipes.recipe import Recipe, recipe_from_dict, recipe_to_dict

_KINDS: dict[str, dict[str, type]] = {
    "method": METHODS,
    "optimizer": {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSProp},
    "schedule": {
        "constant": Constant,
        "cosine": Cosine,
        "step": Step,
        "polynomial": Polynomial,
        "exponential": Exponential,
    },
}


def parse_value(text: str) -> Any:
    """Read a value as JSON where it is JSON (numbers, true, [1, 2], null), and as a plain string elsewhere."""
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _change_kind(values: dict[str, Any], part: str, kind: Any) -> None:
    """Switch a tagged part of the recipe, keeping the values of the fields that both kinds have."""
    cls = _KINDS[part].get(kind) if isinstance(kind, str) else None
    if cls is None:
        values[part] = {"kind": kind}
        return
    shared = {field.name for field in dataclasses.fields(cls)}
    values[part] = {name: value for name, value in values[part].items() if name in shared} | {"kind": kind}


def apply_overrides(recipe: Recipe, plan: Plan, words: Sequence[str]) -> tuple[Recipe, Plan]:
    """Return the recipe and plan with dotted overrides such as ``method.num_segments=4 plan.window=2`` applied.

    Raises:
        RecipeError: lists all wrong names and values at once, each with the nearest right name.
    """
    recipe_values, plan_values = copy.deepcopy(recipe_to_dict(recipe)), plan_to_dict(plan)
    known = leaf_names(recipe_values) + [f"plan.{name}" for name in leaf_names(plan_values)]
    problems: list[str] = []
    pairs: list[tuple[str, Any]] = []
    seen: set[str] = set()
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            problems.append(f"{word}: expected field=value, as in epochs=2")
        elif name in seen:
            problems.append(f"{name}: given twice")
        else:
            seen.add(name)
            pairs.append((name, parse_value(text)))
    # A change of kind comes first, whatever its place in the line: it decides which other fields exist.
    for name, value in pairs:
        part, _, last = name.rpartition(".")
        if last == "kind" and part in _KINDS:
            _change_kind(recipe_values, part, value)
    for name, value in pairs:
        if name.rpartition(".")[2] == "kind" and name.rpartition(".")[0] in _KINDS:
            continue
        values, path = (plan_values, name[5:]) if name.startswith("plan.") else (recipe_values, name)
        *parents, last = path.split(".")
        place: Any = values
        for parent in parents:
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
        else:
            problems.append(f"{name}: there is no such field{suggest_field(name, known)}")
    problems += _problems(lambda: recipe_from_dict(recipe_values), Recipe, known)
    problems += _problems(lambda: plan_from_dict(plan_values), Plan, known, "plan.")
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe_from_dict(recipe_values), plan_from_dict(plan_values)


def _problems(check: Any, root: type, known: Sequence[str], prefix: str = "") -> list[str]:
    try:
        check()
    except ValidationError as error:
        return describe_problems(error, root, known, prefix)
    return []
