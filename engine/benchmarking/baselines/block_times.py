"""The time of each block of a network, forward and backward, on whole batches and on micro-batches.

They are timed as they run in training: all blocks forward in turn, then all backward, round after round. A block alone
would find its input in the cache, or the memory that the block before it has just given back; and the first round,
which is not counted, meets kernels that are not chosen and memory that is not there yet.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import Any

import torch

from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.training import Casting, Supplies, loss_of, whole_network
from engine.data import Batch
from engine.learners.hooks import statistics_untracked


class BlockTimes:
    """A network whose blocks are timed; nothing is trained.

    Args:
        parts: into how many micro-batches a batch is divided; 1 is the whole batch.
        job: what to time, in one process.
    """

    def __init__(self, parts: list[int], job: Job) -> None:
        self._parts, self._supplies = parts, Supplies(job)
        self._network = self._supplies.placed(whole_network(job))
        precision = job.recipe.numerics.precision
        self._blocks = [Casting(block, precision, self._supplies.device) for block in self._network]

    def run(self, steps: int) -> dict[str, Any]:
        """Return ``blocks``: of each number of micro-batches the median seconds of each block on one of them.

        Args:
            steps: rounds that are counted; two more warm up.
        """
        batch = self._supplies.batches.batch(0)
        found: dict[int, list[list[float]]] = {parts: [] for parts in self._parts}
        with statistics_untracked(self._network):
            for number in range(steps + 2):
                # All sizes in every round: what slows the machine for a while touches all alike.
                for parts in self._parts:
                    taken = self._times(_first(batch, len(batch.labels) // parts))
                    if number >= 2:
                        found[parts].append(taken)
        self._network.zero_grad(set_to_none=True)
        return {
            "blocks": {
                parts: [statistics.median(block) for block in zip(*taken, strict=True)]
                for parts, taken in found.items()
            }
        }

    def close(self) -> None:
        """Nothing was started."""

    def _times(self, batch: Batch) -> list[float]:
        features, labels = self._supplies.inputs(batch), self._supplies.labels(batch)
        marks, entered, left = [self._now()], [], []
        for index, block in enumerate(self._blocks):
            entered.append(features.detach().requires_grad_(index > 0))
            given = block(entered[-1])
            left.append(loss_of(given, labels) if index == len(self._blocks) - 1 else given)
            features = given
            marks.append(self._now())
        seconds = [after - before for before, after in pairwise(marks)]
        for index in reversed(range(len(self._blocks))):
            begun = self._now()
            if left[index].requires_grad:
                gradient = None if index == len(self._blocks) - 1 else entered[index + 1].grad
                left[index].backward(gradient)
            # What a block kept is given back before the one before it goes back, as in training.
            left.pop()
            seconds[index] += self._now() - begun
        return seconds

    def _now(self) -> float:
        if self._supplies.device.type == "cuda":
            torch.cuda.synchronize(self._supplies.device)
        return time.perf_counter()


def _first(batch: Batch, count: int) -> Batch:
    part = slice(0, count)
    return Batch(batch.images[part], batch.labels[part], batch.indices[part], batch.split, batch.epoch, batch.step)


def open_cases(job: Job) -> dict[str, BlockTimes]:
    """Return what times the blocks for each list of ``parts`` in the settings, by name."""
    return {name: BlockTimes(settings["parts"], job) for name, settings in job.cases.items()}
