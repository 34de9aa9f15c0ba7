"""Names that checkpoints of earlier versions use, translated into those of now when they are read.

Up to version 1 a learner's counters held as ``departure`` why it has diverged, and what a self-distillation remembers
was named ``teaching.*``. Nothing else differs, so a run goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

FIRST_WITH_NAMES_OF_NOW = 2
"""The first version of checkpoints that need no translation."""

SELF_DISTILLATION = "self_distillation."
"""How the tensors are named that a self-distillation remembers."""

_DIVERGED, _DIVERGED_BEFORE = "diverged", "departure"
_SELF_DISTILLATION_BEFORE = "teaching."


def counters_of_now(counters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a learner's counters by the names of now.

    Args:
        counters: as a state.json of version 0 or 1 has them.
    """
    return {_DIVERGED if name == _DIVERGED_BEFORE else name: value for name, value in counters.items()}


def tensors_of_now(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a learner's tensors by the names of now.

    Args:
        tensors: as a file of a checkpoint of version 0 or 1 has them.
    """
    before = _SELF_DISTILLATION_BEFORE
    return {
        f"{SELF_DISTILLATION}{name.removeprefix(before)}" if name.startswith(before) else name: value
        for name, value in tensors.items()
    }
