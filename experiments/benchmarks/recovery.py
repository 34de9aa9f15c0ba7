"""Seconds that the death of a learner costs: it comes back alone, or the team does, from a snapshot or a checkpoint.

    python -m experiments.benchmarks.recovery [--segments 2 4 8] [--rounds 3] [--transport object_store]

InfoPro with K segments of ResNet-32 trains on Ray through the object store, or on direct links, with made pictures of
32 x 32, 32 in a batch, for 100 steps. The process of its middle learner is ended with SIGKILL soon after step 75, 25
steps after an epoch's checkpoint; snapshots are taken as often as they are by themselves. The three ways follow one
another in every round, and a figure is the median of all rounds. A command for one K, one transport and one round takes
minutes; several of them add up to the table. Every run is compared with one in this process that nobody disturbs: other
weights end the command.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from unittest.mock import patch

import engine
from engine.recipes import InfoPro, Recipe, Recovery
from engine.runtimes import Runtime, open_runtime
from engine.tasks import Metric
from engine.tracking import Record
from experiments.benchmarks.side_by_side import in_turn

WAYS = ("alone", "team, from a snapshot", "team, from a checkpoint")
Transport = Literal["object_store", "direct"]
STEPS_PER_EPOCH, DEATH_AT = 50, 75
_NEVER = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What one death has cost.

    Attributes:
        noticed: seconds from the signal until the command says what it does about it.
        lost: seconds from when the loss was noticed until the step was done again at which it came.
        steps: that were computed again.
    """

    noticed: float
    lost: float
    steps: int


class Killer:
    """A console that ends a learner's process once, and hears when that is noticed."""

    def __init__(self, learner: str) -> None:
        self._learner = learner
        self.runtime: Any = None
        self.killed_at = self.noticed_at = 0.0
        self.came_back_alone = False

    def open(self, *arguments: Any) -> Runtime:
        self.runtime = open_runtime(*arguments)
        return self.runtime

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, _: Metric) -> None:
        pass

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        if step >= DEATH_AT and not self.killed_at:
            self.killed_at = time.monotonic()
            os.kill(self.runtime._actors.places[self._learner]["pid"], signal.SIGKILL)

    def message(self, text: str) -> None:
        if self.killed_at and not self.noticed_at:
            self.noticed_at = time.monotonic()
            self.came_back_alone = "it alone is started again" in text


def recipe_of(segments: int) -> Recipe:
    """Return InfoPro of a small ResNet on made pictures of the size of CIFAR-10's: two epochs of 50 steps."""
    recipe = engine.load_recipe("infopro_cifar10_resnet32")
    words = [
        *("data.name=synthetic", "data.num_classes=10", "data.batch_size=32"),
        *(f"data.synthetic_images={32 * STEPS_PER_EPOCH}", "numerics.threads=1"),
        *(f"method.num_segments={segments}", "epochs=2", "backbone.name=resnet32"),
    ]
    changed, _ = engine.apply_overrides(recipe, engine.Plan(), words)
    assert isinstance(changed.method, InfoPro)
    return changed


def cost(recipe: Recipe, way: str, weights: str, transport: Transport) -> Cost:
    """Train, and end the middle learner's process on the way."""
    killer: Any = Killer(f"segment{recipe.method.num_segments // 2}")
    recovery = Recovery(snapshot_every_steps=_NEVER) if way.endswith("checkpoint") else Recovery()
    plan = engine.Plan(transport=transport, report_every_steps=1, evaluate_every_epochs=2, recovery=recovery)
    nothing: list[Any] = [
        patch("engine.runtimes.ray.launch.history_bytes", lambda *_: 0),
        patch("engine.runtimes.ray.stream.bytes_kept_on_links", lambda *_: 0),
    ]
    kept = [] if way == "alone" else nothing
    with tempfile.TemporaryDirectory() as folder, patch("engine.training.session.open_runtime", killer.open):
        for each in kept:
            each.start()
        try:
            result = engine.train(recipe, plan, Path(folder) / "run", console=killer)
        finally:
            for each in kept:
                each.stop()
    if result.weights_sha256 != weights or len(result.faults) != 1:
        sys.exit(f"{way}: other weights than undisturbed, or {len(result.faults)} faults instead of one")
    if killer.came_back_alone != (way == "alone"):
        sys.exit(f"{way}: {'came' if killer.came_back_alone else 'did not come'} back alone")
    (fault,) = result.faults
    return Cost(killer.noticed_at - killer.killed_at, fault.seconds_lost, fault.repeated_steps)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--transport", choices=get_args(Transport), default="object_store")
    arguments = parser.parse_args()
    print("| K | way | noticed after, s | lost, s | steps computed again |\n|---|---|---|---|---|")
    busiest = 0.0
    for segments in arguments.segments:
        recipe = recipe_of(segments)
        with tempfile.TemporaryDirectory() as folder:
            weights = engine.train(recipe, engine.Plan(executor="process"), Path(folder) / "run").weights_sha256
        costs: dict[str, list[Cost]] = {way: [] for way in WAYS}

        def run(way: str, recipe: Recipe, weights: str, costs: dict[str, list[Cost]]) -> float:
            costs[way].append(cost(recipe, way, weights, arguments.transport))
            return costs[way][-1].lost

        runs = {way: functools.partial(run, way, recipe, weights, costs) for way in WAYS}
        _, loads = in_turn(runs, arguments.rounds)
        busiest = max(busiest, *(share for shares in loads.values() for share in shares))
        for way, found in costs.items():
            noticed, lost = [each.noticed for each in found], [each.lost for each in found]
            steps = statistics.median(each.steps for each in found)
            print(f"| {segments} | {way} | {_range(noticed)} | {_range(lost)} | {steps:g} |", flush=True)
    print(f"Others used {busiest:.2f} of a core at most, ended processes of Ray among them.")


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


if __name__ == "__main__":
    main()
