"""Cost of the ways between actors, apart from what learners compute.

    python -m experiments.benchmarks.transports [--cases 2:20:4,4:5:4] [--rounds 5] [--ways object_store,memory,tcp]

A case is K:milliseconds:megabytes. A chain of K learners that sleep instead of computing, a third of a step in
`forward` and the rest in `update`, runs through the engine's own actors and executors. Features of so many bytes are
given after `forward`. Efficiency is (N + K - 1) t / time of N steps from standstill to standstill, as in a pipeline
whose stages hand on at their end; as these hand on after a third, the strict one sets t (N + (K - 1) / 3) against
the time. Each round runs all ways in turn; medians are compared, and what else used the CPU is recorded: sleeping
learners need few CPU seconds, so a figure taken beside more than 5 % of a core is marked. Beside them stands what the
driver itself does for a step: its processor time, and the calls of actors that it makes.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.learners import PhaseFunction, UntrainedMember
from engine.methods import LearnerSummary, Team
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.runtimes.ray import ObjectStoreRuntime, StreamRuntime, start_private_ray
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.placement import Placement
from experiments.benchmarks.side_by_side import in_turn
from experiments.benchmarks.words import names_among

ROWS = 128
IMAGE = (3, 32, 32)
SECONDS_OF_WORK = 2.0
_SET_TIMER_SLACK = 29
WAYS = ("object_store", "memory", "tcp")


class Sleeper(UntrainedMember):
    """A learner on a device of its own that leaves the CPU alone."""

    def __init__(self, name: str, seconds: float, features: int) -> None:
        super().__init__(name, torch.device("cpu"))
        # Else a sleep lasts a ten-thousandth of a second longer than asked for, which would be put down to the way.
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1, 0, 0, 0)
        self._seconds = seconds
        self._late = 0.0
        self._given = torch.rand(ROWS, features)

    def forward(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Sleep, and give features."""
        self._sleep(self._seconds / 3)
        return (self._given,)

    def update(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Sleep."""
        self._sleep(self._seconds * 2 / 3)
        return ()

    def _sleep(self, seconds: float) -> None:
        # A virtual machine wakes up late all the same, up to 1 % of 20 ms; what was too long is taken off the next
        # sleep, so that a learner's steps last t in the mean.
        started = time.perf_counter()
        time.sleep(max(0.0, seconds - self._late))
        self._late += time.perf_counter() - started - seconds

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        return {"forward": self.forward, "update": self.update}

    def ask_memory(self) -> dict[str, int]:
        return {}

    def ask_state(self) -> LearnerState:
        return LearnerState({}, {})

    def restore(self, state: LearnerState) -> None:
        pass


@dataclass(frozen=True)
class Sleepers:
    """Builds the learners of a chain.

    Attributes:
        segments: K.
        seconds: t, of each learner in a step.
        features: numbers that each image is turned into.
    """

    segments: int
    seconds: float
    features: int

    def build(self, name: str) -> Sleeper:
        """Build one learner."""
        return Sleeper(name, self.seconds, self.features)

    def team(self) -> Team:
        """Return all of them, and their program."""
        names = [f"segment{index}" for index in range(self.segments)]
        calls = [Call(SOURCE, "next", (), (BATCH,))]
        messages = {BATCH: batch_message(ROWS, IMAGE)}
        for index, name in enumerate(names):
            gives = (f"features{index}",) if name != names[-1] else ()
            messages |= {given: Message(given, (((ROWS, self.features), "float32"),)) for given in gives}
            takes = (BATCH, f"features{index - 1}") if index else (BATCH,)
            calls += [Call(name, "forward", takes, gives), Call(name, "update")]
        program = Program(tuple(calls), messages, "training")
        return Team(tuple(LearnerSummary(name, (), 0, 0) for name in names), (program,), program, {})


class CountedActors(LearnerActors):
    """A team that counts how often it is called."""

    calls = 0

    def number(self, learner: str) -> int:
        """Every call has one."""
        self.calls += 1
        return super().number(learner)


@dataclass(frozen=True)
class Run:
    """Some steps of a fresh team of actors, from standstill to standstill.

    Attributes:
        seconds: of all steps.
        driver_seconds: of processor time that this process used meanwhile, in all its threads.
        calls: of actors that it made.
    """

    seconds: float
    driver_seconds: float
    calls: int


def run(way: str, sleepers: Sleepers, steps: int) -> Run:
    """Run so many steps in a fresh team of actors."""
    team, count = sleepers.team(), sleepers.segments
    placement = Placement(count, len(os.sched_getaffinity(0)) / count, 0.0, "PACK", 2 * count)
    actors = CountedActors(sleepers, team.names, placement, timeout=120.0, owns_ray=False)
    runtime: ObjectStoreRuntime | StreamRuntime
    if way == "object_store":
        runtime = ObjectStoreRuntime(actors, placement.window, "benchmark")
    else:
        runtime = StreamRuntime(
            actors, team, None, 120.0, "benchmark", lambda _: "memory" if way == "memory" else "tcp"
        )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (ROWS, *IMAGE), dtype=np.uint8)
    batch = Batch(images, np.zeros(ROWS, np.int64), np.arange(ROWS), "train", 0, 0)
    try:
        for _ in range(4 * count):
            runtime.submit(team.program(0), batch)
        runtime.finish()
        calls, started, computed = actors.calls, time.perf_counter(), time.process_time()
        for _ in range(steps):
            runtime.submit(team.program(0), batch)
        runtime.finish()
        elapsed, driver = time.perf_counter() - started, time.process_time() - computed
        return Run(elapsed, driver, actors.calls - calls)
    finally:
        runtime.close()


def measure(case: str, ways: list[str], rounds: int) -> list[dict[str, Any]]:
    """Return one row for each way."""
    segments, milliseconds, megabytes = case.split(":")
    count, seconds = int(segments), float(milliseconds) / 1000
    steps = max(16, round(SECONDS_OF_WORK / seconds))
    sleepers = Sleepers(count, seconds, round(float(megabytes) * 2**20 / 4 / ROWS))
    found: dict[str, list[Run]] = {way: [] for way in ways}

    def seconds_of(way: str) -> float:
        found[way].append(run(way, sleepers, steps))
        return found[way][-1].seconds

    runs: dict[str, Callable[[], float]] = {way: functools.partial(seconds_of, way) for way in ways}
    taken, loads = in_turn(runs, rounds)
    rows = []
    for way in ways:
        elapsed = statistics.median(taken[way])
        rows.append(
            {
                "case": case,
                "way": way,
                "efficiency": seconds * (steps + count - 1) / elapsed,
                "strict": seconds * (steps + (count - 1) / 3) / elapsed,
                "best": seconds * (steps + count - 1) / min(taken[way]),
                "driver_milliseconds": 1000 * statistics.median(each.driver_seconds for each in found[way]) / steps,
                "calls": statistics.median(each.calls for each in found[way]) / steps,
                "others_cpu_share": statistics.median(loads[way]),
            }
        )
    return rows


def main() -> None:
    """Measure, print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="2:5:0.5,2:5:4,2:20:4,4:5:0.5,4:5:4,4:20:4")
    parser.add_argument("--ways", type=names_among(WAYS), default=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="write the rows as JSON to this file too")
    arguments = parser.parse_args()
    start_private_ray()
    found: list[dict[str, Any]] = []
    print(f"{'K:ms:MB':12} {'way':14} efficiency  strict    best  driver's ms  calls per step")
    for case in arguments.cases.split(","):
        for row in measure(case, arguments.ways, arguments.rounds):
            found.append(row)
            mark = f"  beside {row['others_cpu_share']:.0%} of a core" if row["others_cpu_share"] > 0.05 else ""
            figures = f"{row['efficiency']:10.3f} {row['strict']:7.3f} {row['best']:7.3f}"
            figures += f" {row['driver_milliseconds']:12.2f} {row['calls']:15.2f}"
            print(f"{case:12} {row['way']:14} {figures}{mark}", flush=True)
    ray.shutdown()
    text = json.dumps({"cores": len(os.sched_getaffinity(0)), "rows": found})
    if arguments.output:
        arguments.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
