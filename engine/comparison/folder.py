"""The folder of a comparison: what is compared in it, and where its runs and tables lie."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from engine.atomic import remove_unfinished, replace_file, write_error
from engine.errors import RunError
from engine.reading import checked, read_json, without_version
from engine.recipes import (
    Recipe,
    has_measured_cuts,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
    with_cuts_of,
)
from engine.training.folder import Resume, free_folder, names_in
from engine.training.holding import hold, release

COMPARISON_VERSION = 1
"""Of the form of a comparison.json: raised when an engine that knows the one before would misread it."""

_CONTENT = "comparison.json"
_COSTS = "costs.json"
_LONGEST_NAME = 100


class _Recipe(TypedDict):
    identity: str
    recipe: dict[str, Any]


class _Content(TypedDict):
    """What comparison.json holds."""

    seeds: list[Annotated[int, Field(strict=True)]]
    recipes: dict[str, _Recipe]


_COMPARED = TypeAdapter(_Content)
_COST: TypeAdapter[dict[str, float | None]] = TypeAdapter(
    dict[str, Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None]
)


def comparison_content(
    recipes: Mapping[str, Recipe], seeds: Sequence[int], trained: Mapping[str, Recipe] | None = None
) -> dict[str, Any]:
    """Return what is compared as JSON values; each recipe with the digest of all that decides its weights.

    Args:
        recipes: as given, by label: where cuts are to be measured, the same command shall find its comparison again.
        seeds: with which each is trained.
        trained: with the cuts that were chosen; the same unless given.
    """
    return {
        "seeds": list(seeds),
        "recipes": {
            label: {
                "identity": recipe_identity(replace(recipe, seed=0)),
                "recipe": recipe_to_dict((trained or recipes)[label]),
            }
            for label, recipe in recipes.items()
        },
    }


def with_compared_cuts(recipes: Mapping[str, Recipe], folder: Path) -> dict[str, Recipe]:
    """Return recipes with the cuts that were measured for the comparison in a folder, where there is one.

    Args:
        recipes: by label.
        folder: of `choose_comparison_folder`.

    Raises:
        RunError: what is compared there cannot be read.
    """
    path = folder / _CONTENT
    if not any(map(has_measured_cuts, recipes.values())) or not os.path.lexists(path):
        return dict(recipes)
    stored = _read_content(path)["recipes"]
    try:
        earlier = {label: recipe_from_dict(each["recipe"]) for label, each in stored.items()}
    except ValidationError as error:
        raise RunError(
            f"{path}: is damaged: a recipe in it is none ({error.errors()[0]['msg']}); give another --run-dir, or "
            "--resume never to start a new comparison beside it"
        ) from error
    # The first seed, with which they were kept, may be another one now.
    return {label: with_cuts_of(recipe, replace(earlier[label], seed=recipe.seed)) for label, recipe in recipes.items()}


def choose_comparison_folder(content: Mapping[str, Any], run_dir: Path | None, resume: Resume) -> Path:
    """Return the folder that a comparison uses, `runs/compare-DIGEST` unless given, without writing anything.

    The digest is that of the recipes: more seeds find what was trained with the earlier ones. With ``resume="never"``
    an existing folder is left alone, and the next free name beside it is taken.

    Raises:
        RunError: the folder holds another comparison, or seeds that are not among those of now, or something else.
        VersionError: a newer engine has written it.
    """
    folder = run_dir if run_dir is not None else _default_folder(content)
    if resume == "never":
        return free_folder(folder)
    if _is_begun(folder):
        _check_same(folder, content)
    return folder


def _default_folder(content: Mapping[str, Any]) -> Path:
    identities, seeds = _identities(content), content["seeds"]
    # Earlier engines named it by its seeds, too; since then there may have been more of them.
    for count in range(len(seeds), 0, -1):
        named_by_seeds = _named([seeds[:count], identities])
        if _is_begun(named_by_seeds):
            return named_by_seeds
    return _named(identities)


def _named(values: list[Any]) -> Path:
    return Path("runs") / f"compare-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]}"


def _is_begun(folder: Path) -> bool:
    # A comparison that ended before it had written what it compares leaves hidden files only.
    return any(not name.startswith(".") for name in names_in(folder))


def run_folder_names(labels: Sequence[str]) -> dict[str, str]:
    """Return for each label a part of a file name that no other label has."""
    names: dict[str, str] = {}
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9._=-]+", "_", label).strip("._") or "recipe"
        if len(name) > _LONGEST_NAME or name.lower() in {taken.lower() for taken in names.values()}:
            name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        names[label] = name
    return names


class ComparisonFolder:
    """The folder of a comparison that this process alone writes to.

    Raises:
        RunError: another process is comparing in it, or it cannot be made.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self._names = run_folder_names(list(content["recipes"]))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        self._lock: IO[str] = hold(path, "comparing")
        try:
            remove_unfinished(path)
            self.write(_CONTENT, json.dumps({"version": COMPARISON_VERSION, **content}, indent=2) + "\n")
        except BaseException:
            release(self._lock)
            raise

    def run_dir(self, label: str, seed: int) -> Path:
        """Return the run folder of a recipe with a seed."""
        return self.path / "runs" / f"{self._names[label]}-seed{seed}"

    def write(self, name: str, text: str) -> Path:
        """Write a text file into the folder, replacing an earlier one whole; returns its path."""
        replace_file(self.path / name, text.encode())
        return self.path / name

    def read_costs(self, tell: Callable[[str], None]) -> dict[str, float | None]:
        """Return the operations per image that were counted before, by label; what is damaged is counted again."""
        path = self.path / _COSTS
        if not os.path.lexists(path):
            return {}
        try:
            return checked(read_json(path, RunError, follow_links=False), _COST, path, RunError)
        except RunError as error:
            tell(f"{error}; the operations are counted again")
            return {}

    def write_costs(self, costs: Mapping[str, float | None]) -> None:
        """Keep the operations per image by label; counting them again would give the same."""
        self.write(_COSTS, json.dumps(costs, indent=2) + "\n")

    def close(self) -> None:
        """Let other processes write to the folder."""
        release(self._lock)


def _check_same(folder: Path, content: Mapping[str, Any]) -> None:
    path = folder / _CONTENT
    if not os.path.lexists(path):
        raise RunError(f"{folder}: holds files but no {_CONTENT}, so it is no comparison; give another --run-dir")
    remedy = "give another --run-dir, or --resume never to start a new one beside it"
    try:
        earlier = _read_content(path)
    except RunError as error:
        raise RunError(f"{error}; {remedy}") from error
    differences = _differences(earlier, content)
    if differences:
        raise RunError(f"{folder}: holds another comparison ({'; '.join(differences)}); {remedy}")
    before, now = earlier["seeds"], content["seeds"]
    if not set(before) <= set(now):
        both = _seeds_in_words(dict.fromkeys([*before, *now]))
        raise RunError(
            f"{folder}: holds this comparison with seeds that are not among those of now (seeds were {_listed(before)} "
            f"and are now {_listed(now)}): to go on with all of them, give --seeds {both}; for these seeds alone, "
            f"{remedy}"
        )


def _read_content(path: Path) -> _Content:
    values = without_version(read_json(path, RunError), COMPARISON_VERSION, path, RunError)
    return checked(values, _COMPARED, path, RunError)


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    before, after = earlier["recipes"], now["recipes"]
    if list(before) != list(after):
        found.append(f"recipes were {_listed(before)} and are now {_listed(after)}")
    changed = [label for label in before if label in after and before[label]["identity"] != after[label]["identity"]]
    if changed:
        found.append(f"other fields of {_listed(changed)}")
    return found


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _seeds_in_words(seeds: Collection[int]) -> str:
    """Return seeds as ``--seeds`` takes them: 3 for 0, 1, 2."""
    return str(len(seeds)) if set(seeds) == set(range(len(seeds))) else ",".join(map(str, seeds))


def _identities(content: Mapping[str, Any]) -> list[Any]:
    return [(label, each["identity"]) for label, each in content["recipes"].items()]
