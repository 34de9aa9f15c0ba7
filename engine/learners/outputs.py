"""Outputs of a learner: the messages that it gives, also once it has left its cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.learners.role import Output


class Outputs:
    """Messages in the order of a role.

    Args:
        states: what is stated, in this order.
        dtype: of the messages.
        device: where they are made.
    """

    def __init__(self, states: tuple[Output, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.states = states
        self._dtype = dtype
        self._device = device
        self.shapes: dict[str, list[int]] = {}
        """Of what was stated, without the batch axis; empty before the first output."""
        self.diverged: str | None = None
        """Why there is nothing to state any more: the learner has left its cohort. None while it trains."""

    @property
    def restated(self) -> tuple[Output, ...]:
        """What is stated anew after an update: all but the features, which the next segment has taken already."""
        return tuple(name for name in self.states if name != "features")

    def state(self, names: tuple[Output, ...], values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the named values, each [B, ...], detached."""
        stated = {name: values[name].detach().to(self._dtype) for name in names}
        self.shapes |= {name: list(value.shape[1:]) for name, value in stated.items()}
        return tuple(stated.values())

    def nothing(self, names: tuple[Output, ...], rows: int) -> tuple[Tensor, ...]:
        """Return NaN of the shape of earlier outputs for a batch of ``rows``: who takes it leaves it out."""
        return tuple(
            torch.full((rows, *self.shapes[name]), math.nan, dtype=self._dtype, device=self._device) for name in names
        )

    def or_nothing(self, value: Tensor) -> Tensor:
        """Return a tensor while the learner trains, and NaN of its shape once it has left its cohort."""
        return value if self.diverged is None else torch.full_like(value, math.nan)
