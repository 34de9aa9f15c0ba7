"""Finds a recipe: by the name of a shipped one, in a Python file of the user's, or in an earlier run's JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from engine.errors import InputError, RecipeError
from engine.reading import naming, open_regular, read_json, without_version
from engine.recipes.measured_cuts import with_cuts_of
from engine.recipes.own_files import import_once
from engine.recipes.problems import describe_problems, field_names, nearest, settings_classes
from engine.recipes.recipe import Recipe, recipe_from_dict, recipe_identity, recipe_to_dict

RecipeFunction = Callable[[], Recipe]

RECIPE_VERSION = 1
"""Of the form of a recipe.json: raised when a field is renamed, removed, or means something else."""

_CODE = re.compile(r"(.+\.py):\w+", re.DOTALL)
_CODE_BYTES = 16 * 2**20


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes."""
    return Path(__file__).resolve().parents[2] / "experiments" / "recipes"


def import_file(path: Path) -> ModuleType:
    """Return the module of a Python file, imported once for as long as it does not change.

    Raises:
        RecipeError: says where it fails; the file has more than 16 MiB, is no regular one, or may not be read.
    """
    if path.suffix != ".py":
        raise RecipeError(f"{path}: is not a Python file; expected one whose name ends in .py")
    content = _code(path)
    try:
        return import_once(path.absolute(), content)
    except (Exception, SystemExit) as error:
        raise file_error(path, "could not be imported", error) from error


def _code(path: Path) -> bytes:
    with open_regular(path, RecipeError) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _CODE_BYTES:
            raise RecipeError(f"{path}: has {size:,} bytes; expected at most {_CODE_BYTES:,} of Python")
        return file.read(size)


def file_error(path: Path, what: str, error: BaseException) -> RecipeError:
    """Return what to say of an error that a Python file of the user's raised: its line, and all wrong fields."""
    place = f"{path}{_line_of(error, path)}"
    if isinstance(error, InputError):
        return RecipeError("\n".join(f"{place}: {line}" for line in str(error).splitlines()))
    if not isinstance(error, ValidationError):
        return RecipeError(f"{place}: {what}: {type(error).__name__}: {error}")
    # Of plain values, which a file may check as `recipe_from_dict` does.
    cls = next((cls for cls in settings_classes(Recipe) if cls.__name__ == error.title), None)
    if cls is None:
        return RecipeError(f"{place}: {what}: {error}")
    lines = describe_problems(error, cls, field_names(cls, {}))
    return RecipeError("\n".join(f"{place}: {cls.__name__}: {line}" for line in lines))


def _line_of(error: BaseException, path: Path) -> str:
    trace = error.__traceback__
    line = error.lineno if isinstance(error, SyntaxError) else None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in (str(path), str(path.absolute())):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f":{line}" if line is not None else ""


def shipped_recipes() -> dict[str, RecipeFunction]:
    """Return the functions of all recipes in `experiments/recipes`, by name.

    A file there holds a dictionary ``RECIPES`` of functions, which may be variations of one another.
    """
    return {name: function for module in _shipped_modules().values() for name, function in module.RECIPES.items()}


def file_of_shipped(name: str) -> tuple[Path, str]:
    """Return the file that holds a shipped recipe, and its docstring: data, budget, published figures.

    Args:
        name: one of those that `shipped_recipes` returns.

    Raises:
        KeyError: there is no such recipe.
    """
    for path, module in _shipped_modules().items():
        if name in module.RECIPES:
            return path, (module.__doc__ or "").strip()
    raise KeyError(name)


def _shipped_modules() -> dict[Path, ModuleType]:
    paths = sorted(recipes_folder().glob("*.py"))
    return {path: import_file(path) for path in paths if path.name != "__init__.py"}


def load_recipe(which: str | Path) -> Recipe:
    """Return the recipe that a word on the command line names.

    Args:
        which: name of a shipped recipe, path of a Python file that defines ``recipe()``, path of a
            ``recipe.json``, or a run folder that holds one.

    Raises:
        RecipeError: it does not exist, does not import, or does not describe a recipe; or it names a shipped recipe,
            and a run folder with another one.
        VersionError: a newer engine has written the recipe.json.
    """
    text = str(which)
    if "\0" in text:
        raise RecipeError(f"recipe {text!r}: holds the character NUL, which no name can")
    path = Path(os.path.expanduser(text))
    with naming(path, RecipeError):
        is_run = path.is_dir() and os.path.lexists(path / "recipe.json")
    if is_run:
        found = _from_json(path / "recipe.json")
        # A path object cannot say ./NAME; it always means the folder.
        if isinstance(which, str):
            _check_meaning(text, found)
        return found
    if path.suffix == ".json":
        return _from_json(path)
    if path.suffix == ".py":
        return _from_python(path)
    recipes = shipped_recipes()
    if text in recipes:
        return recipes[text]()
    if "/" in text or path.is_dir():
        raise RecipeError(f"{text}: is neither a .py file, nor a recipe.json, nor a run folder that holds one")
    raise RecipeError(
        f"recipe {text!r} does not exist{nearest(text, recipes)}\n"
        "`local-learning list` shows all recipes; a recipe of your own is given as the path of its .py file"
    )


def _check_meaning(word: str, of_run: Recipe) -> None:
    """Refuse the name of a shipped recipe that is also a run folder here, unless both mean one training."""
    shipped = shipped_recipes().get(word)
    if shipped is not None and recipe_identity(with_cuts_of(shipped(), of_run)) != recipe_identity(of_run):
        raise RecipeError(
            f"recipe {word!r}: is a shipped recipe, and here also a run folder with another one: give ./{word} for "
            f"that of the run; for the shipped one rename the folder {word}, or give the command in another folder"
        )


def _from_python(path: Path) -> Recipe:
    _code(path)  # said of the path as it was given
    module = import_file(path.resolve())
    function = getattr(module, "recipe", None)
    if not callable(function):
        raise RecipeError(f"{path}: defines no function recipe(); expected `def recipe() -> Recipe`")
    try:
        recipe = function()
    except (Exception, SystemExit) as error:
        raise file_error(path.resolve(), "recipe() failed", error) from error
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{path}: recipe() returned {type(recipe).__name__}, expected engine.Recipe")
    return recipe


def _from_json(path: Path) -> Recipe:
    values = read_json(path, RecipeError)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: holds a {type(values).__name__}, expected an object with the fields of a recipe")
    values = without_version(values, RECIPE_VERSION, path, RecipeError)
    _check_code(values, path)
    try:
        return recipe_from_dict(values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: is damaged: it is nested too deep") from error
    except ValidationError as error:
        lines = describe_problems(error, Recipe, field_names(Recipe, values))
        raise RecipeError("\n".join(f"{path}: {line}" for line in lines)) from error


def _check_code(values: Any, path: Path) -> None:
    """Refuse code that a recipe.json brings along: it is data, which may come from anybody.

    A whole path outside of its folder can only lead to what somebody has put there who knows this machine.
    """
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            _check_code(value, path)
    elif isinstance(values, str) and (named := _CODE.fullmatch(values)):
        file, folder = Path(named[1]), path.resolve().parent
        if not file.is_absolute() or folder in file.resolve().parents:
            raise RecipeError(
                f"{path}: names the code {values}, which lies in its own folder or where the command is given; a "
                "recipe.json may name code of yours only: put the file elsewhere, and its whole path, beginning with "
                "/, into recipe.json"
            )


def recipe_to_json(recipe: Recipe) -> str:
    """Return the text of a recipe.json, which `load_recipe` reads."""
    return json.dumps({"version": RECIPE_VERSION, **recipe_to_dict(recipe)}, indent=2) + "\n"
