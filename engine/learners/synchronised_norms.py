"""Synchronised batch normalisation: statistics of the whole batch over all replicas of a learner.

torch's own SyncBatchNorm computes on GPUs alone; this one does wherever its process group does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.modules.batchnorm import _BatchNorm

from engine.learners.lost_replica import exchanging


def synchronise_norms(module: nn.Module, group: ProcessGroup) -> None:
    """Let every batch norm inside a module normalise with the mean and variance of all replicas' images together.

    Parameters, buffers and their names stay as they are. Running statistics are those of one device with the whole
    batch, up to the order of the sums.

    Args:
        module: changed in place; it may hold batch norms at any depth, and must not be one itself.
        group: of all replicas; they must run the same norms in the same order.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, _SynchronisedNorm(child, group))


class _SynchronisedNorm(_BatchNorm):
    """A batch norm over the images of all replicas; takes the place of one over those of its own."""

    def __init__(self, norm: _BatchNorm, group: ProcessGroup) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        self._group = group
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any [B, C, ...]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised features [B, C, ...], of their own dtype."""
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, self._group)
        if self.track_running_stats and self.running_mean is not None:
            assert self.running_var is not None and self.num_batches_tracked is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                rate = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(variance * (count / (count - 1)), rate)
        return output


class _Normalise(torch.autograd.Function):
    """Normalisation over all replicas (Ioffe and Szegedy 2015), forward and backward.

    With x^ = (x - mean) / sqrt(var + eps) and N values of a channel over all replicas:

        dL/dx = w / sqrt(var + eps) * (dy - sum(dy) / N - x^ * sum(dy * x^) / N)

    where the sums go over all replicas. Gradients of weight and bias are a replica's own, as those of all other
    parameters, and are added up with them.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: ProcessGroup
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        values = features.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        own = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values, axes, correction=0)
        # Sums about each replica's own mean: those about zero would lose digits where the mean is large.
        told = _of_all(torch.cat([mean, variance, values.new_tensor([float(own)])]), group).double()
        channels = values.shape[1]
        means, variances, counts = told[:, :channels], told[:, channels:-1], told[:, -1:]
        count = float(counts.sum())
        together = (means * counts).sum(0) / count
        spread = ((variances + (means - together).square()) * counts).sum(0) / count
        mean, variance = together.to(values.dtype), spread.to(values.dtype)
        shape = [1, channels, *[1] * (values.dim() - 2)]
        scale = (spread + eps).rsqrt().to(values.dtype)
        gain = scale if weight is None else scale * weight.float()
        shift = -mean * gain if bias is None else bias.float() - mean * gain
        ctx.save_for_backward(features, weight, mean, scale)
        ctx.group, ctx.count, ctx.axes, ctx.shape = group, count, axes, shape
        ctx.bias_dtype = bias.dtype if bias is not None else None
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(shift.view(shape), values, gain.view(shape)).to(features.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        features, weight, mean, scale = ctx.saved_tensors
        given = gradients[0].float()
        normalised = (features.float() - mean.view(ctx.shape)) * scale.view(ctx.shape)
        own = torch.stack([given.sum(ctx.axes), (given * normalised).sum(ctx.axes)])
        total, correlated = _of_all(own.flatten(), ctx.group).sum(0).view(2, -1) / ctx.count
        gain = scale if weight is None else scale * weight.float()
        inner = given - total.view(ctx.shape) - normalised * correlated.view(ctx.shape)
        found = (inner * gain.view(ctx.shape)).to(features.dtype)
        weights = own[1].to(weight.dtype) if weight is not None else None
        biases = own[0].to(ctx.bias_dtype) if ctx.bias_dtype is not None else None
        return found, weights, biases, None, None


def _of_all(own: Tensor, group: ProcessGroup) -> Tensor:
    """Return a vector [N] of every replica, in their order, [R, N]: summed alike everywhere, to the last bit."""
    told = [torch.empty_like(own) for _ in range(group.size())]
    with exchanging():
        torch.distributed.all_gather(told, own, group=group)
    return torch.stack(told)
