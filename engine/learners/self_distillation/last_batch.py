"""Self-distillation from the last mini-batch (DLB)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from engine.data import NO_LABEL, Batch, on_device
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation
from engine.objectives import Classification, Mimicry

PREVIOUS = "previous"
"""Name of the previous batch's old logits among the messages of the pass that sees its images again."""


class LastBatch(SelfDistillation):
    """DLB (Shen et al. 2022): each image is seen in two steps that follow one another, augmented differently.

    Its first view is learned from the label alone; its second, one step later, also from what was said of the first.
    Cross-entropy is one mean over the labelled images of both passes, as in the released code, each of which has batch
    statistics of its own. The last batch of an epoch is seen again at the beginning of the next one.
    """

    def __init__(self) -> None:
        self._second_view: dict[str, Tensor] = {}
        self._previous: dict[str, Tensor] = {}

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return a pass of this batch's first view, and one of the previous batch's second view if there was one."""
        rows = len(batch.labels) // 2
        labels = on_device(batch.labels[:rows], torch.device("cpu"))
        self._second_view = {"pixels": pixels[rows:], "labels": labels}
        first = Pass(FIRST, pixels[:rows], on_device(labels, pixels.device), terms={Classification.name: 1.0})
        if not self._previous:
            return Passes(first)
        own, others = _shares(labels, self._previous["labels"])
        previous = {name: on_device(value, pixels.device) for name, value in self._previous.items()}
        again = Pass(
            PREVIOUS,
            previous["pixels"],
            previous["labels"],
            terms={Classification.name: others, Mimicry.name: 1.0},
            messages={PREVIOUS: previous["logits"]},
        )
        return Passes(replace(first, terms={Classification.name: own}), further=(again,))

    def finish(self, predictions: Tensor) -> None:
        """Keep the second view, its labels, and what was said of the first view."""
        # Copies: a part of the batch would hold all of it.
        self._previous = {name: value.clone() for name, value in self._second_view.items()}
        self._previous["logits"] = predictions.float()

    @property
    def bytes(self) -> int:
        """Bytes of the second views of this batch and of the one before."""
        kept = (*self._second_view.values(), *self._previous.values())
        return sum(value.numel() * value.element_size() for value in kept)

    def state(self) -> dict[str, Tensor]:
        """Return what was kept of the last batch; empty before the first step."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self._previous.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `state` returned."""
        self._previous = dict(tensors)


def _shares(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return what part each of two batches has in the labels of both; 1 where the other one has none."""
    own, others = (int((labels != NO_LABEL).sum()) for labels in (first, second))
    # The mean over no labels is 0, whatever its factor.
    return (own / (own + others), others / (own + others)) if own and others else (1.0, 1.0)
