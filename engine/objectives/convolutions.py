"""Convolutions evaluated and differentiated by hand, and those of upsampled features.

Every operation here has two faces: ``forward``, which autograd follows, and the pair ``evaluate`` and ``gradients``,
from which `engine.objectives.recomputation` builds a backward pass that keeps less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.interpolation import Interpolation, folds, shifted_interpolation
from engine.objectives.objective import full_precision
from engine.objectives.pooling import GlobalAveragePool

# Gradients of the features, None where they are not wanted, and of the parameters.
Gradients = tuple[Tensor | None, tuple[Tensor, ...]]

# Elements of the largest tensor that is worked on at a time on a CPU: 4 MiB of float32, which stays in its cache.
# A folded convolution of 32 x 16 x 16 takes 0.7 of the time that it takes for 128 images at once.
_ELEMENTS_AT_ONCE = 2**20


class Convolution(nn.Conv2d):
    """A convolution with zero padding, without groups or dilation.

    On a CPU it is done in channels_last, some images at a time: half the time for few channels, whatever the layout
    of the features.
    """

    def evaluate(self, features: Tensor, *parameters: Tensor) -> Tensor:
        """Return ``[B, O, h, w]`` of features ``[B, C, H, W]``.

        Args:
            features: the input.
            parameters: weight, and bias if there is one, in the dtype of the features.
        """
        result: Tensor | None = None
        for images in self._parts(features):
            part = self._part(_laid_out(features[images]), *parameters)
            if len(part) == len(features):
                return part
            if result is None:
                shape = (len(features), *part.shape[1:])
                result = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
            result[images] = part
        assert result is not None, "a batch without images"
        return result

    def gradients(self, gradient: Tensor, features: Tensor, wanted: bool, *parameters: Tensor) -> Gradients:
        """Return the gradients of features and parameters.

        Args:
            gradient: ``[B, O, h, w]``, of the output.
            features: ``[B, C, H, W]``, the input.
            wanted: whether the features' gradient is.
            parameters: as in `evaluate`.
        """
        of_features: Tensor | None = None
        # Sums over parts of the batch lose nothing to half precision.
        sums = [torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) for each in parameters]
        for images in self._parts(features):
            of_part, of_parameters = self._part_gradients(
                _laid_out(gradient[images]), _laid_out(features[images]), wanted, *parameters
            )
            if of_part is not None and len(of_part) == len(features):
                of_features = of_part.contiguous(memory_format=layout_of(features))
            elif of_part is not None:
                if of_features is None:
                    of_features = torch.empty_like(features)
                of_features[images] = of_part
            for total, each in zip(sums, of_parameters, strict=True):
                total += each
        return of_features, tuple(sums)

    def _part(self, features: Tensor, *parameters: Tensor) -> Tensor:
        weight, bias = (*parameters, None)[:2]
        assert weight is not None
        return F.conv2d(features, weight, bias, self.stride, self.padding)

    def _part_gradients(self, gradient: Tensor, features: Tensor, wanted: bool, *parameters: Tensor) -> Gradients:
        biased = len(parameters) == 2
        of_features, *others = torch.ops.aten.convolution_backward(
            gradient,
            features,
            parameters[0],
            [self.out_channels] if biased else None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            1,
            [wanted, True, biased],
        )
        return of_features, tuple(others[: len(parameters)])

    def _parts(self, features: Tensor) -> Iterator[slice]:
        count = len(features)
        at_once = max(_ELEMENTS_AT_ONCE // self._largest(features), 1) if features.device.type == "cpu" else count
        return (slice(start, start + at_once) for start in range(0, count, at_once))

    def _largest(self, features: Tensor) -> int:
        """Return the elements per image of the largest tensor."""
        height, width = features.shape[2:]
        return max(self.in_channels, self.out_channels) * height * width


class UpsampledConvolution(Convolution):
    """Bilinear resizing with aligned corners, then a 3x3 convolution with zero padding and bias: one linear map.

    Evaluated as written or folded, whichever `folds` says; the parameters are those of the convolution. In half
    precision the interpolation's coefficients are rounded like all other factors. There is no second derivative.

    Args:
        channels: C of the features.
        outputs: O.
        features: height and width of the features.
        size: height and width after resizing.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, channels: int, outputs: int, features: tuple[int, int], size: tuple[int, int]) -> None:
        super().__init__(channels, outputs, kernel_size=3, padding=1)
        self.size = size
        self.folded = folds((channels, *features), size)
        # float64, so that they are exact in whatever the network computes; small beside anything else.
        self.register_buffer("rows", shifted_interpolation(features[0], size[0]), persistent=False)
        self.register_buffer("columns", shifted_interpolation(features[1], size[1]), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, O, *size]`` of features ``[B, C, H, W]``; under autocast in its dtype."""
        output: Tensor = _Upsampled.apply(self, input, self.weight, self.bias)
        return output

    def _part(self, features: Tensor, *parameters: Tensor) -> Tensor:
        if not self.folded:
            return super()._part(self._resized(features), *parameters)
        weight, bias = parameters
        return self._folded(features, weight).add_(bias[:, None, None])

    def _part_gradients(self, gradient: Tensor, features: Tensor, wanted: bool, *parameters: Tensor) -> Gradients:
        if not self.folded:
            of_resized, others = super()._part_gradients(gradient, self._resized(features), wanted, *parameters)
            return None if of_resized is None else self._resized_backward(of_resized), others
        sums, kernel = self._folded_backward(gradient), self._kernel(parameters[0])
        count, channels, height, width = features.shape
        of_kernel = (_pixels(features).T @ sums).view(channels, 3, 3, -1)
        of_features = None
        if wanted:
            of_features = (sums @ kernel.T).view(count, height, width, channels).permute(0, 3, 1, 2)
        return of_features, (of_kernel.permute(3, 0, 2, 1), gradient.sum((0, 2, 3)))

    def _largest(self, features: Tensor) -> int:
        height, width = features.shape[2:]
        if not self.folded:
            return max(self.in_channels, self.out_channels) * self.size[0] * self.size[1]
        return self.out_channels * max(9 * height * width, 3 * height * self.size[1], self.size[0] * self.size[1])

    def _resized(self, features: Tensor) -> Tensor:
        return F.interpolate(features, size=self.size, mode="bilinear", align_corners=True)

    def _resized_backward(self, gradient: Tensor) -> Tensor:
        """Go back through the resizing by its matrices: on a GPU the built-in way adds up in any order."""
        rows, columns = (each[:, 1::3].to(gradient.dtype) for each in (self.rows, self.columns))
        return torch.einsum("bcij,ik,jl->bckl", gradient, rows, columns)

    def _kernel(self, weight: Tensor) -> Tensor:
        """Return the weight as ``[C, (dx, dy, O)]``."""
        return weight.permute(1, 3, 2, 0).reshape(self.in_channels, -1)

    def _folded(self, features: Tensor, weight: Tensor) -> Tensor:
        """Return ``[b, O, *size]``, in channels_last and without the bias."""
        count, _, height, width = features.shape
        outputs = self.out_channels
        sums = (_pixels(features) @ self._kernel(weight)).view(count, height, width, 3, 3 * outputs)
        sums = sums.movedim(1, 3).reshape(count, 3 * width, -1)
        wide = Interpolation(self.columns).apply(sums).view(count, self.size[1], 3 * height, outputs)
        result = Interpolation(self.rows).apply(wide.transpose(1, 2).reshape(count, 3 * height, -1))
        return result.view(count, *self.size, outputs).permute(0, 3, 1, 2)

    def _folded_backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient ``[b * H * W, (dx, dy, O)]`` of the convolution's sums before interpolation."""
        count, outputs = gradient.shape[:2]
        height, width = self.rows.shape[1] // 3, self.columns.shape[1] // 3
        flat = gradient.permute(0, 2, 3, 1).reshape(count, self.size[0], -1)
        wide = Interpolation(self.rows).apply_transposed(flat).view(count, 3 * height, self.size[1], outputs)
        sums = Interpolation(self.columns).apply_transposed(wide.transpose(1, 2).reshape(count, self.size[1], -1))
        return sums.view(count, width, 3, height, 3 * outputs).movedim(3, 1).reshape(-1, 9 * outputs)


class MeanOfPositions(GlobalAveragePool):
    """Global average pool that is differentiated by hand."""

    def evaluate(self, features: Tensor) -> Tensor:
        """Return ``[B, C]`` of features ``[B, C, H, W]``."""
        return features.mean(dim=(2, 3))

    def gradients(self, gradient: Tensor, features: Tensor, wanted: bool) -> Gradients:
        """Return the features' gradient ``[B, C, H, W]`` of the output's ``[B, C]``."""
        height, width = features.shape[2:]
        return (gradient / (height * width))[:, :, None, None].expand_as(features), ()


class _Upsampled(torch.autograd.Function):
    """An `UpsampledConvolution` by itself; keeps the features and nothing else."""

    @staticmethod
    def forward(ctx: Any, layer: UpsampledConvolution, features: Tensor, *parameters: Tensor) -> Tensor:
        ctx.layer, ctx.dtype = layer, computing_dtype(features)
        ctx.save_for_backward(features, *parameters)
        with full_precision(features):
            output = layer.evaluate(features.to(ctx.dtype), *(each.to(ctx.dtype) for each in parameters))
        return output.contiguous(memory_format=layout_of(features))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        features, *parameters = (each.to(ctx.dtype) for each in ctx.saved_tensors)
        given = gradients[0].to(ctx.dtype)
        of_features, others = ctx.layer.gradients(given, features, ctx.needs_input_grad[1], *parameters)
        return None, of_features, *others


def computing_dtype(features: Tensor) -> torch.dtype:
    """Return the dtype in which autocast would have these features ``[B, ...]`` convolved."""
    device = features.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return features.dtype


def layout_of(features: Tensor) -> torch.memory_format:
    """Return how features ``[B, C, H, W]`` lie in memory."""
    last = features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _laid_out(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last) if features.device.type == "cpu" else features


def _pixels(features: Tensor) -> Tensor:
    """Return ``[B * H * W, C]``."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
