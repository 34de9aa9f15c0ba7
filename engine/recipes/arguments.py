"""Checks of the arguments of public functions: another kind of value is refused, with what to give instead."""

from __future__ import annotations

import os
from collections.abc import Sequence

from engine.errors import InputError, PlanError, RecipeError
from engine.recipes.plan import Plan
from engine.recipes.recipe import Recipe


def check_argument(name: str, found: object, cls: type, refusal: type[InputError], remedy: str) -> None:
    """Refuse an argument of another class.

    Args:
        name: of the argument.
        found: what was given.
        cls: what it is to be.
        refusal: what is raised.
        remedy: what gives one, put behind the message.

    Raises:
        InputError: of the class ``refusal``.
    """
    if not isinstance(found, cls):
        # A class, which has the methods of what was meant, but not its values.
        shown = f"the class {found.__name__}" if isinstance(found, type) else in_words(found)
        raise refusal(f"{name}: found {shown}, expected {_article(cls.__name__)}: {remedy}")


def in_words(found: object) -> str:
    """Return what was given, for a message: text as it is, of all else what it is."""
    if isinstance(found, str):
        return f"the text {found[:100]!r}"
    return "None" if found is None else _article(type(found).__name__)


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def check_recipe(recipe: object) -> None:
    """Refuse what is no recipe; RecipeError says how to come by one."""
    which = recipe if isinstance(recipe, str) else "infopro_digits"
    check_argument("recipe", recipe, Recipe, RecipeError, f"engine.load_recipe({which!r}) gives one")


def check_plan(plan: object) -> None:
    """Refuse what is no plan; PlanError says how to come by one."""
    executor = plan if plan in ("ray", "process") else "process"
    check_argument("plan", plan, Plan, PlanError, f"give engine.Plan(executor={executor!r}) or similar")


def check_list(name: str, words: object, refusal: type[InputError]) -> None:
    """Refuse a single text or path where a list is wanted, and whatever else is no list of texts and paths.

    Args:
        name: of the argument.
        words: what was given.
        refusal: what is raised.

    Raises:
        InputError: of the class ``refusal``.
    """
    if isinstance(words, str | os.PathLike):
        raise refusal(f"{name}: found {in_words(words)}, expected a list: give [{str(words)[:100]!r}]")
    if not isinstance(words, Sequence):
        raise refusal(f"{name}: found {in_words(words)}, expected a list of texts")
    for word in words:
        if not isinstance(word, str | os.PathLike):
            raise refusal(f"{name}: found {in_words(word)} in the list, expected texts alone")


def check_place(name: str, place: object, refusal: type[InputError]) -> None:
    """Refuse what is no path; ``refusal`` says so."""
    if not isinstance(place, str | os.PathLike):
        raise refusal(f"{name}: found {in_words(place)}, expected the path of a folder, such as 'runs/NAME'")
