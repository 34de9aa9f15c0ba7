"""Base class of every part of a recipe or plan: a frozen, keyword-only dataclass that checks itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, ValidationError, WrapValidator, model_serializer
from pydantic.dataclasses import dataclass as validated_dataclass
from typing_extensions import dataclass_transform

from engine.errors import InputError, PlanError, RecipeError
from engine.recipes.problems import describe_problems, field_names

_Settings = TypeVar("_Settings")


def _as_text(value: Any, handler: Callable[[Any], Any]) -> Any:
    return handler(os.fspath(value) if isinstance(value, os.PathLike) else value)


# Not before: a word for a field whose values may be anything at first is taken for a number if it looks like one.
PathText = Annotated[str, WrapValidator(_as_text)]
"""A path, given as text or as `os.PathLike`, and kept as text."""

Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a class a frozen dataclass whose values are checked: unknown names, NaN and infinity are refused.

    Calling it, and so `dataclasses.replace`, raises `RecipeError` with a line for each wrong value.
    """
    return _checked(cls, RecipeError)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def plan_settings(cls: type[_Settings]) -> type[_Settings]:
    """Make a class what `settings` does, for a part of a plan: wrong values raise `PlanError`."""
    return _checked(cls, PlanError)


def _checked(cls: type[_Settings], refusal: type[InputError]) -> type[_Settings]:
    config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )
    made: Any = validated_dataclass(frozen=True, kw_only=True, config=config)(cls)
    check = made.__init__

    # Only what is called in Python comes here: plain values, as of a file, are checked as a whole by their reader.
    @functools.wraps(check)
    def __init__(self: Any, *values: Any, **named: Any) -> None:
        try:
            check(self, *values, **named)
        except ValidationError as error:
            lines = describe_problems(error, made, field_names(made, {}))
            raise refusal("\n".join(f"{made.__name__}: {line}" for line in lines)) from error

    made.__init__ = __init__
    return made


def without_numpy(value: Any) -> Any:
    """Return what a number or array of NumPy holds as Python's own values; all else as it is."""
    # Which is not imported for this: whoever gives one has it.
    return value.tolist() if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist") else value


def plain_option(value: Any) -> Any:
    """Return a value that a recipe.json keeps as it is, or a list of such; NumPy's numbers and arrays as Python's own.

    Raises:
        ValueError: it is of another type, which would have to be changed into one of these.
    """
    plain = without_numpy(value)
    parts = [without_numpy(part) for part in plain] if type(plain) in (list, tuple) else [plain]
    for part in parts:
        if type(part) not in (bool, int, float, str):
            raise ValueError(
                f"found {str(part)[:100]} of the type {type(part).__name__}, expected true, false, a number, a text, "
                "or a list of these"
            )
    return parts if type(plain) in (list, tuple) else plain


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
