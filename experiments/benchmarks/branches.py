"""Cost of branches in time and in memory, and how much of it devices of their own bring back.

    python -m experiments.benchmarks.branches [--networks resnet32,wrn_16_2] [--batch-size 64] [--rounds 3]

Random 32 x 32 images of 100 classes, float32, dynamic hierarchical mimicking with one branch (near the top) and with
two. In each round every way of running is timed once, in turn, and medians over rounds are compared: the network
without branches, all in one learner, and a learner for the network and each branch. *A device each* is the length of
the step's longest chain of calls, from the median time of each call alone, with messages that take no time: what
devices of their own can reach at best. Memory is that of the learner that holds most. The share of a core that other
processes used is recorded; a figure taken beside more than 5 % of it is marked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch

from engine.data import Source, open_source
from engine.learners import numerics_applied
from engine.methods import Team, method_of
from engine.program import BATCH, SOURCE, Call, Program
from engine.recipes import DHM, Backbone, Data, EndToEnd, Numerics, Plan, Recipe
from engine.runtimes.ray import start_private_ray
from experiments.benchmarks.cohort import seconds_on
from experiments.benchmarks.side_by_side import in_turn

WARM, STEPS = 2, 4


def make_recipe(network: str, method: Any, batch_size: int, threads: int = 1) -> Recipe:
    """Return the recipe of one row."""
    return Recipe(
        name="branches",
        method=method,
        backbone=Backbone(name=network),
        data=Data(
            name="synthetic", num_classes=100, image_size=32, batch_size=batch_size, synthetic_images=4 * batch_size
        ),
        numerics=Numerics(device="cpu", threads=threads),
    )


def critical_path(program: Program, seconds: Mapping[Call, float]) -> float:
    """Return how long a step takes if each learner has a device, runs its calls in order and waits for its messages."""
    free: dict[str, float] = {}
    given: dict[str, float] = {}
    for call in program.calls:
        start = max([free.get(call.learner, 0.0), *(given[name] for name in call.takes)])
        free[call.learner] = start + (0.0 if call.learner == SOURCE else seconds[call])
        given |= dict.fromkeys(call.gives, free[call.learner])
    return max(free.values())


def alone(recipe: Recipe, source: Source, team: Team) -> tuple[dict[Call, float], dict[str, int]]:
    """Return the median seconds of each call with nothing beside it, and the bytes that each learner holds."""
    method, program = method_of(recipe), team.program(0)
    taken: dict[Call, list[float]] = {call: [] for call in program.calls if call.learner != SOURCE}
    with numerics_applied(recipe.numerics):
        device = torch.device("cpu")
        learners = {name: method.build_learner(recipe, source.facts, 10**6, name, device) for name in team.names}
        for step in range(WARM + STEPS):
            batch = source.batch(0, 0)
            messages: dict[str, torch.Tensor] = {}
            for call in taken:
                heard = {name: messages[name] for name in call.takes if name != BATCH}
                started = time.perf_counter()
                gave = learners[call.learner].call(call.phase, batch if BATCH in call.takes else None, heard)
                if step >= WARM:
                    taken[call].append(time.perf_counter() - started)
                messages |= dict(zip(call.gives, gave, strict=True))
        held = {name: learner.ask_memory()["total"] for name, learner in learners.items()}
    return {call: statistics.median(found) for call, found in taken.items()}, held


def measure(network: str, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row for each way of running a network."""
    methods: dict[str, Any] = {"no branch": EndToEnd()}
    for count in (1, 2):
        methods[f"{count} in one learner"] = DHM(num_branches=count)
        methods[f"{count} as learners"] = DHM(num_branches=count, branch_learners=True)
    recipes = {name: make_recipe(network, method, batch_size) for name, method in methods.items()}
    source = open_source(recipes["no branch"].data, 0)
    teams = {name: method_of(recipe).team(recipe, source.facts) for name, recipe in recipes.items()}
    ways: dict[str, Callable[[], float]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, recipe in recipes.items():
        calls, held = alone(recipe, source, teams[name])
        moved = sum(message.bytes for title, message in teams[name].program(0).messages.items() if title != BATCH)
        for way, run in (
            (f"{name}, in process", seconds_on(Plan(executor="process"), recipe, source)),
            (f"{name}, on Ray", seconds_on(Plan(report_every_steps=10**6), recipe, source)),
        ):
            ways[way] = run
            rows[way] = {
                "network": network,
                "batch_size": batch_size,
                "way": way,
                "a_device_each_milliseconds": 1000 * critical_path(teams[name].program(0), calls),
                "largest_bytes": max(held.values()),
                "bytes": held,
                "exchanged_bytes": moved,
            }
    taken, loads = in_turn(ways, rounds)
    for way, row in rows.items():
        row["milliseconds"] = 1000 * statistics.median(taken[way])
        row["range"] = [1000 * min(taken[way]), 1000 * max(taken[way])]
        row["others_cpu_share"] = statistics.median(loads[way])
    return list(rows.values())


def main() -> None:
    """Measure, print one table for each network and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet32,wrn_16_2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    start_private_ray(num_cpus=max(4, len(os.sched_getaffinity(0))))
    found = []
    for network in arguments.networks.split(","):
        rows = measure(network, arguments.batch_size, arguments.rounds)
        found += rows
        print(f"\n{network}, batch {arguments.batch_size}, 1 thread each, median of {arguments.rounds} rounds")
        print(f"  {'branches':28} {'ms per step':>24} {'a device each':>14} {'largest MB':>11} {'sent MB':>8}")
        for row in rows:
            low, high = row["range"]
            mark = "  beside others" if row["others_cpu_share"] > 0.05 else ""
            print(
                f"  {row['way']:28} {row['milliseconds']:8.1f} ({low:6.1f} to {high:6.1f}) "
                f"{row['a_device_each_milliseconds']:11.1f} ms {row['largest_bytes'] / 1e6:11.1f} "
                f"{row['exchanged_bytes'] / 1e6:8.1f}{mark}",
                flush=True,
            )
    ray.shutdown()
    text = json.dumps({"cores": len(os.sched_getaffinity(0)), "rows": found})
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
