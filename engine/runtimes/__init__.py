"""Interchangeable executors of a program: in this process, or on Ray actors."""

from __future__ import annotations

from engine.data import Facts
from engine.methods import Team
from engine.recipes import Plan, Recipe
from engine.runtimes.child import python_command
from engine.runtimes.process import ProcessRuntime
from engine.runtimes.replicated import ReplicatedRuntime, check_replicable
from engine.runtimes.reservations import Reservations
from engine.runtimes.runtime import Answer, Losses, Runtime


def open_runtime(
    recipe: Recipe,
    facts: Facts,
    team: Team,
    steps_per_epoch: int,
    plan: Plan,
    reservations: Reservations | None = None,
) -> Runtime:
    """Start the runtime that a plan names; ray is imported only when it is needed.

    Args:
        recipe: what is trained.
        facts: of its data.
        team: of the recipe.
        steps_per_epoch: optimizer steps in an epoch.
        plan: which runtime.
        reservations: of this session's earlier starts, to which this one is added; none unless given.

    Raises:
        PlanError: this machine or cluster cannot run the plan.
    """
    check_replicable(recipe, facts, plan)
    if plan.executor == "process":
        return ProcessRuntime(recipe, facts, team, steps_per_epoch)
    from engine.runtimes.ray import open_on_ray

    if plan.replicas == 1:
        return open_on_ray(recipe, facts, team, steps_per_epoch, plan, reservations)
    return ReplicatedRuntime(
        team, plan.replicas, lambda repeated: open_on_ray(recipe, facts, repeated, steps_per_epoch, plan, reservations)
    )


__all__ = ["Answer", "Losses", "ProcessRuntime", "Reservations", "Runtime", "open_runtime", "python_command"]
