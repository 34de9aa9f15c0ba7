"""The outcome of a command, to be printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import EXIT_SUCCESS


@dataclass(frozen=True)
class Outcome:
    """What a command found out, for people and for programs.

    Attributes:
        lines: printed to stdout without ``--json``.
        values: printed to stdout as one JSON object with ``--json``.
        exit_code: how the command ended.
    """

    lines: Sequence[str]
    values: dict[str, Any]
    exit_code: int = EXIT_SUCCESS


def strict_json(value: Any) -> Any:
    """Return JSON values in which NaN and infinity, which JSON does not have, are null."""
    if isinstance(value, dict):
        return {str(name): strict_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Return rows of cells as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
