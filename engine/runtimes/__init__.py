"""Interchangeable executors of a program: in this process, or on Ray actors."""

from __future__ import annotations

from engine.data import Facts
from engine.methods import Team
from engine.recipes import Plan, Recipe
from engine.runtimes.child import python_command
from engine.runtimes.process import ProcessRuntime
from engine.runtimes.replicated import ReplicatedRuntime, check_replicable
from engine.runtimes.runtime import Answer, Losses, Runtime


def open_runtime(recipe: Recipe, facts: Facts, team: Team, steps_per_epoch: int, plan: Plan) -> Runtime:
    """Start the runtime that a plan names; ray is imported only when it is needed.

    Raises:
        PlanError: this machine or cluster cannot run the plan.
    """
    check_replicable(recipe, facts, plan)
    if plan.executor == "process":
        return ProcessRuntime(recipe, facts, team, steps_per_epoch)
    from engine.runtimes.ray import open_on_ray

    if plan.replicas == 1:
        return open_on_ray(recipe, facts, team, steps_per_epoch, plan)
    return ReplicatedRuntime(
        team, plan.replicas, lambda repeated: open_on_ray(recipe, facts, repeated, steps_per_epoch, plan)
    )


__all__ = ["Answer", "Losses", "ProcessRuntime", "Runtime", "open_runtime", "python_command"]
