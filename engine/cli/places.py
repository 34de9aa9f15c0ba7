"""Placement of a training's learners, in words."""

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
    from engine.machine import shared_memory
    from engine.runtimes.ray.cluster import connect, disconnect, node_resources, private_node
    from engine.runtimes.ray.links import routes_of
    from engine.runtimes.ray.placement import choose_placement, choose_store, store_bytes_needed
    from engine.runtimes.ray.transport import choose_transport

    team = found.team
    if plan.address is None:
        placement = choose_placement(plan, found.recipe, len(team.learners), [private_node()])
        transport = choose_transport(plan, 1, placement.gpus > 0)
        needed = store_bytes_needed(team, plan, transport.kind)
        choose_store(plan, needed, shared_memory().free, transport.kind)
        where = "a private Ray on this machine"
    else:
        owned = connect(plan, store_bytes_needed(team, plan, choose_transport(plan, 2, on_gpus=False).kind))
        try:
            nodes = node_resources()
            placement = choose_placement(plan, found.recipe, len(team.learners), nodes)
            transport = choose_transport(plan, len(nodes), placement.gpus > 0)
            needed = store_bytes_needed(team, plan, transport.kind)
        finally:
            if owned:
                disconnect()
        where = f"the cluster at {plan.address}"
    linked = sum(route.bytes for route in routes_of(team.programs.values())) if transport.kind == "direct" else 0
    return {
        "executor": "ray",
        "actors": placement.actors,
        "cpus": placement.cpus,
        "gpus": placement.gpus,
        "strategy": placement.strategy,
        "window": placement.window,
        "object_store_bytes": needed,
        "transport": transport.kind,
        "link_bytes": linked,
        "text": f"{placement.describe()}, on {where}; they need {needed:,} bytes of object store; messages: "
        f"{transport.describe()}" + (f", {linked:,} bytes of memory" if linked else ""),
    }
