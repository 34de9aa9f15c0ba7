"""Mixed images: which images of a batch are mixed, and the losses on mixed ones."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from engine.data import Batch, on_device
from engine.knowledge.mixing import Mixing, draw_mixing, mix
from engine.learners.role import Role
from engine.learners.self_distillation.passes import FIRST, Pass, Passes, SelfDistillation
from engine.objectives import MixedLabels


class Mixer:
    """Decides whether and how the images of a batch are mixed, a pure function of (seed, epoch, step) and the batch.

    Args:
        role: whose random stream is drawn from.
        style: ``mixup``, ``cutmix``, or ``compound``, either with equal chance.
        probability: chance that a batch is mixed.
        mixup_alpha: both parameters of the Beta distribution of Mixup's lambda.
        cutmix_alpha: both parameters of the Beta distribution of CutMix's lambda.
        warmup_epochs: epochs at the beginning in which nothing is mixed.
        second_batch: whether the second images are the batch's paired images, not images of the batch itself.
    """

    def __init__(
        self,
        role: Role,
        style: Literal["mixup", "cutmix", "compound"],
        probability: float,
        mixup_alpha: float,
        cutmix_alpha: float,
        warmup_epochs: int,
        second_batch: bool,
    ) -> None:
        self._role, self._style, self._probability = role, style, probability
        self._mixup_alpha, self._cutmix_alpha = mixup_alpha, cutmix_alpha
        self._warmup_epochs, self._second_batch = warmup_epochs, second_batch

    def rows(self, batch: Batch) -> int:
        """Return how many images the batch has without paired images; they come first."""
        return len(batch.labels) // 2 if self._second_batch else len(batch.labels)

    def draw(self, batch: Batch, pixels: Tensor) -> Mixing | None:
        """Return how the images are mixed, or None if they are not.

        Args:
            batch: its images, with their paired images behind them where these are mixed in.
            pixels: float32 [rows, C, H, W], of which only the size counts.
        """
        if batch.epoch < self._warmup_epochs:
            return None
        return draw_mixing(
            (self._role.seed, self._role.stream, "mixing", batch.epoch, batch.step),
            self._style,
            self._probability,
            self._mixup_alpha,
            self._cutmix_alpha,
            batch.indices,
            pixels.shape[-2],
            pixels.shape[-1],
            self._second_batch,
        )


class DataMix(SelfDistillation):
    """Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): L = lambda CE(z, y_1) + (1 - lambda) CE(z, y_2).

    Args:
        mixer: decides what is mixed, within the batch.
    """

    def __init__(self, mixer: Mixer) -> None:
        self._mixer = mixer

    def passes(self, batch: Batch, pixels: Tensor) -> Passes:
        """Return one pass: on mixed images, or on the batch's own just as they are."""
        labels = on_device(batch.labels, pixels.device)
        mixing = self._mixer.draw(batch, pixels)
        if mixing is None:
            return Passes(Pass(FIRST, pixels, labels))
        second, share = labels[on_device(mixing.partner, labels.device)], on_device(mixing.share, labels.device)
        return Passes(Pass(FIRST, mix(pixels, mixing), labels, MixedLabels(second, share)))
