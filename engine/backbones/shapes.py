"""Sizes of a network's features and children, before anything is allocated or computed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from engine.backbones.wording import one_line
from engine.errors import RecipeError

Shape = tuple[int, ...]


def feature_shapes(network: nn.Sequential, image_shape: tuple[int, int, int]) -> tuple[Shape, ...]:
    """Return the shape of every child's output without the batch axis: (C, H, W), or (num_classes,) for the last.

    Runs on meta tensors, so it allocates nothing, and on a copy in evaluation mode, so the network stays untouched.

    Raises:
        RecipeError: a child cannot take its input, or does not give one tensor.
    """
    features = torch.empty(1, *image_shape, device="meta")
    shapes: list[Shape] = []
    with torch.no_grad():
        for name, child in meta_copy(network).named_children():
            shape = tuple(features.shape[1:])
            try:
                features = child(features)
            except Exception as error:
                raise RecipeError(
                    f"backbone: child {name!r} cannot take an input of shape {shape}, which images of shape "
                    f"{tuple(image_shape)} lead to: {one_line(error)}. Choose another backbone or image size."
                ) from error
            if not isinstance(features, Tensor):
                raise RecipeError(
                    f"backbone: child {name!r} returns a {type(features).__name__}. Expected one tensor: "
                    "a learner passes exactly one to the next."
                )
            shapes.append(tuple(features.shape[1:]))
    return tuple(shapes)


def parameter_counts(network: nn.Sequential) -> dict[str, int]:
    """Return the number of parameters of each child, by name."""
    return {name: sum(weight.numel() for weight in child.parameters()) for name, child in network.named_children()}


def meta_copy(network: nn.Sequential) -> nn.Sequential:
    """Return a copy in evaluation mode whose parameters and buffers are on the meta device; nothing is allocated."""
    # deepcopy takes what its memo holds as copied already, so no real tensor is duplicated on the way.
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    memo.update((id(buffer), buffer.to("meta")) for buffer in network.buffers())
    return copy.deepcopy(network, memo).eval()
