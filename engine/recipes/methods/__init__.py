"""Finds the settings of every method: each file in this folder may define some, told apart by their `kind`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field


def _kind(settings: type) -> str | None:
    if not dataclasses.is_dataclass(settings):
        return None
    annotation = get_type_hints(settings).get("kind")
    return get_args(annotation)[0] if get_origin(annotation) is Literal else None


def _discover() -> dict[str, type]:
    found: dict[str, type] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            kind = _kind(value) if isinstance(value, type) and value.__module__ == module.__name__ else None
            if kind is not None:
                found[kind] = value
    return found


METHODS: dict[str, type] = _discover()
"""Settings class of each method, by its `kind`."""

if TYPE_CHECKING:
    Method = Any
else:
    Method = Annotated[Union[tuple(METHODS.values())], Field(discriminator="kind")]  # noqa: UP007

__all__ = ["METHODS", "Method"]
