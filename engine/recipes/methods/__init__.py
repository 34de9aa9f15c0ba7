"""Finds the settings of every method: each file in this folder may define some, told apart by their `kind`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field

from engine.recipes.method_settings import MethodSettings
from engine.recipes.own_methods import OwnMethods


def _kind(settings: type) -> str | None:
    if not dataclasses.is_dataclass(settings):
        return None
    annotation = get_type_hints(settings).get("kind")
    return get_args(annotation)[0] if get_origin(annotation) is Literal else None


def _discover() -> dict[str, type[MethodSettings]]:
    found: dict[str, type[MethodSettings]] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            kind = _kind(value) if isinstance(value, type) and value.__module__ == module.__name__ else None
            if kind is not None and issubclass(value, MethodSettings):
                found[kind] = value
    return found


METHODS: dict[str, type[MethodSettings]] = _discover()
"""Settings class of each method, by its `kind`."""

if TYPE_CHECKING:
    Method = MethodSettings
else:
    _shipped = tuple(METHODS.values())
    Method = Annotated[Union[_shipped], Field(discriminator="kind"), OwnMethods(_shipped)]  # noqa: UP007

__all__ = ["METHODS", "Method"]
