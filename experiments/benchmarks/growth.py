"""Growth of time and memory with the number of segments, depth, batch, and the size of pictures.

    python -m experiments.benchmarks.growth [--rounds 3] [--out experiments/figures/growth.png]

ResNets of CIFAR's form on random images, in one process with one thread, cuts that balance memory. One setting changes
at a time: K from 1 to 16, depth from 20 to 110, batch from 32 to 512, pictures from 32 to 224. Time is the median over
rounds of a step in each of which every point takes its turn; memory is what autograd keeps for the learner that keeps
most, as the learners count it. A slope is that of the logarithms over neighbouring points: 1 is proportional, -1
inversely so.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.data import open_source
from engine.methods import method_of
from engine.recipes import Backbone, Data, Greedy, InfoPro, Numerics, Plan, Recipe
from engine.runtimes import open_runtime
from engine.tracking.figures import TEXT_SIZE, colours, dress, open_figure, write_figure
from experiments.benchmarks.side_by_side import in_turn

Axis = Literal["K", "depth", "batch", "picture"]
BASE: dict[Axis, int] = {"K": 4, "depth": 32, "batch": 64, "picture": 32}
AXES: dict[Axis, tuple[int, ...]] = {
    "K": (1, 2, 4, 8, 16),
    "depth": (20, 32, 56, 110),
    "batch": (32, 64, 128, 256, 512),
    "picture": (32, 64, 128, 224),
}
# Large pictures in small batches: a step of the base with pictures of 224 would take a minute.
PICTURES_BATCH = 8
METHODS = {"greedy": Greedy, "InfoPro": InfoPro}
_MIB = 1 << 20


@dataclass(frozen=True)
class Point:
    """One way to train: a method, and the setting that differs from the base."""

    method: str
    axis: Axis
    value: int

    def recipe(self) -> Recipe:
        """Return its recipe."""
        given = {**BASE, self.axis: self.value}
        batch = PICTURES_BATCH if self.axis == "picture" else given["batch"]
        return Recipe(
            name="growth",
            method=METHODS[self.method](num_segments=given["K"], cuts="balanced_memory"),
            backbone=Backbone(name=f"resnet{given['depth']}"),
            data=Data(
                name="synthetic",
                num_classes=10,
                image_size=given["picture"],
                synthetic_images=2 * batch,
                batch_size=batch,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
            ),
            numerics=Numerics(threads=1, device="cpu"),
        )


def measure(point: Point) -> tuple[float, int]:
    """Return the seconds of a warm step, and the bytes that autograd keeps for the learner that keeps most."""
    recipe = point.recipe()
    source = open_source(recipe.data, recipe.seed)
    team = method_of(recipe).team(recipe, source.facts)
    runtime = open_runtime(recipe, source.facts, team, source.steps_per_epoch(), Plan(executor="process"))
    batch = source.batch(0, 0)
    runtime.submit(team.program(0), batch)
    started = time.perf_counter()
    runtime.submit(team.program(1), batch)
    seconds = time.perf_counter() - started
    memory = runtime.ask("memory").result()
    runtime.close()
    source.close()
    return seconds, max(each["saved_activations"] for each in memory.values())


def slope(points: list[tuple[int, float]]) -> float:
    """Return the slope of the logarithms between two neighbouring points."""
    (first, low), (second, high) = points
    return math.log(high / low) / math.log(second / first)


def main() -> None:
    """Measure, print a table for each axis, and draw all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--out", type=Path, default=Path("experiments/figures/growth.png"))
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    points = [Point(name, axis, value) for axis in arguments.axes for name in METHODS for value in AXES[axis]]
    kept: dict[Point, int] = {}

    def run(point: Point) -> Callable[[], float]:
        def seconds() -> float:
            taken, kept[point] = measure(point)
            return taken

        return seconds

    taken, loads = in_turn({repr(point): run(point) for point in points}, arguments.rounds)
    curves: dict[tuple[Axis, str], list[tuple[int, float, float]]] = {}
    for point in points:
        seconds = statistics.median(taken[repr(point)])
        curves.setdefault((point.axis, point.method), []).append((point.value, seconds, kept[point] / _MIB))
    for (axis, method), curve in curves.items():
        print(f"\n| {axis} ({method}) | ms per step | slope | MiB kept | slope |\n|---|---|---|---|---|")
        for number, (value, seconds, mebibytes) in enumerate(curve):
            slopes = ["", ""]
            if number:
                before = curve[number - 1]
                slopes = [f"{slope([(before[0], before[i]), (value, curve[number][i])]):.2f}" for i in (1, 2)]
            print(f"| {value} | {1000 * seconds:.0f} | {slopes[0]} | {mebibytes:.1f} | {slopes[1]} |")
    print(f"\nothers used at most {max(max(shares) for shares in loads.values()):.2f} of a core")
    _draw(curves, arguments.axes, arguments.out)


def _draw(curves: dict[tuple[Axis, str], list[tuple[int, float, float]]], axes: list[Axis], path: Path) -> None:
    figure = open_figure(3.2 * len(axes), 5.8, "Growth of a step with K, depth, batch and pictures")
    grid = figure.subplots(2, len(axes), squeeze=False)
    shades = colours(list(METHODS))
    for column, axis in enumerate(axes):
        for row, (index, label) in enumerate([(1, "seconds per step"), (2, "MiB kept, largest segment")]):
            place = grid[row, column]
            for method, shade in shades.items():
                curve = curves[axis, method]
                place.loglog(
                    [each[0] for each in curve], [each[index] for each in curve], marker="o", label=method, color=shade
                )
            dress(place, axis, "", label if not column else "")
            place.set_xticks(AXES[axis], [str(value) for value in AXES[axis]])
            place.minorticks_off()
    grid[0, 0].legend(frameon=False, fontsize=TEXT_SIZE - 0.5)
    write_figure(figure, path)


if __name__ == "__main__":
    main()
