"""Finished runs: whether the summary.json agrees with the checkpoint.

A summary is believed only as far as the newest checkpoint bears it out, which was verified file by file: steps, scores,
who has diverged and the digest of the weights follow from that alone. Otherwise the same command makes the summary anew
from the checkpoint, as after a kill between the two.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.atomic import replace_file
from engine.checkpoints import Checkpoint, newest_checkpoint
from engine.data import Facts
from engine.errors import InputError, NotWritten, RunError
from engine.methods import networks_sha256, trained_team
from engine.reading import read_json
from engine.recipes import Recipe, recipe_identity, recipe_to_json
from engine.tasks import headline_of
from engine.tracking.metrics import mend_parquet
from engine.training.folder import SUMMARY, read_recipe
from engine.training.reports import mean_score
from engine.training.result import Fault, Result


def finished_result(
    folder: Path, recipe: Recipe, tell: Callable[[str], None], facts: Facts | None = None
) -> Result | None:
    """Return the result of a run that is finished; damaged metrics.parquet and recipe.json are written anew.

    Args:
        folder: the run folder, which need not exist.
        recipe: of the run.
        tell: told what is damaged, and what could not be verified.
        facts: of the images that are there now, where they were opened.

    Returns:
        None where the run is not finished, or its summary cannot be believed: going on makes it anew.

    Raises:
        VersionError: a newer engine has written the summary.
        RunError: it was trained on other images than those of `facts`.
    """
    path = folder / SUMMARY
    if not os.path.lexists(path):
        return None
    try:
        result = Result.from_json(read_json(path, RunError), folder)
    except RunError as error:
        tell(f"{error}; it is made anew from the newest checkpoint")
        return None
    if result.status != "finished":
        return None
    checkpoint, skipped = newest_checkpoint(folder / "checkpoints")
    for line in skipped:
        tell(line)
    if checkpoint is None or (skipped and checkpoint.step < result.steps):
        tell(f"{path}: could not be compared with its checkpoint, of which nothing whole is left")
        return result
    if facts is not None:
        check_images(checkpoint, recipe, facts)
    try:
        contradictions = _contradictions(result, checkpoint, recipe)
    except InputError as error:
        # Such as a network of one's own whose file has changed.
        tell(f"{path}: could not be compared with {checkpoint.path}: {error}")
        return result
    if contradictions:
        tell(f"{path}: is damaged: {'; '.join(contradictions)}; it is made anew from {checkpoint.path}")
        return None
    for mended in (mend_parquet(folder), _mend_recipe(folder, recipe)):
        if mended is not None:
            tell(mended)
    return result


def check_images(checkpoint: Checkpoint, recipe: Recipe, facts: Facts) -> None:
    """Refuse a checkpoint that was trained on other images.

    Args:
        checkpoint: of a run.
        recipe: that is trained.
        facts: of the images that are there now.

    Raises:
        RunError: it was.
    """
    then = Facts.from_json(checkpoint.values["facts"])
    if then.fingerprint == facts.fingerprint:
        return
    what = f"{then.describe()} then, {facts.describe()} now"
    if then.describe() == facts.describe():
        what = f"as many of the same shape, {facts.describe()}; or an earlier version told them apart by less"
    raise RunError(
        f"{checkpoint.path}: was trained on other images than data.root={recipe.data.root} holds now ({what}); give "
        "the same images and labels, or another --run-dir"
    )


def earlier_faults(folder: Path) -> list[Fault]:
    """Return the faults from which earlier commands have recovered, of a run that was interrupted; none of others."""
    try:
        result = Result.from_json(read_json(folder / SUMMARY, RunError), folder)
    except RunError:
        return []
    return list(result.faults) if result.status == "interrupted" else []


def _mend_recipe(folder: Path, recipe: Recipe) -> str | None:
    """Write recipe.json anew where it cannot be read; returns what was done."""
    try:
        read_recipe(folder)
        return None
    except InputError as error:
        try:
            replace_file(folder / "recipe.json", recipe_to_json(recipe).encode())
        except NotWritten as failure:
            return f"{error}; it could not be written anew: {failure}"
        return f"{error}; it was written anew"


def _contradictions(result: Result, checkpoint: Checkpoint, recipe: Recipe) -> list[str]:
    """Return what a summary says otherwise than its checkpoint, each in words."""
    facts = Facts.from_json(checkpoint.values["facts"])
    team = trained_team(recipe, facts)
    latest: Mapping[str, float] = checkpoint.values["latest"]
    reasons = {name: state.extra.get("diverged") for name, state in checkpoint.states.items()}
    diverged = {name: reason for name, reason in reasons.items() if reason is not None}
    headline = headline_of(recipe)
    deployed, trained = team.deployed_parameters, team.trained_parameters
    found = {
        "recipe": (recipe_identity(recipe), checkpoint.values["recipe"]),
        "steps": (result.steps, checkpoint.step),
        "epochs": (result.epochs, recipe.epochs),
        "weights_sha256": (result.weights_sha256, networks_sha256(team.networks, facts, checkpoint.states)),
        "metrics": (_comparable(result.metrics), _comparable(latest)),
        "headline": (result.headline, headline.name),
        "test_score": (
            _number(result.test_score),
            _number(mean_score(latest, team.networks, diverged, headline)),
        ),
        "diverged": (result.diverged, diverged),
        # Not counted yet when older summaries were written.
        "deployed_parameters": (result.deployed_parameters or deployed, deployed),
        "trained_parameters": (result.trained_parameters or trained, trained),
        "peak_memory_bytes": (
            result.peak_memory_bytes,
            {name: parts.get("total") for name, parts in result.memory_parts.items()},
        ),
    }
    return [f"{name} is {said}, expected {expected}" for name, (said, expected) in found.items() if said != expected]


def _comparable(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in scores.items()}


def _number(value: float | None) -> float | None:
    """Return what JSON keeps of a number: nothing of those that are not finite."""
    return value if value is not None and math.isfinite(value) else None
