"""Memory against time: end to end, gradient checkpointing, and local learning, each with and without recomputation.

    python -m experiments.benchmarks.frontier [--networks resnet32,resnet110,resnet50] [--k 1,2,4,8]
        [--methods infopro,greedy] [--recompute none,blocks,2,4] [--chunks 2,4,8] [--on process,ray] [--batch-size N]
        [--rounds 3] [--steps 2] [--folder DIR]

Random images, float32, one thread for each learner: ResNet-32 and ResNet-110 on 32 x 32 in batches of 128 and 32,
ResNet-50 on 224 x 224 in batches of 4. Memory is what is kept for the backward pass, at most at one time, of the
learner that keeps most; without recomputation cuts balance it by the recipe's own rule, with it by the names that the
planner finds. Time is that of a step in steady state: of all learners in turn in process, of the pipeline on Ray. Each
way is timed once in every round, in turn; shares are formed round by round, and their medians shown. A way is on the
frontier if none other of the same place is at least as good in both. Processor time that others used is printed, and
marked above 5 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.benchmarking.baselines.checkpointing import Checkpointed
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.batches import Batches
from engine.data import Facts, open_source
from engine.learners import numerics_applied
from engine.methods import method_of
from engine.recipes import Plan
from engine.tracking.figures import FAINT, INK, TEXT_SIZE, colours, dress, open_figure, write_figure
from experiments.benchmarks.frontier_ways import BATCHES, METHODS, NETWORKS, Way, ways_of
from experiments.benchmarks.side_by_side import in_turn
from experiments.benchmarks.steady_state import steady_state
from experiments.benchmarks.words import names_among

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"process": "o", "ray": "s"}
# Longer than any measurement, so that no step is the last of one.
_EPOCH = 10**6
_SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)


class Measured:
    """What is measured of a way: kept bytes at once, and seconds of a step whenever it is asked for.

    Args:
        way: to be measured.
        batches: of images.
        facts: of them.
        file: that holds the batches.
        steps: of one measurement.
    """

    def __init__(self, way: Way, batches: Batches, facts: Facts, file: str, steps: int) -> None:
        self._way, self._batches, self._facts, self._steps = way, batches, facts, steps
        self._team = method_of(way.recipe).team(way.recipe, facts)
        self._checkpointed: Checkpointed | None = None
        if way.chunks:
            job = Job("checkpointing", way.recipe, Plan(executor="process"), facts, file, {})
            self._checkpointed = Checkpointed(way.chunks, job)
            with numerics_applied(way.recipe.numerics):
                memory = self._checkpointed.prepare()["memory"]
        else:
            _, memory = self._run(Plan(executor="process"), 1, 0)
        self.kept = max(each["saved_activations"] for each in memory.values())

    def seconds(self) -> float:
        """Return the seconds of one step in steady state."""
        if self._checkpointed is not None:
            with numerics_applied(self._way.recipe.numerics):
                return float(self._checkpointed.run(self._steps)["seconds"])
        # One window and a little more before and after: what is counted lies where a pipeline is full.
        beside = 1 if self._way.place == "process" else 2 * len(self._team.names) + 3
        executor: Any = self._way.place
        return self._run(Plan(executor=executor), self._steps, beside)[0]

    def _run(self, plan: Plan, steps: int, beside: int) -> tuple[float, dict[str, dict[str, int]]]:
        return steady_state(self._way.recipe, self._facts, self._team, self._batches, plan, steps, beside)


@dataclass(frozen=True)
class Point:
    """A way on the plane of memory and time.

    Attributes:
        way: which.
        kept: bytes.
        memory: share of those end to end.
        seconds: of a step, the median over rounds.
        time: share of the time end to end.
        is_best: whether it is on the frontier of its place.
    """

    way: Way
    kept: int
    memory: float
    seconds: float
    time: float
    is_best: bool = False


def measure(network: str, options: argparse.Namespace) -> tuple[list[Point], float]:
    """Return the points of a network, and the share of a core that others used beside the busiest way."""
    ways = list(ways_of(network, options))
    data = ways[0].recipe.data
    source = open_source(data, 0)
    given = [source.batch(0, step) for step in range(BATCHES)]
    images, labels, indices = (
        np.stack([getattr(batch, name) for batch in given]) for name in ("images", "labels", "indices")
    )
    batches = Batches(images, labels, indices, steps_per_epoch=_EPOCH)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "batches.npz")
        batches.write(Path(file))
        found = {way.name: Measured(way, batches, source.facts, file, options.steps) for way in ways}
        runs: dict[str, Callable[[], float]] = {name: each.seconds for name, each in found.items()}
        taken, loads = in_turn(runs, options.rounds)
    source.close()
    whole = ways[0].name
    points = []
    for way in ways:
        kept, times = found[way.name].kept, taken[way.name]
        time = statistics.median(own / other for own, other in zip(times, taken[whole], strict=True))
        points.append(Point(way, kept, kept / found[whole].kept, statistics.median(times), time))
    best = [dataclasses.replace(point, is_best=_is_best(point, points)) for point in points]
    return best, max(statistics.median(load) for load in loads.values())


def _is_best(point: Point, points: Sequence[Point]) -> bool:
    beside = (each for each in points if each.way.place == point.way.place and each is not point)
    return not any(each.memory <= point.memory and each.time <= point.time for each in beside)


def print_table(network: str, points: Sequence[Point], options: argparse.Namespace, load: float) -> None:
    """Print a Markdown table, and by which ways of this engine each number of chunks is beaten."""
    beside = f"others used at most {load:.0%} of a core{'  BESIDE OTHER WORK' if load > 0.05 else ''}"
    rows = points[0].way.recipe.data.batch_size
    budget = f"{options.rounds} rounds of {options.steps} steps"
    print(f"\n{network}, batch {rows}, {os.cpu_count()} cores, {budget}; {beside}\n")
    print("| way | kept, MiB | of end to end | s per step | of end to end | frontier |\n|---|---|---|---|---|---|")
    for point in points:
        cells = (f"{point.kept / 2**20:,.1f}", f"{point.memory:.3f}", f"{point.seconds:.3f}", f"{point.time:.2f}")
        print(f"| {point.way.name} | {' | '.join(cells)} | {'yes' if point.is_best else ''} |")
    ours = [point for point in points if not point.way.chunks]
    for other in (point for point in points if point.way.chunks):
        small = min((own for own in ours if own.time <= other.time), key=lambda own: own.memory, default=None)
        quick = min((own for own in ours if own.memory <= other.memory), key=lambda own: own.time, default=None)
        said = [f"\n{other.way.name}:"]
        said += [f"in no more time {small.way.name} keeps {small.memory / other.memory:.2f} of it;"] if small else []
        said += [f"in no more memory {quick.way.name} takes {quick.time / other.time:.2f} of it"] if quick else []
        print(" ".join(said))


def draw(found: dict[str, Sequence[Point]], path: Path) -> None:
    """Draw memory against time, a panel for each network; what no way of the same family beats is joined."""
    figure = open_figure(5.2 * len(found), 5.0, "Memory against time")
    shades = colours(["end_to_end", "checkpointing", *METHODS])
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (network, points) in zip(panels, found.items(), strict=True):
        dress(axes, network, "kept activations, of end to end", "time of a step, of end to end")
        axes.set_xscale("log")
        axes.set_xticks(_SHARES, [f"{share:g}" for share in _SHARES])
        axes.minorticks_off()
        axes.axhline(1.0, color=FAINT, linewidth=0.6)
        families: dict[tuple[str, str], list[Point]] = {}
        for point in points:
            families.setdefault((point.way.family, point.way.place), []).append(point)
        for (family, place), own in families.items():
            best = sorted((point for point in own if _is_best(point, own)), key=lambda point: point.memory)
            across, up = [point.memory for point in best], [point.time for point in best]
            axes.plot(across, up, color=shades[family], linewidth=1.0)
            for point in own:
                again = point.way.recipe.numerics.recompute != "none"
                face = "white" if again else shades[family]
                axes.plot(point.memory, point.time, MARKS[place], color=shades[family], markersize=5, mfc=face)
                if not again:
                    _name(axes, point)
    named = dict.fromkeys(point.way.family for points in found.values() for point in points)
    handles = [panels[0].plot([], [], "o", color=shades[name], label=name.replace("_", " "))[0] for name in named]
    handles += [panels[0].plot([], [], "o", color=FAINT, mfc="white", label="blocks run again")[0]]
    places = {point.way.place for points in found.values() for point in points}
    handles += [
        panels[0].plot([], [], mark, color=FAINT, label=place)[0] for place, mark in MARKS.items() if len(places) > 1
    ]
    columns = min(len(handles), 3 * len(panels))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT_SIZE)
    write_figure(figure, path)


def _name(axes: Axes, point: Point) -> None:
    count = point.way.chunks or getattr(point.way.recipe.method, "num_segments", 1)
    axes.annotate(
        str(count) if point.way.chunks else f"K = {count}",
        (point.memory, point.time),
        (5, -10),
        textcoords="offset points",
        fontsize=TEXT_SIZE - 2,
        color=INK,
    )


def main() -> None:
    """Measure, print a table for each network, and write picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = functools.partial(parser.add_argument)
    add("--networks", type=names_among(NETWORKS), default=",".join(NETWORKS))
    add("--k", default="1,2,4,8")
    add("--methods", type=names_among(METHODS), default=",".join(METHODS))
    add("--recompute", default="none,blocks,2,4")
    add("--chunks", default="2,4,8")
    add("--on", type=names_among(MARKS), default="process", help="process, ray, or both")
    add("--batch-size", type=int, help="images of a batch, of every network")
    add("--rounds", type=int, default=3)
    add("--steps", type=int, default=2)
    add("--folder", type=Path, default=Path("runs/frontier"))
    options = parser.parse_args()
    found: dict[str, Sequence[Point]] = {}
    options.folder.mkdir(parents=True, exist_ok=True)
    for network in options.networks:
        found[network], load = measure(network, options)
        print_table(network, found[network], options, load)
        draw(found, options.folder / "frontier.png")
        values = {
            name: [
                {"way": point.way.name, "kept": point.kept, "memory": point.memory, "time": point.time}
                for point in points
            ]
            for name, points in found.items()
        }
        (options.folder / "frontier.json").write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
