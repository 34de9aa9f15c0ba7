"""What do the tests of direct links share: a route, the messages that cross it, and a driver that never looks."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.runtimes.ray.links import Route

# Larger than what is copied anyway.
NUMBERS = 8192
ROUTE = Route("giver", "taker", ("first", "second"), 2 * NUMBERS * 8)
PATIENCE = 20.0


def _tensor(step: int) -> Tensor:
    return torch.arange(NUMBERS, dtype=torch.float32) + 1000 * step


def unseen() -> int:
    """Return how often a driver has looked that is not there."""
    return 0
