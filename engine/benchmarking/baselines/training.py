"""End-to-end training, as all baselines share it: network, images, loss and optimizer.

They are the engine's own, so that a baseline differs from it in how the work is divided and in nothing else. What the
engine does besides, such as counting hits, baselines are spared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine import backbones
from engine.benchmarking.baselines.job import Job
from engine.benchmarking.batches import Batches
from engine.data import Augmenter, Batch
from engine.learners import make_optimizer
from engine.learners.numerics import DTYPES
from engine.learners.optimization import learning_rate_at
from engine.methods import weights_sha256
from engine.objectives import cross_entropy_loss


class MeasuredCase(Protocol):
    """One way of training, ready to be run again and again."""

    def prepare(self) -> dict[str, Any]:
        """Run the first step, and count what it keeps.

        Returns:
            ``weights``, digests of the initial parameters by name; ``first_loss`` in nats, None in a process that does
            not see it; ``memory``, bytes by purpose for each learner or worker of this process; ``processes``, the ids
            of the processes that work.
        """

    def run(self, steps: int) -> dict[str, Any]:
        """Train some steps in steady state.

        Returns:
            ``seconds`` of one step; ``waiting``, the share of the time that each learner or worker of this process
            waited, None where it is not known; ``device_bytes``, the peak of the device's memory, None on a CPU.
        """

    def digests(self) -> dict[str, str]:
        """Return digests of the parameters as they are now, by name."""

    def close(self) -> None:
        """End what was started."""


class AttemptedCase(MeasuredCase, Protocol):
    """A way of training whose settings are searched by running them."""

    def attempt(self, steps: int, check: bool) -> dict[str, Any]:
        """Train some steps to see how good these settings are.

        Args:
            steps: that are timed.
            check: make sure first that the training is right; may take as long as several steps.

        Returns:
            ``seconds`` of a step, a median; ``wrong``, what is wrong with the training, "" if nothing is or nobody
            asked; ``kept``, bytes that autograd keeps at most at one time, if they decide, too.
        """


class Supplies:
    """Images, labels and learning rates of successive steps.

    Args:
        job: which batches, and on which device.

    Attributes:
        dtype: in which the recipe computes.
    """

    def __init__(self, job: Job) -> None:
        self.recipe, self.device = job.recipe, torch.device(job.device)
        self.dtype = DTYPES[job.recipe.numerics.precision]
        self.batches = Batches.read(job.batches)
        self._augmenter = Augmenter(job.recipe.data.augmentation, job.facts, job.recipe.seed, self.device)
        self._format = torch.channels_last if job.recipe.numerics.channels_last else torch.contiguous_format

    def inputs(self, batch: Batch) -> Tensor:
        """Return normalised images, float32 [B, C, H, W], in the recipe's memory layout."""
        pixels = self._augmenter.training_pixels(batch)
        return self._augmenter.normalise(pixels).contiguous(memory_format=self._format)

    def labels(self, batch: Batch) -> Tensor:
        """Return labels, int64 [B]."""
        return torch.from_numpy(batch.labels).to(self.device)

    def placed(self, module: Any) -> Any:
        """Return a module on the device, in the recipe's memory layout, compiled if the recipe says so."""
        module = module.to(self.device, memory_format=self._format)
        if self.recipe.numerics.compile:
            module.compile()
        return module

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the recipe's optimizer over some parameters."""
        return make_optimizer(self.recipe.optimizer, parameters)

    def step(self, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        """Step the optimizer with the learning rate of a batch, and drop the gradients."""
        rate = learning_rate_at(self.recipe, self.batches.steps_per_epoch, batch.epoch, batch.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if self.recipe.optimizer.clip_norm is not None:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


class Casting(nn.Module):
    """A module that computes in the recipe's precision.

    Args:
        body: what computes.
        precision: as in the recipe's numerics.
        device: where it computes.
    """

    def __init__(self, body: nn.Module, precision: str, device: torch.device) -> None:
        super().__init__()
        self.body = body
        self._dtype, self._device = DTYPES[precision], device

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the body gives."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            given: Tensor = self.body(inputs)
        return given


def whole_network(job: Job) -> nn.Sequential:
    """Return the recipe's backbone with its initial weights, the same in every process and every case."""
    return backbones.build(job.recipe.backbone, job.facts.num_classes, job.facts.image_shape, job.recipe.seed)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, computed in float32 as the engine's own."""
    return cross_entropy_loss(logits.float(), labels)


def parameter_digests(network: nn.Module, prefix: str = "") -> dict[str, str]:
    """Return digests of a network's parameters, by name."""
    return tensor_digests({f"{prefix}{name}": value for name, value in network.named_parameters()})


def tensor_digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return a digest of each tensor, by name: what is equal bit for bit in two processes has equal ones."""
    return {name: weights_sha256({name: tensor}) for name, tensor in tensors.items()}


def timed(
    step: Callable[[], object], steps: int, device: torch.device, together: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Return what `MeasuredCase.run` returns, for a process of one worker, after one step more that is not measured.

    On a CPU a worker waits while its process uses no processor time; what a GPU does cannot be told that way.

    Args:
        step: trains one step.
        steps: to measure.
        device: where the worker computes.
        together: waits for the other workers, before and after.
    """

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    together()
    settle()
    started, computed = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    settle()
    elapsed = time.perf_counter() - started
    busy = (time.process_time() - computed) / torch.get_num_threads()
    together()
    on_cpu = device.type == "cpu"
    return {
        "seconds": elapsed / steps,
        "waiting": [max(0.0, 1 - busy / elapsed)] if on_cpu else None,
        "device_bytes": None if on_cpu else torch.cuda.max_memory_allocated(device),
    }


def median_step(
    step: Callable[[], object], steps: int, device: torch.device, together: Callable[[], object] = lambda: None
) -> float:
    """Return the median seconds from the end of one step to that of the next, after one step that is not counted.

    Args:
        step: trains one step.
        steps: to time; no worker waits for another between them but as the step itself makes it wait.
        device: where the worker computes.
        together: waits for the other workers, before and after.
    """

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    step()
    together()
    ends = [now()]
    for _ in range(steps):
        step()
        ends.append(now())
    together()
    return statistics.median(after - before for before, after in pairwise(ends))
