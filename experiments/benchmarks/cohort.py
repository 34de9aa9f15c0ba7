"""A cohort's step in process and on Ray, and the cost of exchanging predictions.

    python -m experiments.benchmarks.cohort [--batch-sizes 64,128] [--peers 1,2,4] [--rounds 3]

ResNet-32 peers on random 32 x 32 images of 100 classes, float32, simultaneous schedule; on Ray with every transport
that a plan knows. In each round every way of running is timed once, in turn, and medians over rounds are compared.
Beside each cohort on Ray, the same peers with lambda = 0, which exchange nothing, run on Ray too: the difference is the
whole price of mutual learning, waiting for one another and the loss included. The limit is one bare process per peer
with predictions in shared memory. The share of a core that other processes used is recorded; a figure taken beside more
than 5 % of it is marked.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from engine.benchmarking.timeline import calls_of, ends_of_steps
from engine.data import Source, open_source
from engine.methods import method_of
from engine.recipes import DML, Backbone, Data, Numerics, Peer, Plan, Recipe
from engine.runtimes import open_runtime
from engine.runtimes.ray import start_private_ray
from experiments.benchmarks import bare_cohort
from experiments.benchmarks.side_by_side import TRANSPORTS, Measured, in_turn, times_as_fast

WARM, STEPS = 3, 5
IN_PROCESS = Plan(executor="process")


def make_recipe(peers: int, batch_size: int, threads: int, weight: float) -> Recipe:
    """Return the recipe of one row."""
    return Recipe(
        name="cohort",
        method=DML(peers=(Peer(),) * peers, weight=weight),
        backbone=Backbone(name="resnet32"),
        data=Data(
            name="synthetic", num_classes=100, image_size=32, batch_size=batch_size, synthetic_images=4 * batch_size
        ),
        numerics=Numerics(device="cpu", threads=threads),
    )


def seconds_on(plan: Plan, recipe: Recipe, source: Source) -> Callable[[], float]:
    """Return a function that measures the time of one step in steady state."""
    team = method_of(recipe).team(recipe, source.facts)

    def measure() -> float:
        runtime = open_runtime(recipe, source.facts, team, 10**6, plan)
        try:
            # One window before and after: what is counted lies where as many steps are in flight as in training.
            beside = WARM + 2 * len(team.names)
            for step in range(beside + STEPS + beside):
                runtime.submit(team.program(step), dataclasses.replace(source.batch(0, 0), step=step))
            runtime.finish()
            ends = ends_of_steps(calls_of(runtime.ask("timeline").result(), 10**6))
            return (ends[beside + STEPS - 1] - ends[beside - 1]) / STEPS
        finally:
            runtime.close()

    return measure


def measure(peers: int, batch_size: int, rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return one row for each way of running a cohort, and in words what they say beside one another."""
    recipe = make_recipe(peers, batch_size, threads=1, weight=1.0)
    source = open_source(recipe.data, recipe.seed)
    threaded = dataclasses.replace(recipe, numerics=Numerics(device="cpu", threads=2))
    independent = make_recipe(peers, batch_size, threads=1, weight=0.0)
    ways: dict[str, Callable[[], float]] = {
        "in process, 1 thread": seconds_on(IN_PROCESS, recipe, source),
        "in process, 2 threads": seconds_on(IN_PROCESS, threaded, source),
    }
    for transport in TRANSPORTS:
        plan = Plan(report_every_steps=10**6, transport=transport)
        ways[f"on Ray, {transport}"] = seconds_on(plan, recipe, source)
        if peers > 1:
            ways[f"on Ray, {transport}, no exchange"] = seconds_on(plan, independent, source)
    if peers > 1:
        ways["bare processes"] = functools.partial(
            bare_cohort.seconds_per_step, recipe, source.facts, warm=WARM, timed=STEPS
        )
    taken, loads = in_turn(ways, rounds)
    team = method_of(recipe).team(recipe, source.facts)
    exchanged = sum(message.bytes for name, message in team.program(0).messages.items() if name != "batch")
    rows = [
        {
            "peers": peers,
            "batch_size": batch_size,
            "way": way,
            "milliseconds": 1000 * statistics.median(taken[way]),
            "range": [1000 * min(taken[way]), 1000 * max(taken[way])],
            "exchanged_bytes": 0 if "no exchange" in way else exchanged,
            "others_cpu_share": statistics.median(loads[way]),
        }
        for way in ways
    ]
    return rows, _shares(taken)


def _shares(taken: Measured) -> list[str]:
    lines = []
    for transport in TRANSPORTS:
        way = f"on Ray, {transport}"
        lines.append(f"{way}: {times_as_fast(taken[way], taken['in process, 1 thread'])} times in process, 1 thread")
        if "bare processes" in taken:
            lines.append(f"{way}: {times_as_fast(taken[way], taken['bare processes'])} of the limit")
            free = times_as_fast(taken[way], taken[f"{way}, no exchange"])
            lines.append(f"{way}: {free} of what it is without exchange")
    return lines


def main() -> None:
    """Measure, print one table for each cohort and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", default="64,128")
    parser.add_argument("--peers", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    start_private_ray(num_cpus=max(4, len(os.sched_getaffinity(0))))
    found = []
    for batch_size in map(int, arguments.batch_sizes.split(",")):
        for peers in map(int, arguments.peers.split(",")):
            rows, words = measure(peers, batch_size, arguments.rounds)
            found += rows
            print(f"\nK = {peers}, batch {batch_size}, median of {arguments.rounds} rounds (smallest to largest)")
            for row in rows:
                low, high = row["range"]
                mark = "  beside others" if row["others_cpu_share"] > 0.05 else ""
                print(f"  {row['way']:24} {row['milliseconds']:8.1f} ms ({low:.1f} to {high:.1f}){mark}", flush=True)
            for line in words:
                print(f"  {line}")
    ray.shutdown()
    text = json.dumps({"cores": len(os.sched_getaffinity(0)), "rows": found})
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
