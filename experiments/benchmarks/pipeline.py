"""Speed of a chain of segments in process and on Ray, beside the limit that two bare processes reach.

    python -m experiments.benchmarks.pipeline [--batch-sizes 128,256] [--methods greedy,infopro] [--k 1,2,4]
        [--cuts balanced_time] [--rounds 5]

ResNet-32 on random 32 x 32 images, float32, with cuts that balance time, heads and decoders counted, and on Ray with
every transport that a plan knows. In each round every way of running is timed once, in turn, and medians over rounds
are compared, so that a drift of the machine touches all alike. E = sum of the segments' times alone / (min(K, cores) *
time per step). At the end: how near the engine comes to the limit, round by round. The share of a core that other
processes used is recorded for every round; a figure taken beside more than 5 % of it is marked.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from engine.benchmarking.timeline import calls_of, ends_of_steps
from engine.data import Source, open_source
from engine.learners import numerics_applied
from engine.methods import Team, method_of
from engine.recipes import (
    Backbone,
    Data,
    EndToEnd,
    Greedy,
    InfoPro,
    Numerics,
    Plan,
    Recipe,
)
from engine.runtimes import open_runtime
from engine.runtimes.ray import start_private_ray
from experiments.benchmarks import two_processes
from experiments.benchmarks.side_by_side import TRANSPORTS, in_turn, times_as_fast
from experiments.benchmarks.words import names_among

STEPS = 6
METHODS: dict[str, Any] = {"greedy": Greedy, "infopro": InfoPro}


def make_recipe(method: str, num_segments: int, cuts: Any, batch_size: int, threads: int) -> Recipe:
    """Return the recipe of one row."""
    settings: EndToEnd | Greedy | InfoPro = EndToEnd()
    if num_segments > 1:
        settings = METHODS[method](num_segments=num_segments, cuts=cuts)
    return Recipe(
        name="pipeline",
        method=settings,
        backbone=Backbone(name="resnet32"),
        data=Data(
            name="synthetic",
            num_classes=10,
            image_size=32,
            synthetic_images=4 * batch_size,
            batch_size=batch_size,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        numerics=Numerics(threads=threads, device="cpu"),
    )


def seconds_on(plan: Plan, recipe: Recipe, source: Source, team: Team) -> Callable[[], float]:
    """Return a function that measures the time of one step in steady state: the window is full at both ends."""

    def measure() -> float:
        runtime = open_runtime(recipe, source.facts, team, 10**6, plan)
        try:
            batches = [source.batch(0, step) for step in range(source.steps_per_epoch())]
            # One window and a little more before and after: what is counted lies where the pipeline is full.
            beside = 2 if plan.executor == "process" else 2 * len(team.names) + 3
            for step in range(beside + STEPS + beside):
                batch = dataclasses.replace(batches[step % len(batches)], epoch=0, step=step)
                runtime.submit(team.program(step), batch)
            runtime.finish()
            ends = ends_of_steps(calls_of(runtime.ask("timeline").result(), 10**6))
            return (ends[beside + STEPS - 1] - ends[beside - 1]) / STEPS
        finally:
            runtime.close()

    return measure


def seconds_alone(recipe: Recipe, source: Source, team: Team) -> list[float]:
    """Return the median time of each segment's step with nothing beside it."""
    method = method_of(recipe)
    times: list[float] = []
    messages: dict[str, torch.Tensor] = {}
    with numerics_applied(recipe.numerics):
        for index, name in enumerate(team.names):
            learner = method.build_learner(recipe, source.facts, 10**6, name, torch.device("cpu"))
            batch, taken = source.batch(0, 0), []
            given: tuple[torch.Tensor, ...] = ()
            for _ in range(7):
                started = time.perf_counter()
                given = learner.call("forward", batch, messages)
                learner.call("update", None, {})
                taken.append(time.perf_counter() - started)
            times.append(statistics.median(taken[2:]))
            messages = {f"features{index}": feature for feature in given}
    return times


def measure(
    method: str, batch_size: int, rounds: int, ks: Sequence[int], cuts: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return one row for each way of running, for one method and batch size; and in words how near the limit is."""
    cores = len(os.sched_getaffinity(0))
    ways: dict[str, tuple[int, Callable[[], float]]] = {}
    alone: dict[int, list[float]] = {}
    for num_segments in ks:
        recipe = make_recipe(method, num_segments, cuts, batch_size, threads=1)
        source = open_source(recipe.data, recipe.seed)
        team = method_of(recipe).team(recipe, source.facts)
        alone[num_segments] = seconds_alone(recipe, source, team)
        in_process = Plan(executor="process")
        ways[f"K={num_segments} in process, 1 thread"] = (num_segments, seconds_on(in_process, recipe, source, team))
        threaded = dataclasses.replace(recipe, numerics=Numerics(threads=2, device="cpu"))
        ways[f"K={num_segments} in process, 2 threads"] = (num_segments, seconds_on(in_process, threaded, source, team))
        for transport in TRANSPORTS:
            plan = Plan(transport=transport, report_every_steps=10**6)
            ways[f"K={num_segments} on Ray, {transport}"] = (num_segments, seconds_on(plan, recipe, source, team))
        shapes = [message.parts[0][0][1:] for name, message in team.program(0).messages.items() if name != "batch"]
        if num_segments > 1:
            ways[f"K={num_segments} bare processes"] = (
                num_segments,
                functools.partial(two_processes.seconds_per_step, recipe, source.facts, shapes, timed=STEPS),
            )
    taken, loads = in_turn({way: run for way, (_, run) in ways.items()}, rounds)
    rows: list[dict[str, Any]] = []
    for way, (num_segments, _) in ways.items():
        step = statistics.median(taken[way])
        efficiency = sum(alone[num_segments]) / (min(num_segments, cores) * step)
        rows.append(
            {
                "method": method if num_segments > 1 else "end-to-end",
                "batch_size": batch_size,
                "way": way,
                "milliseconds": 1000 * step,
                "range": [1000 * min(taken[way]), 1000 * max(taken[way])],
                "images_per_second": batch_size / step,
                "efficiency": efficiency if "2 threads" not in way and "in process" not in way else None,
                "segments_alone_milliseconds": [1000 * each for each in alone[num_segments]],
                "others_cpu_share": statistics.median(loads[way]),
            }
        )
    words = [
        f"K={k} on Ray, {transport}: {times_as_fast(taken[way], taken[f'K={k} bare processes'])} of the limit"
        for k in ks
        for transport in TRANSPORTS
        if k > 1 and (way := f"K={k} on Ray, {transport}")
    ]
    return rows, words


def main() -> None:
    """Measure, print one table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", default="128,256")
    parser.add_argument("--methods", type=names_among(METHODS), default=",".join(METHODS))
    parser.add_argument("--k", default="1,2,4")
    parser.add_argument("--cuts", default="balanced_time", help="a rule, or for one K the blocks to cut after")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    start_private_ray(num_cpus=max(4, len(os.sched_getaffinity(0))))
    ks = [int(k) for k in arguments.k.split(",")]
    rows = []
    for method in arguments.methods:
        for batch_size in map(int, arguments.batch_sizes.split(",")):
            new, words = measure(method, batch_size, arguments.rounds, ks, arguments.cuts)
            rows += new
            print(f"\n{method}, batch {batch_size}, median of {arguments.rounds} rounds (smallest to largest)")
            for row in new:
                low, high = row["range"]
                efficiency = f"  E {row['efficiency']:.3f}" if row["efficiency"] else ""
                busy = "  BESIDE OTHER WORK" if row["others_cpu_share"] > 0.05 else ""
                print(
                    f"{row['way']:<36} {row['milliseconds']:7.0f} ms ({low:.0f}-{high:.0f})"
                    f"  {row['images_per_second']:6.0f} images/s{efficiency}{busy}",
                    flush=True,
                )
            print(*(f"  {line}" for line in words), sep="\n", flush=True)
    ray.shutdown()
    document = {"machine": os.uname().machine, "cores": len(os.sched_getaffinity(0)), "rows": rows}
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
