"""Sizes of a network's features and children, before anything is allocated or computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.backbones.layouts import FeatureLayout, LayoutError, layout_of
from engine.errors import RecipeError
from engine.reading import one_line


def feature_shapes(network: nn.Sequential, image_shape: tuple[int, int, int]) -> tuple[FeatureLayout, ...]:
    """Return the shape of every child's output without the batch axis, in the layout that the child states.

    Runs on meta tensors, so it allocates nothing, and on a copy in evaluation mode, so the network stays untouched.

    Raises:
        RecipeError: a child cannot take its input, does not give one tensor, or states a layout that this has not.
    """
    return tuple(shapes_in_turn(network, image_shape))


def shapes_in_turn(network: nn.Sequential, image_shape: tuple[int, int, int]) -> Iterator[FeatureLayout]:
    """Yield `feature_shapes` one by one, so that those before a child that raises are known."""
    features = torch.empty(1, *image_shape, device="meta")
    for name, child in meta_copy(network).named_children():
        shape = tuple(features.shape[1:])
        try:
            with torch.no_grad():
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
        yield layout_of(child, name, tuple(features.shape[1:]))


def parameter_counts(network: nn.Sequential) -> dict[str, int]:
    """Return the number of parameters of each child, by name."""
    return {name: sum(weight.numel() for weight in child.parameters()) for name, child in network.named_children()}


def meta_copy(network: nn.Sequential) -> nn.Sequential:
    """Return a copy in evaluation mode whose parameters and buffers are on the meta device; nothing is allocated."""
    return on_meta(network).eval()


def on_meta(network: nn.Sequential) -> nn.Sequential:
    """Return a copy as `meta_copy` in the mode of the network; what blocks share is shared in the copy, too."""
    # deepcopy takes what its memo holds as copied already, so no real tensor is duplicated on the way.
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in network.parameters()
    }
    memo.update((id(buffer), buffer.to("meta")) for buffer in network.buffers())
    return copy.deepcopy(network, memo)


@contextmanager
def naming_block(
    block: str, network: nn.Sequential, image_shape: tuple[int, int, int], there: str, otherwise: str
) -> Iterator[None]:
    """Let a `LayoutError` inside say which block gives the features, and what to do.

    Args:
        block: name of the block.
        network: the whole network.
        image_shape: (C, H, W) of one image.
        there: what to do if other blocks give features that are taken, such as "cut after one of these"; "" if what
            is taken cannot be chosen.
        otherwise: what to do in any case, such as "choose method.kind=end_to_end".

    Raises:
        RecipeError: instead of the `LayoutError`.
    """
    try:
        yield
    except LayoutError as error:
        shapes = feature_shapes(network, image_shape)[:-2]
        fit = [name for name, shape in zip(network._modules, shapes, strict=False) if isinstance(shape, error.wanted)]
        remedy = f"{there} ({', '.join(fit)}), or {otherwise}" if there and fit else otherwise
        raise RecipeError(f"block {block!r} gives {error.found}, but {error.takes}: {remedy}") from None
