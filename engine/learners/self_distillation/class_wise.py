"""Class-wise self-knowledge distillation (CS-KD): pairs of images of one class."""

from __future__ import annotations

from torch import Tensor

from engine.data import Batch, on_device
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation

SAME_CLASS = "same_class"
"""Name of the predictions for the paired images among the messages of the first pass."""


class SameClass(SelfDistillation):
    """CS-KD (Yun et al. 2020): an image learns from what the network says of another image of its class.

    As in the released code, the paired images are seen without a graph but in training mode, so they count in the
    running statistics of batch norms, and nothing is learned from their labels.

    Args:
        consults: whether the paired images are looked at; not if what is learned from them has no weight.
    """

    def __init__(self, consults: bool) -> None:
        self._consults = consults

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return a pass of the images, and one of their paired images that is only consulted."""
        labels = on_device(batch.labels, pixels.device)
        rows = len(labels) // 2
        first = Pass(FIRST, pixels[:rows], labels[:rows])
        if not self._consults:
            return Passes(first)
        return Passes(first, consulted=(Pass(SAME_CLASS, pixels[rows:], labels[rows:]),))
