"""Where would the learners of a training live?"""

from __future__ import annotations

from typing import Any

from engine.recipes import Plan, Recipe
from engine.training.preview import Preview


def in_process(recipe: Recipe) -> dict[str, Any]:
    """Return where learners compute without Ray, as JSON values and, under ``text``, in words."""
    import torch

    from engine.learners import choose_device

    device = str(choose_device(recipe.numerics, torch.cuda.is_available()))
    return {"executor": "process", "device": device, "text": f"all learners in turn in this process, {device}"}


def on_ray(found: Preview, plan: Plan) -> dict[str, Any]:
    """Return what each actor would reserve, as JSON values and, under ``text``, in words.

    A private Ray is not started for this; a cluster is asked for its nodes.

    Raises:
        PlanError: the plan does not fit.
    """
    import ray

    from engine.runtimes.ray.cluster import connect, node_resources, private_node, shared_memory_free
    from engine.runtimes.ray.placement import choose_placement, choose_store_bytes, store_bytes_needed

    team = found.team
    needed = store_bytes_needed(team, plan)
    if plan.address is None:
        placement = choose_placement(plan, found.recipe, len(team.learners), [private_node()])
        choose_store_bytes(plan, needed, shared_memory_free())
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
