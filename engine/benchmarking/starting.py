"""The start of processes that train on the batches of a measurement."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.benchmarking.baselines.job import Job, Kind
from engine.benchmarking.baselines.launch import Processes
from engine.benchmarking.batches import Images
from engine.recipes import Plan, Recipe

SECONDS_TO_START = 300.0
SECONDS_OF_FIRST_STEP = 900.0
"""For which a process is waited for."""


class Starter:
    """Starts processes; a context manager that removes the file of batches in the end.

    Args:
        images: facts and batches of the measurement.
        plan: where this engine's learners live.
    """

    def __init__(self, images: Images, plan: Plan) -> None:
        self.images, self._plan = images, plan
        self._folder = tempfile.TemporaryDirectory(prefix="local_learning_batches_")
        self._file = str(Path(self._folder.name) / "batches.npz")
        images.batches.write(Path(self._file))

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def start(
        self,
        kind: Kind,
        recipe: Recipe,
        devices: Sequence[str],
        cases: Mapping[str, Mapping[str, Any]],
        threads: int,
        environment: Mapping[str, str],
    ) -> Processes:
        """Return processes that serve some cases, one process for each device; they are not waited for.

        Args:
            kind: which module trains.
            recipe: that every process gets.
            devices: where each computes.
            cases: settings by name.
            threads: of torch, of each process.
            environment: variables of theirs beside this process's own.
        """
        job = Job(kind, recipe, self._plan, self.images.facts, self._file, cases, workers=len(devices))
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        return Processes(job, devices, {**counts, **environment})
