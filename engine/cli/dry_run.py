"""`local-learning train --dry-run`: the calls, learners and places of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.outcome import Outcome, aligned
from engine.cli.places import in_process, on_ray
from engine.cli.updates import optimizers_of, rates_of, update_lines
from engine.recipes import (
    MEASURED,
    Plan,
    Recipe,
    cautions,
    has_measured_cuts,
    plan_cautions,
    plan_to_dict,
    recipe_to_dict,
)
from engine.runtimes.replicated import check_replicable, replicate
from engine.training.preview import Preview, preview

if TYPE_CHECKING:
    from engine.training import Resume


def describe(recipe: Recipe, plan: Plan, run_dir: Path | None, resume: Resume) -> Outcome:
    """Return everything that is known before a training starts; nothing is written.

    Raises:
        InputError: the training would be refused.
    """
    found = preview(recipe, run_dir, resume)
    check_replicable(recipe, found.facts, plan)
    if plan.replicas > 1:
        found = replace(found, team=replicate(found.team, plan.replicas))
    placement = in_process(recipe) if plan.executor == "process" else on_ray(found, plan)
    warned = [*cautions(recipe), *plan_cautions(plan)]
    rates = {
        whose or "all": rates_of(recipe, optimizer, found.steps_per_epoch)
        for whose, optimizer in optimizers_of(recipe).items()
    }
    values = {
        "recipe": recipe_to_dict(recipe),
        "plan": plan_to_dict(plan),
        **found.to_json(),
        "learning_rates": {whose: {"first": first, "last": last} for whose, (first, last) in rates.items()},
        "cautions": warned,
        "placement": placement,
    }
    return Outcome([*_lines(found, warned), "", "placement:", f"  {placement['text']}"], values)


def _lines(found: Preview, warned: list[str]) -> list[str]:
    recipe, facts, team = found.recipe, found.facts, found.team
    images = ", ".join(f"{size:,} {split}" for split, size in facts.sizes.items())
    shape = "x".join(map(str, facts.image_shape))
    state = "new"
    if found.finished_steps:
        state = f"holds {found.finished_steps:,} finished steps already"
    learners = [
        (
            learner.name,
            learner.blocks[0] if len(learner.blocks) == 1 else f"{learner.blocks[0]} to {learner.blocks[-1]}",
            f"{len(learner.blocks)} blocks",
            f"{learner.parameters:,} parameters",
            f"{learner.auxiliary_parameters:,} auxiliary parameters",
        )
        for learner in team.learners
    ]
    return [
        f"{recipe.name}: {recipe.method.kind}, {recipe.backbone.name}, {facts.name}",
        f"  images: {images}, of {shape} in {facts.num_classes:,} classes",
        *(f"  {line}" for line in found.inventory.lines()),
        f"  steps: {recipe.epochs:,} epochs of {found.steps_per_epoch:,}, {found.total_steps:,} in all",
        *(f"  {line}" for line in update_lines(recipe, found.steps_per_epoch)),
        f"  run folder: {found.run_dir} ({state})",
        *_cuts(recipe),
        *(f"  caution: {line}" for line in warned),
        "",
        "learners:",
        *aligned(learners),
        "",
        *(
            line
            for program, steps in team.training_programs
            for line in (
                f"training program of {steps}, {program.bytes_per_step:,} bytes of messages:",
                *(f"  {line}" for line in program.describe()),
                "",
            )
        ),
        f"evaluation program, {team.evaluation.bytes_per_step:,} bytes of messages in a batch:",
        *(f"  {line}" for line in team.evaluation.describe()),
        *_recalibration(found),
    ]


def _cuts(recipe: Recipe) -> list[str]:
    """Return what is not known yet of the cuts."""
    if not has_measured_cuts(recipe):
        return []
    return [
        f"  cuts: {recipe.method.inside_field}.cuts={MEASURED} is chosen by timing when the training starts; below is "
        "balanced_time"
    ]


def _recalibration(found: Preview) -> list[str]:
    """Return the program that comes before an evaluation, where there is one."""
    team = found.team
    if team.recalibration is None:
        return []
    images = min(team.recalibration_images, found.facts.sizes["train"])
    return [
        "",
        f"program before each evaluation, for {images:,} training images:",
        *(f"  {line}" for line in team.recalibration.describe()),
    ]
