"""Dotted names of nested settings, as they are given on a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def dotted_fields(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under one dotted name each, such as ``data.batch_size``.

    Args:
        values: plain values and dictionaries of them.
        prefix: what stands before each name.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= dotted_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
