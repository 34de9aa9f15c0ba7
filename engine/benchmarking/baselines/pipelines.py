"""GPipe and 1F1B, as torch.distributed.pipelining has them: a stage of the network in each process.

The stages are balanced by the measured time of the blocks, forward and backward. Each case divides its batch into
micro-batches, whose batch norms see less than the whole batch: with more than one it is not quite the same training.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.rendezvous import meet
from engine.benchmarking.baselines.training import (
    Casting,
    MeasuredCase,
    Supplies,
    loss_of,
    parameter_digests,
    timed,
    whole_network,
)
from engine.learners.hooks import statistics_untracked
from engine.learners.live_activations import LiveActivations
from engine.partition import balance

_SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
_TIMED = 3


class PipelineRun:
    """One schedule with so many micro-batches.

    Args:
        schedule: ``gpipe`` or ``1f1b``.
        micro_batches: of a batch.
        bounds: the blocks at which stages begin, and the number of blocks.
        job: what to train.
    """

    def __init__(self, schedule: str, micro_batches: int, bounds: list[int], job: Job) -> None:
        self._job, self._supplies = job, Supplies(job)
        self._first, self._last = job.rank == 0, job.rank == job.workers - 1
        body = whole_network(job)[bounds[job.rank] : bounds[job.rank + 1]]
        self._body = self._supplies.placed(body)
        stage = PipelineStage(
            Casting(self._body, job.recipe.numerics.precision, self._supplies.device),
            job.rank,
            job.workers,
            self._supplies.device,
        )
        self._schedule = _SCHEDULES[schedule](stage, micro_batches, loss_fn=loss_of)
        self._optimizer = self._supplies.optimizer(self._body.parameters())
        self._next = 0

    def prepare(self) -> dict[str, Any]:
        """As `MeasuredCase.prepare`; the last process alone sees the loss, a mean over micro-batches."""
        weights = self.digests()
        saved = LiveActivations(lambda: [*self._body.parameters(), *self._body.buffers()])
        with saved.counting():
            loss = self._step()
        name = f"stage{self._job.rank}"
        return {
            "weights": weights,
            "first_loss": {name: loss},
            "memory": {name: {"saved_activations": saved.peak}},
            "processes": [os.getpid()],
        }

    def run(self, steps: int) -> dict[str, Any]:
        """As `MeasuredCase.run`."""
        return timed(self._step, steps, self._supplies.device, dist.barrier)

    def _step(self) -> float | None:
        batch = self._supplies.batches.batch(self._next)
        self._next += 1
        losses: list[Tensor] = []
        given = (self._supplies.inputs(batch),) if self._first else ()
        if self._last:
            self._schedule.step(*given, target=self._supplies.labels(batch), losses=losses)
        else:
            self._schedule.step(*given)
        self._supplies.step(self._optimizer, batch)
        return statistics.fmean(loss.item() for loss in losses) if losses else None

    def digests(self) -> dict[str, str]:
        """As `MeasuredCase.digests`, of this stage."""
        return parameter_digests(self._body)

    def close(self) -> None:
        """Nothing was started."""


def block_seconds(job: Job) -> list[float]:
    """Return the median time of each block of the network, forward and backward, on one batch."""
    supplies = Supplies(job)
    network = supplies.placed(whole_network(job))
    features = supplies.inputs(supplies.batches.batch(0))
    found: list[float] = []
    with statistics_untracked(network):
        for block in network:
            casting = Casting(block, job.recipe.numerics.precision, supplies.device)
            taken = []
            for _ in range(_TIMED):
                entering = features.detach().requires_grad_(bool(found))
                taken.append(_seconds(casting, entering, supplies.device))
            found.append(statistics.median(taken))
            with torch.no_grad():
                features = casting(features)
    return found


def _seconds(block: nn.Module, features: Tensor, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    given = block(features)
    if given.requires_grad:
        given.backward(torch.ones_like(given))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def stage_bounds(seconds: list[float], stages: int) -> list[int]:
    """Return where stages begin and the number of blocks, so that the slowest stage is as fast as possible.

    The classifier, the last block, stays with the one before, as in the engine's own cuts.
    """
    units = [*seconds[:-2], seconds[-2] + seconds[-1]]
    inner = balance(lambda stage, start, stop: sum(units[start:stop]), len(units), stages)
    return [0, *inner, len(seconds)]


def open_cases(job: Job) -> dict[str, MeasuredCase]:
    """Return a case for each ``schedule`` and number of ``micro_batches`` in the settings, by name."""
    meet(job)
    # Measured by one process, so that all agree.
    seconds = torch.zeros(len(whole_network(job)), dtype=torch.float64, device=job.device)
    if job.rank == 0:
        seconds.copy_(torch.tensor(block_seconds(job), dtype=torch.float64))
    dist.broadcast(seconds, 0)
    bounds = stage_bounds(seconds.tolist(), job.workers)
    return {
        name: PipelineRun(settings["schedule"], settings["micro_batches"], bounds, job)
        for name, settings in job.cases.items()
    }
