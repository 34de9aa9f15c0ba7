"""The run folder: who may write to it, and what it holds besides metrics and checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Literal, get_args

from engine.atomic import AppendedFile, open_appending, replace_file, write_error
from engine.checkpoints import newest_checkpoint, refuse_newer
from engine.errors import InputError, RunError, VersionError
from engine.reading import naming, read_json
from engine.recipes import (
    MEASURED,
    Plan,
    Recipe,
    has_measured_cuts,
    load_recipe,
    plan_to_json,
    recipe_identity,
    recipe_to_dict,
    recipe_to_json,
    with_cuts_of,
)
from engine.recipes.overrides import dotted_fields
from engine.training.environment import ENVIRONMENT
from engine.training.holding import hold, release
from engine.training.result import Result

Resume = Literal["auto", "never"]

SUMMARY = "summary.json"


def default_folder(recipe: Recipe) -> Path:
    """Return `runs/NAME-DIGEST`: the same recipe finds its run again, and another one never meets it."""
    return Path("runs") / f"{recipe.name}-{recipe_identity(recipe)[:8]}"


def check_resume(resume: object) -> None:
    """Refuse what is neither of the two words, before it is taken for one of them.

    Args:
        resume: as given to `engine.train`, `engine.compare` or `engine.sweep`.

    Raises:
        RunError: says what was found and expected.
    """
    if resume not in get_args(Resume):
        raise RunError(
            f"resume={resume!r}: expected 'auto', which goes on with what is in the folder, or 'never', which starts "
            "anew beside it"
        )


def choose_folder(recipe: Recipe, run_dir: Path | None, resume: Resume) -> Path:
    """Return the folder that a run uses, without writing anything.

    With ``resume="never"`` an existing folder is left alone, and the next free name beside it is taken. A recipe whose
    cuts are still to be measured is that of the folder if the folder's has only names in their place.

    Raises:
        RunError: the folder belongs to another recipe, or is no run folder; or there is no such `resume`.
        VersionError: a newer engine has written it.
    """
    check_resume(resume)
    folder = run_dir if run_dir is not None else default_folder(recipe)
    if resume == "never":
        return free_folder(folder)
    # A run that ended before it had written its recipe leaves a lock, a log, and perhaps half a recipe aside.
    if any(name != "log.txt" and not name.startswith(".") for name in names_in(folder)):
        try:
            earlier = read_recipe(folder)
        except VersionError:
            raise
        except InputError as error:
            checkpoint, _ = newest_checkpoint(folder / "checkpoints")
            if checkpoint is not None and checkpoint.values["recipe"] == recipe_identity(recipe):
                # It knows of what recipe it is, so nothing that was trained is lost; the file is written anew.
                return folder
            named = f", or the blocks that {folder}/log.txt says were chosen" if has_measured_cuts(recipe) else ""
            raise RunError(f"{error}; give another --run-dir{named}") from error
        if recipe_identity(earlier) != recipe_identity(with_cuts_of(recipe, earlier)):
            raise RunError(
                f"{folder}: holds a run of another recipe ({_differences(earlier, recipe)}); give another --run-dir, "
                "or --resume never to start a new run beside it"
            )
        refuse_newer(folder / "checkpoints")
    return folder


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe in a run folder.

    Raises:
        RunError, RecipeError: there is none, or it cannot be read.
    """
    if not (folder / "recipe.json").is_file():
        raise RunError(f"{folder}: holds files but no recipe.json, so it is no run folder")
    return load_recipe(folder / "recipe.json")


def with_stored_cuts(recipe: Recipe, folder: Path) -> Recipe:
    """Return a recipe with the cuts that the run in a folder has, where its own are still to be measured.

    Args:
        recipe: that is to be trained.
        folder: that `choose_folder` has chosen for it; it need not exist.
    """
    if not has_measured_cuts(recipe) or not (folder / "recipe.json").is_file():
        return recipe
    return with_cuts_of(recipe, read_recipe(folder))


def names_in(folder: Path) -> list[str]:
    """Return what a folder holds; nothing where there is none.

    Raises:
        RunError: it is a file, or may not be read.
    """
    with naming(folder, RunError):
        if not folder.exists():
            return []
        if not folder.is_dir():
            raise RunError(f"{folder}: is a file; give the name of a folder")
        return os.listdir(folder)


def _differences(earlier: Recipe, now: Recipe) -> str:
    before, after = dotted_fields(recipe_to_dict(earlier)), dotted_fields(recipe_to_dict(now))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name) and name != "name"]
    # What was measured then would be asked for again, were all else the same.
    names = [name for name in names if after.get(name) != MEASURED or isinstance(before.get(name), str)]
    listed = [f"{name} was {before.get(name)!r} and is now {after.get(name)!r}" for name in names[:4]]
    return "; ".join(listed) + (f"; and {len(names) - 4} more" if len(names) > 4 else "")


class RunFolder:
    """A run folder that this process alone writes to.

    Args:
        path: of the folder.
        recipe: of the run.
        plan: where it runs.
        environment: what `engine.training.environment.describe_environment` says of it.

    Raises:
        RunError: another process is training in it, or it cannot be made.
    """

    def __init__(self, path: Path, recipe: Recipe, plan: Plan, environment: Mapping[str, Any]) -> None:
        self.path, self.environment = path, environment
        self.checkpoints = path / "checkpoints"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        self._lock: IO[str] = hold(path, "training")
        try:
            if self.checkpoints.is_symlink():
                # Old ones are removed there, which may be somebody else's.
                raise RunError(
                    f"{self.checkpoints}: is a symbolic link; expected a folder of the run's own; remove it, and give "
                    "a --run-dir on the disk where checkpoints should be"
                )
            replace_file(path / "recipe.json", recipe_to_json(recipe).encode())
            replace_file(path / "plan.json", plan_to_json(plan).encode())
            self.write_json(ENVIRONMENT, environment)
            self.checkpoints.mkdir(exist_ok=True)
            self._log = AppendedFile(open_appending(path / "log.txt"))
        except (OSError, RunError) as error:
            release(self._lock)
            raise error if isinstance(error, RunError) else write_error(Path(error.filename or path), error) from error

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file into the folder, replacing an earlier one whole."""
        replace_file(self.path / name, (json.dumps(values, indent=2, sort_keys=False) + "\n").encode())

    def write_lines(self, name: str, values: Iterable[object]) -> None:
        """Write a text file with one value a line into the folder, replacing an earlier one whole."""
        replace_file(self.path / name, "".join(f"{value}\n" for value in values).encode())

    def log(self, text: str) -> None:
        """Append to log.txt; what the disk does not take comes with the next line that it does."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n"
        with contextlib.suppress(OSError):
            self._log.write(line.encode(errors="backslashreplace"))

    def close(self) -> None:
        """Let other processes write to the folder."""
        with contextlib.suppress(OSError):
            self._log.close()
        release(self._lock)


def free_folder(path: Path) -> Path:
    """Return the first of a folder's name, NAME-2, NAME-3, ... that does not exist or is empty.

    Raises:
        RunError: the folder of this name is a file, or may not be read.
    """
    number, free = 2, path
    while names_in(free):
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return what summary.json holds, as `Result.to_json`, or None where there is none that can be used.

    Raises:
        VersionError: a newer engine has written it.
    """
    try:
        return Result.from_json(read_json(path / SUMMARY, RunError), path).to_json()
    except RunError:
        return None
