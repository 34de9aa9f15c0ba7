"""Gain of memory layout, precision and compilation on one device, for end-to-end training and InfoPro.

    python -m experiments.benchmarks.numerics [--batch-size 128] [--segments 1,2,4] [--rounds 5] [--compile]
        [--precisions float32,bfloat16]

ResNet-32 on random 32 x 32 images, in process, cuts that balance memory. In each round every way is timed once, in
turn; `r` is the median over rounds of its time divided by that of float32, contiguous, of the same K. Ways that change
rounding are ways of the recipe, so that peers get the same settings. Compiling takes about a minute for each K,
and is not part of the time of a step. A processor without bfloat16 imitates it, which takes ten times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Collection
from typing import Any

from engine.data import open_source
from engine.methods import method_of
from engine.recipes import Backbone, Data, EndToEnd, InfoPro, Numerics, Plan, Recipe
from engine.runtimes import open_runtime
from experiments.benchmarks.side_by_side import in_turn
from experiments.benchmarks.words import names_among

STEPS = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32, channels_last": {"channels_last": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, channels_last": {"precision": "bfloat16", "channels_last": True},
}
COMPILED: dict[str, dict[str, Any]] = {
    "float32, compiled": {"compile": True},
    "float32, channels_last, compiled": {"compile": True, "channels_last": True},
}


def variants_of(precisions: Collection[str], compiled: bool) -> dict[str, dict[str, Any]]:
    """Return the ways of these precisions, and always float32, by whose time the others are divided."""
    return {
        name: variant
        for name, variant in (VARIANTS | (COMPILED if compiled else {})).items()
        if not variant or variant.get("precision", "float32") in precisions
    }


def make_recipe(num_segments: int, batch_size: int, variant: dict[str, Any]) -> Recipe:
    """Return the recipe of one way."""
    return Recipe(
        name="numerics",
        method=EndToEnd() if num_segments == 1 else InfoPro(num_segments=num_segments, cuts="balanced_memory"),
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
        numerics=Numerics(threads=1, device="cpu", **variant),
    )


def seconds_per_step(recipe: Recipe) -> Callable[[], float]:
    """Return a function that measures the mean time of a step of a warm runtime, which is kept."""
    source = open_source(recipe.data, recipe.seed)
    team = method_of(recipe).team(recipe, source.facts)
    batches = [source.batch(0, step) for step in range(source.steps_per_epoch())]

    def measure() -> float:
        # The settings of torch are the process's: one runtime at a time holds them.
        runtime = open_runtime(recipe, source.facts, team, 10**6, Plan(executor="process"))
        try:
            for batch in batches[:2]:
                runtime.submit(team.program(0), batch)
            started = time.perf_counter()
            for batch in batches[:STEPS]:
                runtime.submit(team.program(0), batch)
            return (time.perf_counter() - started) / STEPS
        finally:
            runtime.close()

    return measure


def main() -> None:
    """Measure, and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--segments", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which needs a C++ compiler")
    parser.add_argument(
        "--precisions", type=names_among(("float32", "bfloat16")), default="float32,bfloat16", help="beside float32"
    )
    arguments = parser.parse_args()
    variants = variants_of(arguments.precisions, arguments.compile)
    counts = [int(word) for word in arguments.segments.split(",")]
    ways = {
        (count, name): seconds_per_step(make_recipe(count, arguments.batch_size, variant))
        for count in counts
        for name, variant in variants.items()
    }
    taken, loads = in_turn({f"{count} {name}": run for (count, name), run in ways.items()}, arguments.rounds)
    busiest = max(statistics.median(load) for load in loads.values())
    print(f"{os.cpu_count()} cores, 1 thread, batch {arguments.batch_size}, {arguments.rounds} rounds; ", end="")
    print(f"others used at most {busiest:.0%} of a core{'  BESIDE OTHER WORK' if busiest > 0.05 else ''}\n")
    print("| | " + " | ".join(f"K = {count}, ms | r" for count in counts) + " |")
    print("|---|" + "---|---|" * len(counts))
    for name in variants:
        cells = []
        for count in counts:
            times, plain = taken[f"{count} {name}"], taken[f"{count} float32"]
            ratio = statistics.median(own / other for own, other in zip(times, plain, strict=True))
            cells.append(f"{1000 * statistics.median(times):.0f} | {ratio:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
