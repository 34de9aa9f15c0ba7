"""`local-learning train --dry-run`: which calls, learners and places would a training have?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cli.machine import shared_memory
from engine.cli.outcome import Outcome, aligned
from engine.recipes import Plan, Recipe, plan_to_dict, recipe_to_dict
from engine.training.preview import Preview, preview

if TYPE_CHECKING:
    from engine.training import Resume

# As the runtime counts: a float32 weight, two slots of its optimizer, and room for the copy that is written.
_STATE_BYTES_PER_PARAMETER = 4 * 4


def describe(recipe: Recipe, plan: Plan, run_dir: str | None, resume: Resume) -> Outcome:
    """Return everything that is known before a training starts; nothing is written.

    Raises:
        InputError: the training would be refused.
    """
    found = preview(recipe, run_dir, resume)
    placement = _in_process(recipe) if plan.executor == "process" else _on_ray(found, plan)
    values = {
        "recipe": recipe_to_dict(recipe),
        "plan": plan_to_dict(plan),
        **found.to_json(),
        "placement": placement,
    }
    return Outcome([*_lines(found), "", "placement:", f"  {placement['text']}"], values)


def _lines(found: Preview) -> list[str]:
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
        f"  steps: {recipe.epochs:,} epochs of {found.steps_per_epoch:,}, {found.total_steps:,} in all",
        f"  run folder: {found.run_dir} ({state})",
        "",
        "learners:",
        *aligned(learners),
        "",
        f"training program, {team.training.bytes_per_step:,} bytes of messages in a step:",
        *(f"  {line}" for line in team.training.describe()),
        "",
        f"evaluation program, {team.evaluation.bytes_per_step:,} bytes of messages in a batch:",
        *(f"  {line}" for line in team.evaluation.describe()),
    ]


def _in_process(recipe: Recipe) -> dict[str, Any]:
    import torch

    from engine.learners import choose_device

    device = str(choose_device(recipe.numerics, torch.cuda.is_available()))
    return {"executor": "process", "device": device, "text": f"all learners in turn in this process, {device}"}


def _on_ray(found: Preview, plan: Plan) -> dict[str, Any]:
    import ray

    from engine.runtimes.ray.cluster import connect, node_resources, private_node
    from engine.runtimes.ray.placement import choose_placement, choose_store_bytes, store_bytes_needed

    team = found.team
    parameters = sum(learner.parameters + learner.auxiliary_parameters for learner in team.learners)
    window = plan.window or 2 * len(team.learners)
    needed = store_bytes_needed(team.training, team.evaluation, window, parameters * _STATE_BYTES_PER_PARAMETER)
    if plan.address is None:
        placement = choose_placement(plan, found.recipe, len(team.learners), [private_node()])
        choose_store_bytes(plan, needed, shared_memory().free)
        where = "a private Ray on this machine"
    else:
        owned = connect(plan, needed)
        try:
            placement = choose_placement(plan, found.recipe, len(team.learners), node_resources())
        finally:
            if owned:
                ray.shutdown()
        where = f"the cluster at {plan.address}"
    return {
        "executor": "ray",
        "actors": placement.actors,
        "cpus": placement.cpus,
        "gpus": placement.gpus,
        "strategy": placement.strategy,
        "window": placement.window,
        "object_store_bytes": needed,
        "text": f"{placement.describe()}, on {where}; they need {needed:,} bytes of object store",
    }
