"""Needs of a way of training on one device on which all its learners take turns: peak bytes, seconds of a step."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import torch

from engine.benchmarking.baselines.checkpointing import Checkpointed
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.batches import Batches
from engine.data import Facts
from engine.learners import numerics_applied
from engine.methods import method_of
from engine.planning import estimate_team
from engine.recipes import Plan, Recipe
from engine.runtimes import open_runtime

IN_PROCESS = Plan(executor="process")
_WARM_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """What one measurement of a way found.

    Attributes:
        seconds: of a step, when warm.
        peak: most bytes of the device at one time; on a CPU what learners count: all that lasts, and the most
            activations.
    """

    seconds: float
    peak: int


def planned_bytes(recipe: Recipe, facts: Facts) -> int:
    """Return what the planner says that one device needs for all learners in turn."""
    return estimate_team(recipe, facts, IN_PROCESS, 1).in_turn_bytes


def cost_of(recipe: Recipe, facts: Facts, batches: Batches, steps: int) -> Cost:
    """Train a recipe's team in this process for so many timed steps."""
    team = method_of(recipe).team(recipe, facts)
    device = torch.device(recipe.numerics.device)
    before = _begin(device)
    runtime = open_runtime(recipe, facts, team, batches.steps_per_epoch, IN_PROCESS)
    try:
        for step in range(_WARM_STEPS):
            runtime.submit(team.program(step), batches.batch(step))
        _wait_for(device)
        started = time.perf_counter()
        for step in range(_WARM_STEPS, _WARM_STEPS + steps):
            runtime.submit(team.program(step), batches.batch(step))
        _wait_for(device)
        seconds = (time.perf_counter() - started) / steps
        memory = runtime.ask("memory").result()
    finally:
        runtime.close()
    if device.type == "cuda":
        return Cost(seconds, torch.cuda.max_memory_allocated(device) - before)
    lasting = sum(each.get(purpose, 0) for each in memory.values() for purpose in ("parameters", "optimizer"))
    # Peers keep what they have computed of a batch while one of them goes back.
    passing = (
        memory[own].get("gradients", 0) + sum(memory[name]["saved_activations"] for name in (own, *others))
        for own, others in team.program(0).at_work()
    )
    return Cost(seconds, lasting + max(passing))


def checkpointing_cost(recipe: Recipe, facts: Facts, batches_file: str, chunks: int, steps: int) -> Cost:
    """As `cost_of`, for gradient checkpointing of the recipe's whole network in so many chunks."""
    device = torch.device(recipe.numerics.device)
    before = _begin(device)
    job = Job("checkpointing", recipe, IN_PROCESS, facts, batches_file, {}, device=recipe.numerics.device)
    with numerics_applied(recipe.numerics):
        way = Checkpointed(chunks, job)
        kept = way.prepare()["memory"]["network"]["saved_activations"]
        # What is counted runs the network in another order than a training step.
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        way.run(_WARM_STEPS)
        seconds = float(way.run(steps)["seconds"])
    way.close()
    return Cost(seconds, torch.cuda.max_memory_allocated(device) - before if device.type == "cuda" else kept)


def _begin(device: torch.device) -> int:
    """Forget what was measured before; returns the bytes that something still holds."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
