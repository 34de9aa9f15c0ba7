"""Base class of every part of a recipe or plan: a frozen, keyword-only dataclass that checks itself."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, model_serializer
from pydantic.dataclasses import dataclass as validated_dataclass
from typing_extensions import dataclass_transform

_Settings = TypeVar("_Settings")

Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a class a frozen dataclass whose values are checked: unknown names, NaN and infinity are refused."""
    config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )
    made: Any = validated_dataclass(frozen=True, kw_only=True, config=config)(cls)
    return made


def names(value: Any) -> Any:
    """Return a list of names out of a text with commas, a list, or a single number; all else as it is, to be refused.

    Classes and blocks may be called 0, 1, 2, ..., as those of a Sequential are, which a command line takes for numbers.
    """
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)):
        return [_named(part) for part in value]
    named = _named(value)
    return value if named is value else [named]


def _named(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def left_out_unless_given(*names: str) -> Any:
    """Return a serializer for the body of a settings class that leaves out what is None of these fields.

    Fields that came later than others do not change the identity of recipes that do not use them.
    """

    def serialize(self: Any, handler: Any) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {name: value for name, value in dumped.items() if value is not None or name not in names}

    return model_serializer(mode="wrap")(serialize)
