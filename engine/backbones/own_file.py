"""Networks of the user's own, named ``path/to/file.py:function``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from engine.backbones.layouts import FeatureLayout, Maps, stated_by
from engine.backbones.shapes import feature_shapes, on_meta, shapes_in_turn
from engine.errors import RecipeError
from engine.reading import one_line
from engine.recipes.own_files import own_module
from engine.recipes.problems import three_nearest


def call_own(
    name: str, num_classes: int, image_shape: tuple[int, int, int], options: Mapping[str, object]
) -> nn.Sequential:
    """Return what ``function(num_classes, image_shape, **options)`` of a file returns.

    Relative paths start at the current directory. Where the default device is the meta device, the function is called
    there, without memory, and only if that fails on the CPU, after which the network is moved.

    Raises:
        RecipeError: file or function is missing or fails, or the result is no flat network that can be cut.
    """
    is_on_meta = torch.get_default_device().type == "meta"
    # What a file computes when it is read stays for as long as this process lives.
    with torch.device("cpu"):
        function = _function(name)
    if is_on_meta:
        # Options may come from somebody's file, whose network need not be as large as they say.
        with contextlib.suppress(Exception):
            # Parts that were made when the file was read lie on the CPU.
            return on_meta(_checked(function(num_classes, image_shape, **options), name, num_classes, image_shape))
    # Code may read the numbers that it makes, such as rates from torch.linspace: meta tensors have none.
    with torch.device("cpu"):
        try:
            made = function(num_classes, image_shape, **options)
        except Exception as error:
            raise RecipeError(
                f"backbone.name={name}: the call function({num_classes}, {image_shape}, **{dict(options)}) failed with "
                f"{one_line(error)}. Correct the file, or backbone.options."
            ) from error
    network = _checked(made, name, num_classes, image_shape)
    return on_meta(network) if is_on_meta else network


def _function(name: str) -> Callable[..., object]:
    function_name, path, module = own_module(name, "backbone.name", "function")
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RecipeError(
            f"backbone.name={name}: {path} has no function {function_name!r}. "
            f"Nearest: {three_nearest(function_name, functions) or 'it has no functions at all'}."
        )
    return function


def _checked(network: object, name: str, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Sequential:
    # A subclass may have a forward of its own, which its segments would not run.
    if type(network) is not nn.Sequential:
        raise RecipeError(
            f"backbone.name={name}: the function returned {type(network).__module__}.{type(network).__qualname__}. "
            "Expected a torch.nn.Sequential itself, whose children are the blocks and, last, the classifier."
        )
    if len(network) < 2:
        raise RecipeError(
            f"backbone.name={name}: the function returned {len(network)} children. "
            "Expected at least 2: one block and the classifier."
        )
    owner: dict[int, str] = {}
    for child_name, child in network._modules.items():
        assert child is not None
        for part in (*child.modules(), *child.parameters(), *child.buffers()):
            if owner.setdefault(id(part), child_name) != child_name:
                raise RecipeError(
                    f"backbone.name={name}: children {owner[id(part)]!r} and {child_name!r} share a "
                    f"{type(part).__name__}. Expected that no two share anything, since a cut between them "
                    "gives each its own learner: make one for each, or put both into one child."
                )
    shapes = feature_shapes(network, image_shape)
    _refuse_unstated_channels_last(network, name, image_shape, shapes)
    out = shapes[-1]
    # Whether one number or a map for each is wanted, the task knows.
    if out[:1] != (num_classes,):
        raise RecipeError(
            f"backbone.name={name}: the last child gives {out} for each image. Expected ({num_classes},), "
            "one number for each class: let the function use its num_classes."
        )
    return network


def _refuse_unstated_channels_last(
    network: nn.Sequential, name: str, image_shape: tuple[int, int, int], shapes: Sequence[FeatureLayout]
) -> None:
    """Refuse blocks that give maps [H, W, C] and do not say so: the first axis grows with the images' height."""
    unstated = [
        isinstance(shape, Maps) and stated_by(child) is None for child, shape in zip(network, shapes, strict=True)
    ]
    if not any(unstated):
        return
    channels, height, width = image_shape
    taller = shapes_in_turn(network, (channels, 2 * height, width))
    for child_name, is_unstated, shape in zip(network._modules, unstated, shapes, strict=True):
        try:
            grown = next(taller)
        except RecipeError:
            # A network that takes one size of images alone: no more can be known.
            return
        if is_unstated and grown[0] > shape[0] and grown[1:] == shape[1:]:
            raise RecipeError(
                f"backbone.name={name}: child {child_name!r} gives {tuple(shape)}, whose first axis is the height, so "
                'maps with channels last [H, W, C], which it does not state: set feature_layout = "channels_last" on '
                "it, or let it give maps [C, H, W]"
            )
