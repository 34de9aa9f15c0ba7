"""Preview of a recipe's training, before anything is trained or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints import newest_checkpoint
from engine.data import Facts, Inventory
from engine.errors import RecipeError, RunError
from engine.methods import Team
from engine.paths import absolute
from engine.program import Program
from engine.recipes import Plan, Recipe, with_absolute_paths, with_modelled_cuts
from engine.recipes.arguments import check_place, check_recipe
from engine.training.folder import Resume, choose_folder, read_summary, with_stored_cuts
from engine.training.session import Session


@dataclass(frozen=True)
class Preview:
    """A training that has not begun.

    Attributes:
        recipe: what would be trained; its cuts may still be to be measured.
        facts: what is known of the images.
        inventory: what was found of them, used or not.
        team: learners and programs; where cuts are still to be measured, those of ``balanced_time``.
        steps_per_epoch: optimizer steps in an epoch.
        run_dir: the run folder that would be used.
        finished_steps: steps that this folder holds already.
    """

    recipe: Recipe
    facts: Facts
    inventory: Inventory
    team: Team
    steps_per_epoch: int
    run_dir: Path
    finished_steps: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.epochs * self.steps_per_epoch

    def to_json(self) -> dict[str, Any]:
        """Return learners, programs and sizes as JSON values."""
        return {
            "run_dir": str(self.run_dir),
            "images": self.facts.sizes,
            "data": self.inventory.to_json(),
            "image_shape": self.facts.image_shape,
            "num_classes": self.facts.num_classes,
            "steps_per_epoch": self.steps_per_epoch,
            "total_steps": self.total_steps,
            "finished_steps": self.finished_steps,
            "learners": [
                {
                    "name": learner.name,
                    "blocks": learner.blocks,
                    "parameters": learner.parameters,
                    "auxiliary_parameters": learner.auxiliary_parameters,
                }
                for learner in self.team.learners
            ],
            "training": [
                {"steps": steps, **_program_values(program)} for program, steps in self.team.training_programs
            ],
            "evaluation": _program_values(self.team.evaluation),
            "recalibration": _program_values(self.team.recalibration) if self.team.recalibration is not None else None,
        }


def _program_values(program: Program) -> dict[str, Any]:
    return {
        "bytes_per_step": program.bytes_per_step,
        "calls": [
            {"learner": call.learner, "phase": call.phase, "takes": call.takes, "gives": call.gives}
            for call in program.calls
        ],
        "messages": {
            name: {
                "parts": [{"shape": shape, "dtype": dtype} for shape, dtype in message.parts],
                "bytes": message.bytes,
            }
            for name, message in program.messages.items()
        },
    }


def check_batches(recipe: Recipe, facts: Facts) -> None:
    """Refuse batches of a single image; where each draws its classes, none is shorter than the others.

    Raises:
        RecipeError: says how many images would be left over.
    """
    if recipe.data.classes_per_batch is not None:
        return
    if recipe.data.batch_size == 1 or facts.sizes["train"] % recipe.data.batch_size == 1:
        raise RecipeError(
            f"data.batch_size={recipe.data.batch_size} leaves a batch of 1 of the {facts.sizes['train']:,} training "
            "images, which batch normalisation cannot train on; choose another data.batch_size"
        )


def preview(recipe: Recipe, run_dir: str | Path | None = None, resume: Resume = "auto") -> Preview:
    """Open the images and plan the programs of a training; no run folder is made.

    Args:
        recipe: what would be trained.
        run_dir: as given to `train`.
        resume: as given to `train`.

    Raises:
        RecipeError, DataError, RunError: what `train` would refuse, too.
    """
    check_recipe(recipe)
    if run_dir is not None:
        check_place("run_dir", run_dir, RunError)
    recipe = with_absolute_paths(recipe)
    wanted = absolute(run_dir, "--run-dir", RunError) if run_dir is not None else None
    folder = absolute(choose_folder(recipe, wanted, resume), "--run-dir", RunError)
    recipe = with_stored_cuts(recipe, folder)
    with Session(with_modelled_cuts(recipe), Plan()) as session:
        source = session.source
        check_batches(recipe, source.facts)
        steps, finished = source.steps_per_epoch(), _finished_steps(folder)
        return Preview(recipe, source.facts, source.inventory, session.team, steps, folder, finished)


def _finished_steps(folder: Path) -> int:
    summary = read_summary(folder)
    if summary is not None and summary["status"] == "finished":
        return int(summary["steps"])
    checkpoint, _ = newest_checkpoint(folder / "checkpoints")
    return checkpoint.step if checkpoint is not None else 0
