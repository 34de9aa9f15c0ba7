"""Recomputation: which activations of an auxiliary network are kept for the backward pass.

Batch normalisation and ReLU are cheap to compute again and expensive to keep: a decoder works at the image's own
resolution, where two feature maps of 12 channels are larger than the features themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.objectives.convolutions import Convolution, MeanOfPositions, computing_dtype, layout_of
from engine.objectives.objective import full_precision


class RecomputedSequence(nn.Sequential):
    """Convolutions with batch normalisation and ReLU between them, as ``nn.Sequential``, keeping less in training.

    Of the layers up to the last convolution or pool only the features are kept and, if asked for, what convolutions
    give to batch normalisation; all else is computed again in the backward pass (Chen et al. 2016). Values are those
    of the layers run one by one, and running statistics are updated once. There is no second derivative.

    Args:
        layers: `Convolution`, `MeanOfPositions`, and ``nn.BatchNorm2d`` followed by ``nn.ReLU`` in front of one of
            these; then any others, which are run as they are.
        keeps_convolved: whether the outputs of convolutions are kept; they are convolved again otherwise.
    """

    def __init__(self, *layers: nn.Module, keeps_convolved: bool) -> None:
        super().__init__(*layers)
        self.keeps_convolved = keeps_convolved

    def forward(self, input: Tensor) -> Tensor:
        """Return the output for features ``[B, C, H, W]``."""
        stages, ends = self._stages()
        # A batch norm of another kind that was put in knows itself how it is differentiated.
        known = all(type(stage.norm) in (nn.BatchNorm2d, type(None)) for stage in stages)
        if not (self.training and known):
            every_layer: Tensor = super().forward(input)
            return every_layer
        parameters = [parameter for stage in stages for parameter in stage.parameters]
        output: Tensor = _Recomputed.apply(stages, self.keeps_convolved, input, *parameters)
        for layer in islice(self, ends, None):
            output = layer(output)
        return output

    def _stages(self) -> tuple[list[_Stage], int]:
        """Return the stages, and how many layers they take."""
        stages: list[_Stage] = []
        before: list[nn.Module] = []
        ends = 0
        for number, layer in enumerate(self, start=1):
            if isinstance(layer, (Convolution, MeanOfPositions)):
                norm = before[0] if before else None
                kinds = [type(each) for each in before[1:]]
                known = norm is None or (isinstance(norm, _BatchNorm) and kinds == [nn.ReLU])
                assert known, f"{before} stand before {layer}, not batch normalisation and ReLU"
                stages.append(_Stage(norm, layer))
                before, ends = [], number
            elif not isinstance(layer, nn.Identity):
                before.append(layer)
        return stages, ends


@dataclass(frozen=True)
class _Stage:
    """Batch normalisation and ReLU, if there are any, and what works on their output."""

    norm: Any
    operation: Convolution | MeanOfPositions

    @property
    def parameters(self) -> list[nn.Parameter]:
        layers = (self.norm, self.operation) if self.norm is not None else (self.operation,)
        return [parameter for layer in layers for parameter in layer.parameters(recurse=False)]

    def split(self, parameters: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return parameters in the order of `parameters`: the norm's, the operation's."""
        count = 0 if self.norm is None else 2
        return parameters[:count], parameters[count:]


class _Recomputed(torch.autograd.Function):
    """Stages one after the other.

    Statistics of a stage are mean and 1 / sqrt(variance + eps) of the batch, two vectors; none without a norm.
    """

    @staticmethod
    def forward(ctx: Any, stages: list[_Stage], keeps: bool, features: Tensor, *parameters: Tensor) -> Tensor:
        ctx.stages, ctx.keeps, ctx.dtype = stages, keeps, computing_dtype(features)
        statistics: list[Tensor] = []
        kept: list[Tensor] = []
        with full_precision(features):
            maps = features.to(ctx.dtype)
            for stage, each in zip(stages, _by_stage(stages, parameters), strict=True):
                of_norm, others = stage.split(each)
                if keeps and stage is not stages[0]:
                    kept.append(maps)
                if stage.norm is not None:
                    maps, *found = _normalised(stage.norm, maps, of_norm)
                    statistics += found
                    maps.relu_()
                maps = stage.operation.evaluate(maps, *(parameter.to(ctx.dtype) for parameter in others))
        ctx.save_for_backward(features, *parameters, *statistics, *kept)
        return maps.contiguous(memory_format=layout_of(features)) if maps.dim() == 4 else maps

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        stages: list[_Stage] = ctx.stages
        features, *saved = ctx.saved_tensors
        parameters = _by_stage(stages, saved)
        vectors = iter(saved[sum(len(stage.parameters) for stage in stages) :])
        statistics = [() if stage.norm is None else (next(vectors), next(vectors)) for stage in stages]
        kept = list(vectors)
        inputs = [features.to(ctx.dtype)]
        for stage, each, found in zip(stages[:-1], parameters, statistics, strict=False):
            if ctx.keeps:
                inputs.append(kept.pop(0))
            else:
                maps = _activated(stage, inputs[-1], each, found)
                again = (parameter.to(ctx.dtype) for parameter in stage.split(each)[1])
                inputs.append(stage.operation.evaluate(maps, *again))
        given = gradients[0].to(ctx.dtype)
        results: list[Tensor | None] = []
        for stage, each, found in zip(reversed(stages), reversed(parameters), reversed(statistics), strict=True):
            entered = inputs.pop()
            maps = _activated(stage, entered, each, found)
            of_norm, others = stage.split(each)
            wanted = bool(inputs) or ctx.needs_input_grad[2]
            given, of_operation = stage.operation.gradients(
                given, maps, wanted, *(parameter.to(ctx.dtype) for parameter in others)
            )
            results = [*of_operation, *results]
            if stage.norm is not None:
                # Into the memory of the maps, which are used no more.
                torch.ops.aten.threshold_backward.grad_input(given, maps, 0, grad_input=maps)
                given, *of_norm = torch.ops.aten.native_batch_norm_backward(
                    maps, entered, of_norm[0], None, None, *found, True, stage.norm.eps, [True, True, True]
                )
                results = [*of_norm, *results]
        return None, None, given, *results


def _by_stage(stages: list[_Stage], parameters: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    found, start = [], 0
    for stage in stages:
        stop = start + len(stage.parameters)
        found.append(parameters[start:stop])
        start = stop
    return found


def _normalised(norm: nn.BatchNorm2d, maps: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch's statistics, and update the running ones if they are tracked."""
    tracked = norm.track_running_stats and norm.num_batches_tracked is not None
    assert norm.momentum is not None
    if tracked:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    running = (norm.running_mean, norm.running_var) if tracked else (None, None)
    weight, bias = parameters
    return torch.native_batch_norm(maps, weight, bias, *running, True, norm.momentum, norm.eps)


def _activated(stage: _Stage, maps: Tensor, parameters: Sequence[Tensor], statistics: Sequence[Tensor]) -> Tensor:
    """Return what the operation of a stage takes, from what entered the stage."""
    if stage.norm is None:
        return maps
    mean, scale = statistics
    weight, bias = stage.split(parameters)[0]
    variance = scale.pow(-2) - stage.norm.eps
    return F.batch_norm(maps, mean, variance, weight, bias, False, 0.0, stage.norm.eps).relu_()
