"""One check of `local-learning doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        status: ``problem`` where the engine cannot do without it, ``warning`` where it can.
        subject: what was looked at.
        found: how it is.
        remedy: what to do; empty where nothing needs to be done.
    """

    status: Literal["ok", "warning", "problem"]
    subject: str
    found: str
    remedy: str = ""
