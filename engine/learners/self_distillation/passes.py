"""Passes of a training step beyond one look at the batch, and the losses of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from engine.data import Batch
from engine.objectives import MixedLabels

FIRST = "first"
"""Name of the first pass of every step."""


@dataclass(frozen=True)
class Pass:
    """One forward pass of the body.

    Attributes:
        name: of its predictions among the messages that later passes of the step hear.
        pixels: float32 [B, C, H, W] in [0, 1], augmented and perhaps mixed.
        labels: int64 [B], on the device of the pixels.
        mixed: the second images' labels and lambda; None where images are not mixed.
        dropped: names of the residual blocks that are left out.
        scales: factors of the residual branches of blocks, by name.
        terms: factors of the terms of the objective that learn from it; of all terms once where it is None.
        messages: what its terms hear besides.
        group: of the sub-network; 0 is the full network.
        tracked: whether batch norms take its statistics into their running ones.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    mixed: MixedLabels | None = None
    dropped: frozenset[str] = frozenset()
    scales: Mapping[str, float] = field(default_factory=dict)
    terms: Mapping[str, float] | None = None
    messages: Mapping[str, Tensor] = field(default_factory=dict)
    group: int = 0
    tracked: bool = True


@dataclass(frozen=True)
class Passes:
    """The forward passes of a step, in the order in which they are run; gradients add up to one optimizer step.

    Attributes:
        first: the one whose output the learner states.
        consulted: run without a graph after the first, before anything is learned.
        further: run one after another, each after the backward pass of the one before, so memory holds one graph.
    """

    first: Pass
    consulted: tuple[Pass, ...] = ()
    further: tuple[Pass, ...] = ()


class SelfDistillation:
    """How a network teaches itself; this one does not, and its children say what differs."""

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return the passes of a step, a pure function of the batch and of what was kept before it.

        Args:
            batch: its images, with their paired images behind them where the method has some.
            pixels: float32 [rows, C, H, W] in [0, 1], all of them augmented.
        """
        raise NotImplementedError

    def hear(self, batch: Batch, messages: Mapping[str, Tensor]) -> None:
        """Take up what others of the team know of the images of this step; called before the first `recall`."""

    def told(self) -> tuple[Tensor, ...]:
        """Return what others of the team shall remember of this step."""
        return ()

    def recall(self, each: Pass, predictions: Tensor, heard: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Remember what a pass predicted, and return what is recalled for its terms.

        Args:
            each: a pass that learns.
            predictions: its class logits [B, classes].
            heard: class logits of the consulted and the earlier passes, by name.
        """
        return {}

    def finish(self, predictions: Tensor) -> None:
        """Keep what the next step needs of the first pass's class logits [B, classes], after the optimizer's step."""

    def observed(self) -> Mapping[str, float]:
        """Return what was measured in this step, for the records."""
        return {}

    @property
    def bytes(self) -> int:
        """Bytes of what is remembered."""
        return 0

    def state(self) -> dict[str, Tensor]:
        """Return what is kept from step to step, for a checkpoint; on the CPU."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""

    def knowledge(self) -> dict[str, Tensor]:
        """Return the rows of the knowledge store that changed since the last question; empty without a store."""
        return {}

    def restore_knowledge(self, rows: Mapping[str, Tensor]) -> None:
        """Take up rows that `knowledge` returned."""
