"""Lineage: runs that begin with the weights of another one, and how to train them again by hand.

Weights, optimizer and counters of the donor's newest checkpoint become the first checkpoint of a new, ordinary run
folder with a recipe of its own. ``lineage.json`` beside ``recipe.json`` says what came before:

    stages       each with its `recipe`, the `run` that trained it, the `step` at its end, and `weights_sha256` then
    checkpoint   the folder that was copied, and the sha256 of its MANIFEST.json, which names those of all its files

So the same network is trained again, bit for bit, by

    engine.train(stages[0]["recipe"], plan, "a", until_step=stages[0]["step"])
    begin_from("a", stages[1]["recipe"], "b")
    engine.train(stages[1]["recipe"], plan, "b", until_step=stages[1]["step"])
    ...

and last the recipe of the run itself, to its end; `replay` does all of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from engine.atomic import replace_file
from engine.checkpoints import KNOWLEDGE_FOLLOWS, LearnerState, newest_checkpoint, save_checkpoint
from engine.errors import RunError
from engine.methods import networks_sha256
from engine.reading import checked, read_json, without_version
from engine.recipes import Plan, Recipe, load_recipe, recipe_from_dict, recipe_identity, recipe_to_dict, recipe_to_json
from engine.recipes.problems import describe_problems, field_names
from engine.training import Result, load, train
from engine.training.folder import choose_folder

LINEAGE = "lineage.json"
LINEAGE_VERSION = 1
"""Of the form of a lineage.json: raised when an engine that knows the one before would misread it."""

_ADVICE = "bring back a whole copy of it: without it, what came before this run is not known"
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}(-[0-9a-f]{64})*$")]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Stage(TypedDict):
    run: Annotated[str, Field(pattern=r"^[^/\\\x00]{1,255}$")]
    step: Annotated[int, Field(gt=0, lt=2**63)]
    weights_sha256: _Digest
    recipe: dict[str, Any]


@with_config(ConfigDict(extra="forbid", strict=True))
class _Copied(TypedDict):
    folder: str
    manifest_sha256: _Digest


@with_config(ConfigDict(extra="forbid", strict=True))
class _Lineage(TypedDict):
    stages: Annotated[list[_Stage], Field(min_length=1)]
    checkpoint: _Copied


_LINEAGE = TypeAdapter(_Lineage)


def begin_from(donor: str | Path, recipe: Recipe, run_dir: str | Path) -> None:
    """Make a run folder of a recipe whose first checkpoint is the newest one of another run.

    Args:
        donor: run folder whose weights are copied; it is not changed.
        recipe: of the new run; its learners must have the same weights, and the same images.
        run_dir: the new run folder. If it holds this beginning already, nothing changes.

    Raises:
        RunError: the donor has no checkpoint, or the folder holds something else.
    """
    run = load(donor)
    folder = choose_folder(recipe, Path(run_dir), "auto")
    earlier, _ = newest_checkpoint(folder / "checkpoints")
    if earlier is not None and earlier.step != run.checkpoint.step:
        raise RunError(f"{folder}: is a run of {earlier.step} steps already, so it cannot begin; give another folder")
    checkpoint = run.checkpoint
    stage = {
        "run": run.path.name,
        "step": checkpoint.step,
        "weights_sha256": networks_sha256(run.networks, run.facts, checkpoint.states),
        "recipe": recipe_to_dict(run.recipe),
    }
    copied = {
        "folder": str(checkpoint.path),
        "manifest_sha256": hashlib.sha256((checkpoint.path / "MANIFEST.json").read_bytes()).hexdigest(),
    }
    lineage = {"version": LINEAGE_VERSION, "stages": [*stages_of(run.path), stage], "checkpoint": copied}
    # The recipe first: with it the folder is a run folder, whatever follows.
    replace_file(folder / "recipe.json", recipe_to_json(recipe).encode())
    replace_file(folder / LINEAGE, (json.dumps(lineage, indent=2) + "\n").encode())
    states = {name: _alone(state) for name, state in checkpoint.states.items()}
    values = {**checkpoint.values, "recipe": recipe_identity(recipe)}
    save_checkpoint(folder / "checkpoints", checkpoint.step, states, values, keep=1)


def _alone(state: LearnerState) -> LearnerState:
    """Return a state that follows no earlier one: all rows of its knowledge are in it."""
    if not state.knowledge:
        return state
    return dataclasses.replace(state, extra={**state.extra, KNOWLEDGE_FOLLOWS: None})


def stages_of(run_dir: str | Path) -> list[dict[str, Any]]:
    """Return what was trained before a run began, the oldest first; nothing if it began by itself.

    Raises:
        RunError: its lineage.json is damaged.
        VersionError: a newer engine has written it.
    """
    path = Path(run_dir) / LINEAGE
    if not os.path.lexists(path):
        return []
    values = read_json(path, RunError, follow_links=False, advice=_ADVICE)
    values = without_version(values, LINEAGE_VERSION, path, RunError)
    lineage = checked(values, _LINEAGE, path, RunError, advice=_ADVICE)
    stages: list[dict[str, Any]] = [dict(stage) for stage in lineage["stages"]]
    for place, stage in enumerate(stages):
        try:
            recipe_from_dict(stage["recipe"])
        except ValidationError as error:
            problem = describe_problems(error, Recipe, field_names(Recipe, stage["recipe"]))[0]
            raise RunError(f"{path}: stages.{place}.recipe: {problem}; {_ADVICE}") from error
    steps = [stage["step"] for stage in stages]
    if steps != sorted(set(steps)):
        raise RunError(f"{path}: stages end at the steps {steps}, expected each after the one before; {_ADVICE}")
    return stages


def replay(run_dir: str | Path, target: str | Path, plan: Plan | None = None) -> Result:
    """Train again what a run is made of, from the first stage of its lineage to its end.

    Args:
        run_dir: run folder with or without a lineage; only ``recipe.json`` and ``lineage.json`` are read.
        target: folder of the stages ``stage-0``, ``stage-1``, ...; killed, the same call goes on.
        plan: where and how it runs.

    Returns:
        the result of the last stage; its weights are those of the run, bit for bit.

    Raises:
        EngineError: as `engine.train`.
    """
    stages = stages_of(run_dir)
    recipe = load_recipe(Path(run_dir) / "recipe.json")
    parts = [*((recipe_from_dict(stage["recipe"]), int(stage["step"])) for stage in stages), (recipe, None)]
    for number, (part, until_step) in enumerate(parts):
        folder = Path(target) / f"stage-{number}"
        if number > 0 and newest_checkpoint(folder / "checkpoints")[0] is None:
            begin_from(folder.with_name(f"stage-{number - 1}"), part, folder)
        result = train(part, plan, folder, until_step=until_step)
    return result
