"""Registry of the families of backbones.

A family is a file of this package with one function under ``@family``; adding a backbone adds such a file.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from engine.errors import RecipeError
from engine.recipes.problems import three_nearest

Builder = Callable[..., nn.Sequential]

_families: list[Family] = []


@dataclass(frozen=True)
class Family:
    """Networks that one function builds.

    Attributes:
        title: the family in a few words, such as ``CIFAR ResNet``.
        listed: the names to show, each with one line of description.
        pattern: also accepts every name that it matches completely.
        builder: called with name, num_classes, image_shape (C, H, W) and the options among its keywords.
        options: fields of the recipe's ``backbone`` that this family honours.
        plain_prefix: the prefix that a child's weights have in the ordinary module, ``""`` for none.
    """

    title: str
    listed: Mapping[str, str]
    pattern: re.Pattern[str] | None
    builder: Builder
    options: frozenset[str]
    plain_prefix: Callable[[str], str]


def family(
    title: str, listed: Mapping[str, str], plain_prefix: Callable[[str], str], pattern: str | None = None
) -> Callable[[Builder], Builder]:
    """Register a function ``(name, num_classes, image_shape, *, options...)`` as the builder of a family.

    What its arguments mean is told at `Family`; ``pattern`` is a regular expression.
    """

    def register(builder: Builder) -> Builder:
        parameters = inspect.signature(builder).parameters.values()
        options = frozenset(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
        taken = [name for known in _families for name in known.listed if name in listed]
        assert not taken, f"two families list {taken}"
        compiled = re.compile(pattern) if pattern else None
        _families.append(Family(title, dict(listed), compiled, builder, options, plain_prefix))
        return builder

    return register


@functools.cache
def families() -> tuple[Family, ...]:
    """Return all families, in the order of their files' names."""
    package = __name__.rpartition(".")[0]
    for module in sorted(pkgutil.iter_modules([str(Path(__file__).parent)]), key=lambda found: found.name):
        importlib.import_module(f"{package}.{module.name}")
    return tuple(sorted(_families, key=lambda known: known.builder.__module__))


def names() -> dict[str, str]:
    """Return every listed name with one line of description; nothing is built."""
    return {name: line for known in families() for name, line in known.listed.items()}


def find(name: str) -> Family:
    """Return the family of a name.

    A listed name goes before a pattern: resnet50 is torchvision's, although 50 = 6 * 8 + 2.

    Raises:
        RecipeError: no family has this name.
    """
    for known in families():
        if name in known.listed:
            return known
    for known in families():
        if known.pattern is not None and known.pattern.fullmatch(name):
            return known
    raise RecipeError(
        f"backbone.name={name}: there is no such backbone. Nearest: {three_nearest(name, names())}. "
        "`local-learning list` shows all; path/to/file.py:function is one of your own."
    )


def whole_blocks(name: str, depth: int, layers: int, others: int) -> int:
    """Return n of a depth = layers * n + others.

    Raises:
        RecipeError: this depth has no such n >= 1.
    """
    count, rest = divmod(depth - others, layers)
    if count < 1 or rest:
        least = max(count, 1)
        near = [name.replace(str(depth), str(layers * n + others), 1) for n in (least, least + 1)]
        raise RecipeError(
            f"backbone.name={name}: depth {depth} is not {layers} n + {others} with n >= 1, as this family needs. "
            f"Nearest: {', '.join(near)}."
        )
    return count
