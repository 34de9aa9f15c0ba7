"""Methods of the user's own in a recipe: checked, read and written like those that are shipped."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, TypeAdapter, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema
from pydantic_core.core_schema import SerializationInfo

from engine.errors import OwnFileChanged, RecipeError
from engine.paths import absolute
from engine.recipes.method_settings import MethodSettings
from engine.recipes.own_files import digest_of_module, is_own, own_class


def own_settings(kind: str) -> type[MethodSettings]:
    """Return the settings class that ``path/to/file.py:Name`` means.

    Raises:
        RecipeError: file or class are missing, or it is no class of settings of a method.
    """
    found = own_class(kind, "method.kind")
    file = str(absolute(kind.rpartition(":")[0], "method.kind", RecipeError).resolve())
    if found.__module__ not in sys.modules or sys.modules[found.__module__].__file__ != file:
        defined = getattr(sys.modules.get(found.__module__), "__file__", None) or found.__module__
        raise RecipeError(
            f"method.kind={kind}: {found.__name__} is defined in {defined}, not in this file; name the file that "
            "defines it"
        )
    return _checked_class(found, kind)


def check_as_made(method: MethodSettings) -> None:
    """Refuse a method of one's own whose file has changed since its class was made: the file of now would not train.

    Args:
        method: of a recipe.

    Raises:
        OwnFileChanged: names the file.
    """
    now = digest_of_module(type(method).__module__)
    # Whoever needs a file that is gone says so.
    if method.source_digest is not None and now is not None and now != method.source_digest:
        raise OwnFileChanged(
            f"{method.kind.rpartition(':')[0]}: has changed since this recipe was made of it: load or build the recipe "
            "anew (where the file was imported by name, in a new process, or after importlib.reload)"
        )


def _checked_class(found: type, kind: str) -> type[MethodSettings]:
    expected = "expected a class that inherits from MethodSettings, under @settings (engine.recipes.settings)"
    if not issubclass(found, MethodSettings):
        raise RecipeError(f"method.kind={kind}: {found.__name__} is no subclass of MethodSettings; {expected}")
    # What is inherited has been decorated already, without the fields of this class.
    if "__dataclass_fields__" not in vars(found):
        raise RecipeError(f"method.kind={kind}: {found.__name__} is not decorated; {expected}")
    if "kind" in {field.name for field in dataclasses.fields(found)}:
        raise RecipeError(
            f"method.kind={kind}: {found.__name__} has a field `kind`, which stands for a method that is shipped; "
            "inherit from MethodSettings or Segmented, and leave `kind` out"
        )
    return found


class OwnMethods:
    """Part of an annotation: its choice of settings may be joined by classes of users' files.

    Args:
        shipped: returns the classes of the choice.
    """

    def __init__(self, shipped: Collection[type]) -> None:
        self._shipped = shipped

    def joined_by(self, kind: str) -> type[MethodSettings] | None:
        """Return the class that joins the choice by this word; None if the word means no file.

        Raises:
            RecipeError: there is no such class.
        """
        return own_settings(kind) if is_own(kind) else None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        """Return how values are checked and written."""
        return core_schema.no_info_wrap_validator_function(
            self._checked,
            handler(source),
            serialization=core_schema.wrap_serializer_function_ser_schema(self._written, info_arg=True),
        )

    def _checked(self, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, MethodSettings) and type(value) not in self._shipped:
            _checked_class(type(value), value.kind)
            return value
        kind = value.get("kind") if isinstance(value, dict) else None
        own = self.joined_by(kind) if isinstance(kind, str) else None
        if own is None:
            return handler(value)
        fields = {name: given for name, given in value.items() if name != "kind"}
        return TypeAdapter(own).validate_python(fields)

    def _written(self, value: Any, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        if type(value) in self._shipped:
            return handler(value)
        mode: Literal["json", "python"] = "json" if info.mode_is_json() else "python"
        return {"kind": value.kind, **TypeAdapter(type(value)).dump_python(value, mode=mode)}
