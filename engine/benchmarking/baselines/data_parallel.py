"""Data parallelism: the whole network in each process, on an equal part of every batch.

``ddp`` is torch's DistributedDataParallel, ``fsdp`` its fully_shard (FSDP2), which divides parameters, gradients and
optimizer state among the processes. Batch norms see one part of the batch: it is not quite the same training.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from engine.benchmarking.baselines.job import Job
from engine.benchmarking.baselines.rendezvous import meet
from engine.benchmarking.baselines.training import (
    Casting,
    MeasuredCase,
    Supplies,
    loss_of,
    median_step,
    parameter_digests,
    timed,
    whole_network,
)
from engine.data import Batch
from engine.learners.live_activations import LiveActivations


class DataParallelRun:
    """The whole network in each process.

    Args:
        settings: ``sharded``, whether parameters, gradients and optimizer state are divided. If they are:
            ``by_block``, whether each block is gathered by itself, else all at once; ``reshard``, whether blocks are
            divided again between forward and backward. If not: ``bucket_mib``, how many MiB of gradients travel
            together.
        job: what to train.
    """

    def __init__(self, settings: Mapping[str, Any], job: Job) -> None:
        sharded = settings["sharded"]
        self._job, self._supplies = job, Supplies(job)
        network = self._supplies.placed(whole_network(job))
        self._weights = parameter_digests(network)
        self._own = network
        if sharded:
            mesh = init_device_mesh(self._supplies.device.type, (job.workers,))
            for block in network if settings["by_block"] else ():
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh, reshard_after_forward=settings["reshard"])
            self._network: torch.nn.Module = fully_shard(network, mesh=mesh)
        else:
            # The running statistics of each process are its own, which spares their exchange.
            self._network = DistributedDataParallel(
                network,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                bucket_cap_mb=settings["bucket_mib"],
            )
        self._casting = Casting(self._network, job.recipe.numerics.precision, self._supplies.device)
        self._optimizer = self._supplies.optimizer(self._network.parameters())
        if sharded:
            for group in self._optimizer.param_groups:
                # The fused kernels know no sharded tensors.
                group.update(fused=False, foreach=True)
        self._next = 0

    def prepare(self) -> dict[str, Any]:
        """As `MeasuredCase.prepare`; the loss is the mean over the images of this process."""
        saved = LiveActivations(self._whole_tensors)
        with saved.counting():
            loss = self._step()
        name = f"replica{self._job.rank}"
        return {
            "weights": self._weights,
            "first_loss": {name: loss.item()},
            "memory": {name: {"saved_activations": saved.peak}},
            "processes": [os.getpid()],
        }

    def run(self, steps: int) -> dict[str, Any]:
        """As `MeasuredCase.run`."""
        return timed(self._step, steps, self._supplies.device, dist.barrier)

    def attempt(self, steps: int, check: bool) -> dict[str, Any]:
        """As `AttemptedCase.attempt`; how gradients travel does not change what they are, so nothing is checked."""
        return {"seconds": median_step(self._step, steps, self._supplies.device, dist.barrier), "wrong": ""}

    def _step(self) -> torch.Tensor:
        batch = self._part(self._supplies.batches.batch(self._next))
        self._next += 1
        loss = loss_of(self._casting(self._supplies.inputs(batch)), self._supplies.labels(batch))
        loss.backward()
        self._supplies.step(self._optimizer, batch)
        # To read it is to wait for the device, which would make every step wait.
        return loss.detach()

    def _whole_tensors(self) -> list[torch.Tensor]:
        """Return parameters and buffers, but for those that are in parts just now."""
        return [each for each in (*self._own.parameters(), *self._own.buffers()) if not isinstance(each, DTensor)]

    def _part(self, batch: Batch) -> Batch:
        size = len(batch.labels) // self._job.workers
        part = slice(self._job.rank * size, (self._job.rank + 1) * size)
        return Batch(batch.images[part], batch.labels[part], batch.indices[part], batch.split, batch.epoch, batch.step)

    def digests(self) -> dict[str, str]:
        """As `MeasuredCase.digests`; of the parts of the parameters that this process has, where they are divided."""
        return parameter_digests(self._own)

    def close(self) -> None:
        """Nothing was started."""


def open_case(settings: Mapping[str, Any], job: Job) -> DataParallelRun:
    """Return a case; the processes of the job have met."""
    return DataParallelRun(settings, job)


def open_cases(job: Job) -> dict[str, MeasuredCase]:
    """Let the processes meet, and return a case for each of the settings, by name."""
    meet(job)
    return {name: open_case(settings, job) for name, settings in job.cases.items()}
