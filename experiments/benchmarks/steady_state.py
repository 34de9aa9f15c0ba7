"""Seconds of a step in steady state, of a whole team wherever it lives, and the bytes that its learners count."""

from __future__ import annotations

from engine.benchmarking.batches import Batches
from engine.benchmarking.timeline import calls_of, ends_of_steps
from engine.data import Facts
from engine.methods import Team
from engine.recipes import Plan, Recipe
from engine.runtimes import open_runtime


def steady_state(
    recipe: Recipe, facts: Facts, team: Team, batches: Batches, plan: Plan, steps: int, beside: int
) -> tuple[float, dict[str, dict[str, int]]]:
    """Start a team, let it train, and end it.

    Args:
        recipe: what is trained.
        facts: of its images.
        team: of the recipe.
        batches: over which it goes.
        plan: where it lives.
        steps: that are timed.
        beside: steps before and after them, which are not; one window and a little more fills a pipeline.

    Returns:
        seconds of one step; 0 where there are no steps beside. Bytes by purpose of each learner.
    """
    runtime = open_runtime(recipe, facts, team, batches.steps_per_epoch, plan)
    try:
        for step in range(beside + steps + beside):
            runtime.submit(team.program(step), batches.batch(step))
        runtime.finish()
        ends = ends_of_steps(calls_of(runtime.ask("timeline").result(), batches.steps_per_epoch))
        taken = (ends[beside + steps - 1] - ends[beside - 1]) / steps if beside else 0.0
        return taken, runtime.ask("memory").result()
    finally:
        runtime.close()
