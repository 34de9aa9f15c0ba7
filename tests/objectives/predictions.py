"""What do the tests of mimicry and of its divergences share: the divergences by name, and predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from engine.objectives import jeffreys, jensen_shannon, kl_divergence, reverse_kl
from engine.recipes import Divergence
from engine.streams import generator

BATCH, CLASSES = 6, 5
LABELS = torch.arange(BATCH) % CLASSES
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "kl": kl_divergence,
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "jensen_shannon": jensen_shannon,
}
DIVERGENCES = get_args(Divergence)


def logits_of(*key: str | int, batch: int = BATCH) -> Tensor:
    return 2.0 * torch.randn(batch, CLASSES, generator=generator("logits", *key))
