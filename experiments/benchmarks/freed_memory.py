"""Gain when a process keeps the main memory which a training step frees.

    python -m experiments.benchmarks.freed_memory [--rounds 5]

Training steps in one process, one thread: ResNet-32 of 32 x 32 images, batch 128, end to end and with InfoPro, both
layouts; ResNet-50 of 224 x 224 images, batch 8. In each round two new processes take turns, one that keeps what is
freed, as the engine does, and one in which glibc does what it does by default: it depends on how blocks happen to lie
whether it can give much back. Medians over rounds of medians over steps: milliseconds, page faults of a step, and peak
resident memory.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

from engine.data import open_source
from engine.learners import numerics
from engine.methods import method_of
from engine.recipes import Backbone, Data, EndToEnd, InfoPro, Numerics, Plan, Recipe
from engine.runtimes import open_runtime
from experiments.benchmarks.side_by_side import in_turn, times_as_fast

WAYS = ("given back", "kept")
WARM_STEPS, STEPS = 4, 4
# Backbone, K, image size, batch size, whether channels_last.
ROWS = (
    ("resnet32", 1, 32, 128, False),
    ("resnet32", 1, 32, 128, True),
    ("resnet32", 4, 32, 128, False),
    ("resnet32", 4, 32, 128, True),
    ("resnet50", 1, 224, 8, False),
)


def make_recipe(backbone: str, num_segments: int, image_size: int, batch_size: int, channels_last: bool) -> Recipe:
    """Return the recipe of one row."""
    return Recipe(
        name="freed_memory",
        method=EndToEnd() if num_segments == 1 else InfoPro(num_segments=num_segments, cuts="balanced_memory"),
        backbone=Backbone(name=backbone),
        data=Data(
            name="synthetic",
            num_classes=10,
            image_size=image_size,
            synthetic_images=2 * batch_size,
            batch_size=batch_size,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
        ),
        numerics=Numerics(threads=1, device="cpu", channels_last=channels_last),
    )


def serve(row: tuple[Any, ...], keeps: bool, connection: Connection) -> None:
    """Train a step for each True that comes; answer its milliseconds, page faults and MiB of peak resident memory."""
    with contextlib.ExitStack() as stack:
        if not keeps:
            stack.enter_context(patch.object(numerics, "keep_freed_memory"))
        recipe = make_recipe(*row)
        source = open_source(recipe.data, recipe.seed)
        team = method_of(recipe).team(recipe, source.facts)
        runtime = open_runtime(recipe, source.facts, team, 10**6, Plan(executor="process"))
        step = 0
        while connection.recv():
            batch = source.batch(0, step % 2)
            before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            runtime.submit(team.program(step), batch)
            taken, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            connection.send((1000 * taken, used.ru_minflt - before, used.ru_maxrss / 1024))
            step += 1
        runtime.close()
        source.close()


def measure_round(row: tuple[Any, ...]) -> tuple[dict[str, list[tuple[float, ...]]], float]:
    """Return what each way's steps answered, after some that are not counted, and the share of a core of others."""
    context = multiprocessing.get_context("spawn")
    ways: dict[str, Connection] = {}
    for way in WAYS:
        ways[way], theirs = context.Pipe()
        context.Process(target=serve, args=(row, way == "kept", theirs), daemon=True).start()
    answers: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}

    def step(way: str) -> float:
        ways[way].send(True)
        answers[way].append(ways[way].recv())
        return answers[way][-1][0]

    _, loads = in_turn({way: functools.partial(step, way) for way in WAYS}, WARM_STEPS + STEPS)
    for connection in ways.values():
        connection.send(False)
    others = statistics.median(share for each in loads.values() for share in each[WARM_STEPS:])
    return {way: each[WARM_STEPS:] for way, each in answers.items()}, others


def measure(row: tuple[Any, ...], rounds: int) -> str:
    """Return a row of the table."""
    milliseconds: dict[str, list[float]] = {way: [] for way in WAYS}
    faults: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks: dict[str, list[float]] = {way: [] for way in WAYS}
    others = []
    for _ in range(rounds):
        answers, share = measure_round(row)
        others.append(share)
        for way, steps in answers.items():
            for found, column in zip((milliseconds, faults, peaks), zip(*steps, strict=True), strict=True):
                found[way].append(statistics.median(column))
    name, num_segments, _, batch_size, channels_last = row
    layout = "channels_last" if channels_last else "contiguous"
    before, after = (
        " | ".join(f"{statistics.median(found[way]):,.0f}" for found in (milliseconds, faults, peaks)) for way in WAYS
    )
    ratios = times_as_fast(milliseconds["kept"], milliseconds["given back"])
    what = f"{name}, K = {num_segments}, batch {batch_size}, {layout}"
    return f"| {what} | {before} | {after} | {ratios} | {statistics.median(others):.2f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| | given back: ms | faults | peak MiB | kept: ms | faults | peak MiB | times as fast | others |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        print(measure(row, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
