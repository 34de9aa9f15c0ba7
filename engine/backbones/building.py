"""Builds a recipe's backbone with its initial weights, and takes its classifier away again."""

from __future__ import annotations

import dataclasses

from torch import nn

from engine import streams
from engine.backbones.neck import add_neck
from engine.backbones.own_file import call_own
from engine.backbones.registry import families, find
from engine.backbones.weights import load_weights
from engine.errors import RecipeError
from engine.reading import one_line
from engine.recipes.backbone import Backbone
from engine.recipes.own_files import is_own

_NOT_OPTIONS = frozenset({"name", "weights", "weights_without", "options", "neck"})


def build(
    settings: Backbone, num_classes: int, image_shape: tuple[int, int, int], seed: int, peer: int = 0
) -> nn.Sequential:
    """Return the whole network, always built in one piece, so that its weights never depend on where it is cut.

    Under ``torch.device("meta")`` nothing is allocated, except that a function of one's own runs on the CPU first.

    Args:
        settings: the recipe's backbone.
        num_classes: outputs of the classifier.
        image_shape: (C, H, W) of one image.
        seed: the recipe's seed; with ``peer`` it decides the initial weights.
        peer: which network of a cohort this is, from 0.

    Returns:
        Float32 parameters on the CPU, training mode; flat, children named, the last one (pool, linear) the classifier.

    Raises:
        RecipeError: unknown name, an option this backbone does not have, a file of your own or of weights that
            cannot be used.
    """
    given = _given_options(settings)
    with streams.seeded(seed, "backbone", peer):
        if is_own(settings.name):
            if given:
                unset = " ".join(f"backbone.{option}=null" for option in given)
                raise RecipeError(
                    f"backbone.{next(iter(given))} is not given to a function of your own ({settings.name}). "
                    f"Set {unset}, and put the function's keyword arguments into backbone.options."
                )
            network = call_own(settings.name, num_classes, image_shape, settings.options)
        else:
            _check_options(settings, given)
            network = _built(settings.name, num_classes, image_shape, given)
        if settings.neck is not None:
            add_neck(network, settings.name)
    if settings.weights is not None:
        load_weights(network, settings.name, settings.weights, settings.weights_without)
    return network


def _built(name: str, num_classes: int, image_shape: tuple[int, int, int], given: dict[str, object]) -> nn.Sequential:
    try:
        return find(name).builder(name, num_classes, image_shape, **given)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise RecipeError(
            f"backbone.name={name}: could not be made for {num_classes:,} classes and images of {image_shape} with "
            f"{given or 'its usual options'} ({one_line(error)}); choose a smaller network"
        ) from error


def _given_options(settings: Backbone) -> dict[str, object]:
    fields = (field.name for field in dataclasses.fields(settings) if field.name not in _NOT_OPTIONS)
    values = {name: getattr(settings, name) for name in fields}
    return {name: value for name, value in values.items() if value is not None}


def _check_options(settings: Backbone, given: dict[str, object]) -> None:
    family = find(settings.name)
    for option, value in given.items():
        if option not in family.options:
            takers = [f"{other.title} ({', '.join(other.listed)})" for other in families() if option in other.options]
            raise RecipeError(
                f"backbone.{option}={value}: {settings.name} is a {family.title}, which has no such option. "
                f"Only these have: {'; '.join(takers)}. Leave the field out, or set "
                f"backbone.{option}=null."
            )
    if settings.options:
        raise RecipeError(
            f"backbone.options={settings.options}: only a function of your own (path/to/file.py:function) takes them, "
            f"not {settings.name}, whose options are: {', '.join(sorted(family.options)) or 'none'}. Leave them "
            "out, or set backbone.options={}."
        )


def without_classifier(network: nn.Sequential) -> nn.Sequential:
    """Replace the last linear layer of a network by nothing, and return the network.

    It then maps images ``[B, C, H, W]`` to features ``[B, D]``.
    """
    name = next(name for name, module in reversed(list(network.named_modules())) if isinstance(module, nn.Linear))
    parent, _, last = name.rpartition(".")
    network.get_submodule(parent).add_module(last, nn.Identity())
    return network
