"""Decides what a team that is started again reserves: what it had, or less where that does not come back.

Pure arithmetic on node descriptions. What actors reserve decides where they are, never what they compute: threads are
a field of the recipe. Only from GPU to CPU, or from NCCL to Gloo between replicas, numbers would change in their last
bits, and that is never done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import PlanError
from engine.recipes import Plan, Recipe
from engine.runtimes.ray.placement import Placement, choose_placement
from engine.runtimes.reservations import Reservations


def choose_placement_again(
    plan: Plan, recipe: Recipe, actors: int, nodes: Sequence[Mapping[str, float]], earlier: Reservations
) -> Placement:
    """Return what each actor reserves at the first start of a session or at a later one.

    Args:
        plan: what the user asked for; decides the first start.
        recipe: says whether learners compute on GPUs.
        actors: number of actors, one per learner.
        nodes: resources of each node that is alive.
        earlier: what they reserved before: first what they had at first is tried, then what they had last, and then,
            if less will do, the largest equal share of what there is.

    Raises:
        PlanError: the nodes cannot hold the actors; as `choose_placement`.
    """
    if earlier.first is None or earlier.latest is None:
        return choose_placement(plan, recipe, actors, nodes)
    refusals = []
    for held in (earlier.first, earlier.latest):
        strategy: Any = held.strategy
        wanted = replace(plan, cpus_per_learner=held.cpus, gpus_per_learner=held.gpus, placement=strategy)
        try:
            return choose_placement(wanted, recipe, actors, nodes)
        except PlanError as error:
            refusals.append(error)
    less = _largest_shares(plan, recipe, actors, nodes, earlier.first) if earlier.less_will_do else None
    if less is None:
        raise refusals[0]
    return less


def _largest_shares(
    plan: Plan, recipe: Recipe, actors: int, nodes: Sequence[Mapping[str, float]], first: Placement
) -> Placement | None:
    """Return the most of what they had that there is for all; None where that is nothing, or would change numbers."""
    strategy: Any = first.strategy.removeprefix("STRICT_")
    loosened = replace(plan, cpus_per_learner=None, gpus_per_learner=None if first.gpus else 0.0, placement=strategy)
    try:
        found = choose_placement(loosened, recipe, actors, nodes)
    except PlanError:
        return None
    less = replace(found, cpus=min(found.cpus, first.cpus), gpus=min(found.gpus, first.gpus))
    if first.gpus and not less.gpus:
        return None
    if plan.replicas > 1 and first.gpus >= 1 > less.gpus:
        # They would add up through Gloo, in another order than NCCL.
        return None
    return less
