"""Gradient checkpointing of the uncut network: less memory on one device, for a second forward pass.

As `torch.utils.checkpoint.checkpoint_sequential` without re-entrance: the network is divided into chunks of equally
many blocks; all but the last keep their input alone and run forward once more on the way back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from engine.benchmarking.baselines.job import Job
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
from engine.learners.hooks import statistics_untracked
from engine.learners.live_activations import LiveActivations


class Checkpointed:
    """End-to-end training with so many chunks.

    Args:
        chunks: number of chunks, at most as many as the network has children.
        job: what to train.
    """

    def __init__(self, chunks: int, job: Job) -> None:
        self._chunks = chunks
        self._supplies = Supplies(job)
        self._network = self._supplies.placed(whole_network(job))
        self._blocks = [Casting(block, job.recipe.numerics.precision, self._supplies.device) for block in self._network]
        self._optimizer = self._supplies.optimizer(self._network.parameters())
        self._next = 0

    def prepare(self) -> dict[str, Any]:
        """As `MeasuredCase.prepare`; what is kept is counted chunk by chunk, and put together by arithmetic."""
        weights = self.digests()
        kept = self._most_kept()
        loss = self._step()
        return {
            "weights": weights,
            "first_loss": {"network": loss.item()},
            "memory": {"network": {"saved_activations": kept}},
            "processes": [os.getpid()],
        }

    def run(self, steps: int) -> dict[str, Any]:
        """As `MeasuredCase.run`."""
        return timed(self._step, steps, self._supplies.device)

    def attempt(self, steps: int, check: bool) -> dict[str, Any]:
        """As `AttemptedCase.attempt`; what is kept decides, too, since it is what checkpointing is for."""
        kept = self._most_kept()
        return {"seconds": median_step(self._step, steps, self._supplies.device), "wrong": "", "kept": kept}

    def _step(self) -> Tensor:
        batch = self._supplies.batches.batch(self._next)
        self._next += 1
        output = checkpoint_sequential(
            self._blocks, self._chunks, self._supplies.inputs(batch), use_reentrant=False, preserve_rng_state=True
        )
        loss = loss_of(output, self._supplies.labels(batch))
        loss.backward()
        self._supplies.step(self._optimizer, batch)
        # To read it is to wait for the device, which would make every step wait.
        return loss.detach()

    def _most_kept(self) -> int:
        """Return the most bytes that are kept at one time.

        Before the first chunk goes back: the inputs of all chunks but the last, and what the last one saves. While
        chunk i goes back: the inputs of the chunks before it, and what it saves in its second pass.
        """
        features = self._supplies.inputs(self._supplies.batches.batch(0))
        labels = self._supplies.labels(self._supplies.batches.batch(0))
        inputs, most = 0, 0
        with statistics_untracked(self._network):
            for chunk in self._divided():
                is_last = chunk[-1] is self._blocks[-1]
                saved = LiveActivations(lambda: [*self._network.parameters(), *self._network.buffers()])
                taken = features.untyped_storage().nbytes()
                with saved.counting():
                    features = _run(chunk, features)
                    if is_last:
                        loss_of(features, labels)
                most = max(most, inputs + saved.peak)
                inputs += taken
                features = features.detach().requires_grad_()
        return most

    def _divided(self) -> list[list[nn.Module]]:
        # As checkpoint_sequential does: equally many blocks in each, and the rest in the last.
        size = len(self._blocks) // self._chunks
        bounds = [*(size * index for index in range(self._chunks)), len(self._blocks)]
        return [list(self._blocks[start:stop]) for start, stop in pairwise(bounds)]

    def digests(self) -> dict[str, str]:
        """As `MeasuredCase.digests`."""
        return parameter_digests(self._network)

    def close(self) -> None:
        """Nothing was started."""


def _run(chunk: list[nn.Module], features: Tensor) -> Tensor:
    for block in chunk:
        features = block(features)
    return features


def open_case(settings: Mapping[str, Any], job: Job) -> Checkpointed:
    """Return a case with the number of ``chunks`` in the settings."""
    return Checkpointed(settings["chunks"], job)


def open_cases(job: Job) -> dict[str, MeasuredCase]:
    """Return a case for each of the settings, by name."""
    return {name: open_case(settings, job) for name, settings in job.cases.items()}
