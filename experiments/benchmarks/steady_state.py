"""Seconds of a step in steady state, of a whole team wherever it lives, and the bytes that its learners count."""

from __future__ import annotations

import time

from engine.benchmarking.baselines.this_engine import is_on_gpu
from engine.benchmarking.batches import Batches
from engine.benchmarking.timeline import calls_of, ends_of_steps
from engine.data import Facts
from engine.methods import Team
from engine.recipes import Plan, Recipe
from engine.runtimes import open_runtime


def steady_state(
    recipe: Recipe, facts: Facts, team: Team, batches: Batches, plan: Plan, steps: int, beside: int
) -> tuple[float, dict[str, dict[str, int]]]:
    """Start a team, let it train, and end it; GPUs, which run behind, are timed between times at which they are done.

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
    submitted = 0

    def submit(number: int) -> None:
        nonlocal submitted
        for step in range(submitted, submitted + number):
            runtime.submit(team.program(step), batches.batch(step))
        submitted += number
        runtime.finish()

    def drained_seconds(number: int) -> float:
        started = time.perf_counter()
        submit(number)
        # Losses are read for it, after all that the devices were asked for before.
        runtime.ask("metrics").result()
        return time.perf_counter() - started

    try:
        if beside and any(map(is_on_gpu, runtime.ask("memory").result().values())):
            drained_seconds(1)
            # What fills and empties a pipeline takes the same time whatever lies between.
            without = drained_seconds(2 * beside)
            taken = (drained_seconds(2 * beside + steps) - without) / steps
        else:
            submit(beside + steps + beside)
            ends = ends_of_steps(calls_of(runtime.ask("timeline").result(), batches.steps_per_epoch))
            taken = (ends[beside + steps - 1] - ends[beside - 1]) / steps if beside else 0.0
        return taken, runtime.ask("memory").result()
    finally:
        runtime.close()
