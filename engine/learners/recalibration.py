"""Statistics of batch norms over clean training images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.learners.hooks import statistics_untracked


class Recalibration:
    """Estimates the running statistics of a body's batch norms anew, from batches given one after another.

    Training on sub-networks or mixed images leaves running statistics behind that are not those of the whole network
    on clean images. As Ye et al. (2022, NeurIPS, "Stimulative training of residual networks") do in their released
    code: the batches' means and biased variances, averaged over images. Every batch norm sees what the layers before
    it give with the statistics of the batch, so neither the old running statistics nor the order of batches within
    rounding have an influence, and the same batches give the same bits again.

    All other layers run as they are deployed, in evaluation mode: no dropout, and no random number is drawn. Weights,
    gradients, ``num_batches_tracked`` and the modes of all modules stay what they were. A batch norm that is called
    more than once gets the average over its calls; one that no batch reaches, or that has no running statistics,
    stays as it is.

    Args:
        body: the network, or for a sub-network's own statistics an ``nn.Sequential`` of the blocks that it keeps.
    """

    def __init__(self, body: nn.Module) -> None:
        self._body = body
        self._norms = [each for each in body.modules() if isinstance(each, _BatchNorm)]
        self._sums: dict[_BatchNorm, _Sums] = {}

    def add(self, inputs: Tensor) -> None:
        """Take the statistics of a batch into account.

        Args:
            inputs: what the body takes, floating point [B, ...]: training images as training sees them, unmixed.

        Raises:
            ValueError: from torch, if a batch norm gets a single value per channel.
        """
        with contextlib.ExitStack() as undo:
            for norm in self._norms:
                undo.callback(norm.register_forward_pre_hook(self._count).remove)
            undo.enter_context(_only_batch_norms_in_training(self._body))
            undo.enter_context(statistics_untracked(self._body))
            undo.enter_context(torch.no_grad())
            # Not called: what `numerics.compile` made of the body would run without these hooks.
            self._body.forward(inputs)

    def finish(self) -> None:
        """Write the averages of all batches so far into ``running_mean`` and ``running_var``."""
        for norm, sums in self._sums.items():
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(sums.mean / sums.images)
            norm.running_var.copy_(sums.variance / sums.images)

    def _count(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        features: Tensor = inputs[0]
        if norm.running_mean is None:
            return
        others = [axis for axis in range(features.ndim) if axis != 1]
        precise = features.to(torch.promote_types(features.dtype, torch.float32))
        variance, mean = torch.var_mean(precise, others, correction=0)
        self._sums.setdefault(norm, _Sums(norm.running_mean)).add(mean, variance, len(features))


class _Sums:
    def __init__(self, like: Tensor) -> None:
        self.mean = torch.zeros_like(like, dtype=torch.float64)
        self.variance = torch.zeros_like(self.mean)
        self.images = 0

    def add(self, mean: Tensor, variance: Tensor, images: int) -> None:
        self.mean += mean.double() * images
        self.variance += variance.double() * images
        self.images += images


@contextlib.contextmanager
def _only_batch_norms_in_training(body: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in body.modules()}
    for module in modes:
        module.training = isinstance(module, _BatchNorm)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
