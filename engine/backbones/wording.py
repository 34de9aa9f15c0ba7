"""Wording of this package's messages: nearest names, and errors of other code in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return the three known names most like a wrong one."""
    return ", ".join(difflib.get_close_matches(wrong, list(known), n=3, cutoff=0.0))


def one_line(error: Exception) -> str:
    """Return an error's kind and first line of text."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
