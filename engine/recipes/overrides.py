"""Turns `field=value` words from the command line into a checked recipe and plan."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.errors import RecipeError
from engine.reading import check_values
from engine.recipes.arguments import check_list, check_plan, check_recipe
from engine.recipes.methods import METHODS
from engine.recipes.optimizer import SGD, Adam, AdamW, Constant, Cosine, Exponential, Polynomial, RMSProp, Step
from engine.recipes.own_files import is_own
from engine.recipes.own_methods import own_settings
from engine.recipes.plan import Plan, plan_from_dict, plan_to_dict
from engine.recipes.problems import describe_problems, field_names, field_types, suggest_field
from engine.recipes.recipe import Recipe, recipe_from_dict, recipe_to_dict
from engine.recipes.tasks import Classification, OwnTask, Retrieval, Segmentation

_LONGEST_NAME = 200
_BRANCHES = {name: METHODS[name] for name in ("dsn", "dsl", "dhm")}
_CHAINS = {name: METHODS[name] for name in ("end_to_end", "greedy", "dgl", "predsim", "infopro")}
_KINDS: dict[str, dict[str, type]] = {
    "method": METHODS,
    "method.branches": _BRANCHES,
    "method.peer_method": _CHAINS | _BRANCHES,
    "method.peer_method.branches": _BRANCHES,
    "task": {"classification": Classification, "retrieval": Retrieval, "segmentation": Segmentation},
    "optimizer": {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSProp},
    "schedule": {
        "constant": Constant,
        "cosine": Cosine,
        "step": Step,
        "polynomial": Polynomial,
        "exponential": Exponential,
    },
}


def parse_value(text: str, types: set[type]) -> Any:
    """Return what a word on the command line means for a field of these types.

    JSON where it is JSON (4, true, [1, 2], null), and numbers with commas are a list, as is one number for a field that
    holds a list. All else stays text, and so does everything for a text field, whose folder may be called 1.10.
    """
    if text in ("None", "null"):
        return None
    if types == {str}:
        return text
    for candidate in (text, text.lower() if text in ("True", "False") else "", f"[{text}]" if "," in text else ""):
        try:
            value = json.loads(candidate)
        # Among others an integer of more digits than Python converts.
        except (ValueError, RecursionError):
            continue
        if types == {tuple} and isinstance(value, int | float) and not isinstance(value, bool):
            return [value]
        # Python counts truth values among the integers; no field means that.
        return text if isinstance(value, bool) and types and bool not in types else value
    return text


def _change_kind(values: dict[str, Any], part: str, kind: str) -> None:
    """Switch a tagged part of the recipe, keeping the values of the fields that both kinds have."""
    *parents, last = part.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    cls = _KINDS[part].get(kind)
    if is_own(kind):
        cls = own_settings(kind) if part == "method" else OwnTask if part == "task" else None
    shared = {field.name for field in dataclasses.fields(cls)} if cls is not None else set()
    kept = {name: value for name, value in (values.get(last) or {}).items() if name in shared}
    values[last] = _nested_defaults(cls) | kept | {"kind": kind}


def _nested_defaults(cls: Any) -> dict[str, Any]:
    """Return the defaults of a settings class that have fields of their own, which words may name, as plain values."""
    fields = cls.__pydantic_fields__ if cls is not None else {}
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return {
        name: TypeAdapter(type(default)).dump_python(default, mode="json")
        for name, default in defaults.items()
        if dataclasses.is_dataclass(default) or isinstance(default, dict)
    }


def _of_other_kinds(name: str, values: Mapping[str, Any]) -> str:
    """Return what to set where a part that a dotted name goes through exists with other kinds; "" if with none."""
    for part, kinds in _KINDS.items():
        if not name.startswith(f"{part}."):
            continue
        found: Any = values
        for parent in part.split("."):
            found = found.get(parent) if isinstance(found, dict) else None
        kind = found.get("kind") if isinstance(found, dict) else None
        field = name.removeprefix(f"{part}.").partition(".")[0]
        having = [other for other, cls in kinds.items() if field in {each.name for each in dataclasses.fields(cls)}]
        if kind in kinds and kind not in having and having:
            others = f" (or {', '.join(having[1:])})" if len(having) > 1 else ""
            return f" with {part}.kind={kind}; set {part}.kind={having[0]}{others}"
    return ""


def apply_overrides(recipe: Recipe, plan: Plan, words: Sequence[str]) -> tuple[Recipe, Plan]:
    """Return the recipe and plan with dotted overrides such as ``method.num_segments=4 plan.window=2`` applied.

    Raises:
        RecipeError: lists all wrong names and values at once, each with the nearest right name.
        PlanError: ``plan`` is no plan.
    """
    check_recipe(recipe)
    check_plan(plan)
    check_list("words", words, RecipeError)
    recipe_values, plan_values = copy.deepcopy(recipe_to_dict(recipe)), plan_to_dict(plan)
    problems: list[str] = []
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            problems.append(f"{word}: expected field=value, as in epochs=2")
        elif name in seen:
            problems.append(f"{name}: given twice")
        else:
            seen.add(name)
            pairs.append((name, text))
    for name in sorted(seen):
        problems += [
            f"{name} and {part} contradict each other; give one" for part in seen if part.startswith(f"{name}.")
        ]
    # A change of kind comes first, whatever its place in the line: it decides which other fields exist.
    changed: set[str] = set()
    for part in _KINDS:
        kind = next((text for name, text in pairs if name == f"{part}.kind"), None)
        if kind is not None and part in field_names(Recipe, recipe_values):
            try:
                _change_kind(recipe_values, part, kind)
            except RecipeError as error:
                raise RecipeError("\n".join([*problems, str(error)])) from error
            changed.add(f"{part}.kind")
    known = field_names(Recipe, recipe_values) + field_names(Plan, plan_values, "plan.")
    for name, text in pairs:
        if name in changed:
            continue
        if name in _KINDS and (text in _KINDS[name] or is_own(text)):
            problems.append(f"{name}={text}: expected {name}.kind={text}")
            continue
        is_plan = name.startswith("plan.")
        values, path = (plan_values, name[5:]) if is_plan else (recipe_values, name)
        value = parse_value(text, field_types(Plan if is_plan else Recipe, path.split("."), values))
        try:
            check_values([name, text, value])
        except ValueError as error:
            problems.append(f"{name[:_LONGEST_NAME]}: cannot be set so: {error}")
            continue
        *parents, last = path.split(".")
        place: Any = values
        for parent in parents:
            if isinstance(place, dict) and place.get(parent) is None and name in known:
                place[parent] = {}
            place = place.get(parent) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = value
        else:
            hint = _of_other_kinds(name, recipe_values) or suggest_field(name, known)
            problems.append(f"{name}: there is no such field{hint}")
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


def dotted_fields(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under one dotted name each, such as ``data.batch_size``.

    Args:
        values: plain values and dictionaries of them.
        prefix: what stands before each name.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= dotted_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
