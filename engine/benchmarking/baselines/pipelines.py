"""Pipelines, as torch.distributed.pipelining has them: one or more stages of the network in each process.

Which schedule, how many micro-batches and which cut are found by running them; see
`engine.benchmarking.settings_search`. A case divides its batch into micro-batches, whose batch norms see less than the
whole batch: with more than one it is not quite the same training.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import pipelining

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
from engine.benchmarking.schedules import SCHEDULES
from engine.data import Batch
from engine.errors import PlanError
from engine.learners.live_activations import LiveActivations

# What counts as another gradient, in shares of its norm: far more than an order of additions makes, far less than a
# micro-batch that is missing or counted twice.
_DEVIATION = {torch.float32: 0.01, torch.bfloat16: 0.1}
# Gradients that are nought but for rounding, as before a batch norm, are judged by this share of the whole gradient.
_NOUGHT = 1e-3


class PipelineRun:
    """One schedule, with so many micro-batches, at one cut.

    Args:
        settings: ``schedule``, a word of `SCHEDULES`; ``micro_batches`` of a batch; ``bounds``, the blocks at which
            stages begin, and the number of blocks.
        job: what to train.

    Raises:
        PlanError: this torch has no such schedule.
        ValueError: the schedule cannot run so many micro-batches.
    """

    def __init__(self, settings: Mapping[str, Any], job: Job) -> None:
        self._job, self._supplies = job, Supplies(job)
        schedule, bounds = SCHEDULES[settings["schedule"]], settings["bounds"]
        self._micro_batches = settings["micro_batches"]
        made = getattr(pipelining, schedule.torch_class, None)
        if made is None:
            raise PlanError(f"torch {torch.__version__} has no {schedule.torch_class}")
        mine, count = schedule.stages_of(job.rank, job.workers), job.workers * schedule.stages_per_worker
        self._first, self._last = 0 in mine, count - 1 in mine
        network = whole_network(job)
        self._bodies: list[nn.Module] = [
            self._supplies.placed(network[bounds[stage] : bounds[stage + 1]]) for stage in mine
        ]
        precision, device = job.recipe.numerics.precision, self._supplies.device
        stages = [
            pipelining.PipelineStage(Casting(body, precision, device), stage, count, device)
            for stage, body in zip(mine, self._bodies, strict=True)
        ]
        self._schedule = made(stages if schedule.takes_list else stages[0], self._micro_batches, loss_fn=loss_of)
        self._parameters = {name: each for body in self._bodies for name, each in body.named_parameters()}
        self._optimizer = self._supplies.optimizer(self._parameters.values())
        self._next = 0

    def prepare(self) -> dict[str, Any]:
        """As `MeasuredCase.prepare`; one process alone sees the loss, a mean over micro-batches."""
        weights = self.digests()
        saved = LiveActivations(
            lambda: [each for body in self._bodies for each in (*body.parameters(), *body.buffers())]
        )
        with saved.counting():
            losses = self._step()
        name = f"stage{self._job.rank}"
        return {
            "weights": weights,
            "first_loss": {name: statistics.fmean(loss.item() for loss in losses) if losses else None},
            "memory": {name: {"saved_activations": saved.peak}},
            "processes": [os.getpid()],
        }

    def run(self, steps: int) -> dict[str, Any]:
        """As `MeasuredCase.run`."""
        return timed(self._step, steps, self._supplies.device, dist.barrier)

    def attempt(self, steps: int, check: bool) -> dict[str, Any]:
        """As `MeasuredCase.attempt`; the check is of the gradients, against those of plain accumulation."""
        wrong = ""
        if check:
            batch = self._supplies.batches.batch(self._next)
            self._compute(batch)
            wrong = self._wrong_gradient(batch)
            self._optimizer.zero_grad(set_to_none=True)
        return {"seconds": median_step(self._step, steps, self._supplies.device, dist.barrier), "wrong": wrong}

    def _step(self) -> list[Tensor]:
        batch = self._supplies.batches.batch(self._next)
        self._next += 1
        losses = self._compute(batch)
        self._supplies.step(self._optimizer, batch)
        # To read them is to wait for the device, which would make every step wait.
        return losses

    def _compute(self, batch: Batch) -> list[Tensor]:
        losses: list[Tensor] = []
        given = (self._supplies.inputs(batch),) if self._first else ()
        if self._last:
            self._schedule.step(*given, target=self._supplies.labels(batch), losses=losses)
        else:
            self._schedule.step(*given)
        return losses

    def _wrong_gradient(self, batch: Batch) -> str:
        """Return which gradient differs from that of the uncut network, micro-batch after micro-batch; "" if none."""
        network = self._supplies.placed(whole_network(self._job))
        precision, device = self._job.recipe.numerics.precision, self._supplies.device
        casting = Casting(network, precision, device)
        drawn = _random_state(device)
        images, labels = self._supplies.inputs(batch), self._supplies.labels(batch)
        for part, own in zip(images.chunk(self._micro_batches), labels.chunk(self._micro_batches), strict=True):
            (loss_of(casting(part), own) / self._micro_batches).backward()
        if not torch.equal(drawn, _random_state(device)):
            # Such as of dropout: two passes are never the same.
            return ""
        wanted = {name: each.grad for name, each in network.named_parameters()}
        whole = torch.stack([each.norm() for each in wanted.values() if each is not None]).norm().item()
        most = _DEVIATION[self._supplies.dtype]
        for name, parameter in self._parameters.items():
            right = wanted[name]
            if right is None or parameter.grad is None:
                if right is not parameter.grad:
                    return (
                        f"{name} has {'no' if parameter.grad is None else 'a'} gradient, unlike by plain accumulation"
                    )
                continue
            share = (parameter.grad - right).norm().item() / max(right.norm().item(), _NOUGHT * whole)
            if not share <= most:
                return f"the gradient of {name} differs from that of plain accumulation by {share:.0%} of its norm"
        return ""

    def digests(self) -> dict[str, str]:
        """As `MeasuredCase.digests`, of the stages of this process."""
        return {name: digest for body in self._bodies for name, digest in parameter_digests(body).items()}

    def close(self) -> None:
        """Nothing was started."""


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def open_case(settings: Mapping[str, Any], job: Job) -> PipelineRun:
    """Return a case; the processes of the job have met."""
    return PipelineRun(settings, job)


def open_cases(job: Job) -> dict[str, MeasuredCase]:
    """Let the processes meet, and return a case for each of the settings, by name."""
    meet(job)
    return {name: open_case(settings, job) for name, settings in job.cases.items()}
