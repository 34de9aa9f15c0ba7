"""What every part of a recipe or plan is made of: a frozen, keyword-only dataclass that checks itself."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field
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
