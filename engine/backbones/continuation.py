"""Copies of a network's blocks that read other channels, or are several times as wide.

Nothing is told to a block but what it is to read: each of its layers is sized when the features reach it, so that any
blocks can follow one another whose shortcuts fit. Only structures are copied here, on the meta device.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from engine.backbones.cifar_resnet import PaddedIdentity
from engine.backbones.densenet import Compression
from engine.backbones.shapes import meta_copy
from engine.errors import RecipeError
from engine.reading import one_line

_REMEDY = "Set method.shape=linear, whose branches only pool and classify, or choose another backbone."


def continued(name: str, block: nn.Module, features: Tensor, factor: int) -> tuple[nn.Module, Tensor]:
    """Return a block made again for some features, and what it gives for them, both on the meta device.

    Convolutions and linear layers give ``factor`` times as many channels as the block's, except that a convolution of
    each channel alone keeps to its input, a DenseNet's compression to its share of it, and a transformer's layer to
    its width, while its hidden layer is ``factor`` times as wide. Everything else, such as dropout, is as in the block,
    which stays untouched and may be on any device.

    Args:
        name: of the block, for messages.
        block: a child of a network.
        features: [2, ...] on the meta device.
        factor: at least 1.

    Returns:
        the new block in training mode, its weights still without values, and its output.

    Raises:
        RecipeError: a module of the block has weights of its own and is no layer that is known here, or the sizes do
            not fit, as where a shortcut adds the narrower input to a wider output.
    """
    copied = meta_copy(nn.Sequential(block))[0]
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for layer in _layers(name, copied):
            hooks.callback(layer.register_forward_pre_hook(_Sizing(factor)).remove)
        try:
            out = copied(features)
        except Exception as error:
            wider = f" {factor} times as wide" if factor > 1 else ""
            raise RecipeError(
                f"method.shape=rich: block {name!r} cannot be repeated{wider} in a branch, after features of shape "
                f"{tuple(features.shape[1:])}: {one_line(error)}. {_REMEDY}"
            ) from error
    return copied.train(), out


class _Sizing:
    """Sizes a layer for what it is called with; once, for a layer may be called several times."""

    def __init__(self, factor: int) -> None:
        self.factor: int | None = factor

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self.factor is not None:
            _size(layer, inputs[0], self.factor)
            self.factor = None


def _layers(name: str, block: nn.Module) -> Iterator[nn.Module]:
    if _size.dispatch(type(block)) is not _size.dispatch(object) and not is_parametrized(block):
        yield block
        return
    own = [key for key, _ in (*block.named_parameters(recurse=False), *block.named_buffers(recurse=False))]
    if own:
        raise RecipeError(
            f"method.shape=rich: block {name!r} has a {type(block).__name__} with {own[0]!r}, which a branch cannot "
            "make again in another width. Expected layers of torch.nn: Conv2d, Linear, BatchNorm1d or 2d, LayerNorm, "
            f"GroupNorm, TransformerEncoderLayer. {_REMEDY}"
        )
    for child in block.children():
        yield from _layers(name, child)


@functools.singledispatch
def _size(layer: nn.Module, features: Tensor, factor: int) -> None:
    raise TypeError(f"no rule says how a {type(layer).__name__} is sized")


@_size.register
def _(layer: nn.Conv2d, features: Tensor, factor: int) -> None:
    channels, each = features.shape[1], layer.in_channels // layer.groups
    if layer.groups > 1 and each == 1:
        _size_convolution(layer, channels, channels * (layer.out_channels // layer.in_channels), channels)
    else:
        groups = channels // each if layer.groups > 1 else 1
        _size_convolution(layer, channels, layer.out_channels * factor, groups)


@_size.register
def _(layer: Compression, features: Tensor, factor: int) -> None:
    _size_convolution(layer, features.shape[1], features.shape[1] // layer.divisor, 1)


def _size_convolution(layer: nn.Conv2d, channels: int, out_channels: int, groups: int) -> None:
    layer.in_channels, layer.out_channels, layer.groups = channels, out_channels, groups
    layer.weight = _empty(layer.weight, out_channels, channels // groups, *layer.kernel_size)
    if layer.bias is not None:
        layer.bias = _empty(layer.bias, out_channels)


@_size.register
def _(layer: nn.Linear, features: Tensor, factor: int) -> None:
    _size_linear(layer, features.shape[-1], layer.out_features * factor)


def _size_linear(layer: nn.Linear, channels: int, out_features: int) -> None:
    layer.in_features, layer.out_features = channels, out_features
    layer.weight = _empty(layer.weight, out_features, channels)
    if layer.bias is not None:
        layer.bias = _empty(layer.bias, out_features)


@_size.register(nn.BatchNorm1d)
@_size.register(nn.BatchNorm2d)
def _(layer: nn.BatchNorm1d | nn.BatchNorm2d, features: Tensor, factor: int) -> None:
    layer.num_features = features.shape[1]
    if layer.affine:
        layer.weight = _empty(layer.weight, features.shape[1])
        # A neck shifts nothing.
        layer.bias = _empty(layer.bias, features.shape[1]) if layer.bias is not None else None
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean = layer.running_mean.new_empty(features.shape[1])
        layer.running_var = layer.running_var.new_empty(features.shape[1])


@_size.register
def _(layer: nn.LayerNorm, features: Tensor, factor: int) -> None:
    layer.normalized_shape = tuple(features.shape[-len(layer.normalized_shape) :])
    if layer.elementwise_affine:
        layer.weight = _empty(layer.weight, *layer.normalized_shape)
        if layer.bias is not None:
            layer.bias = _empty(layer.bias, *layer.normalized_shape)


@_size.register
def _(layer: nn.GroupNorm, features: Tensor, factor: int) -> None:
    layer.num_channels = features.shape[1]
    if layer.affine:
        layer.weight, layer.bias = (_empty(each, features.shape[1]) for each in (layer.weight, layer.bias))


@_size.register
def _(layer: nn.TransformerEncoderLayer, features: Tensor, factor: int) -> None:
    hidden = layer.linear1.out_features * factor
    _size_linear(layer.linear1, layer.linear1.in_features, hidden)
    _size_linear(layer.linear2, hidden, layer.linear2.out_features)


@_size.register
def _(layer: PaddedIdentity, features: Tensor, factor: int) -> None:
    layer.out_channels *= factor


def _empty(like: Tensor, *shape: int) -> nn.Parameter:
    return nn.Parameter(like.new_empty(shape), like.requires_grad)
