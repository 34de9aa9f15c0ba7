"""How well can the image be rebuilt from the features: binary cross-entropy of a decoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.objective import Context, Term, TermValue, full_precision


def reconstruction_loss(logits: Tensor, pixels: Tensor) -> Tensor:
    """Return the mean binary cross-entropy in nats of predicted pixels against the image.

    InfoPro (Wang et al. 2021): -loss bounds I(h; x) from below, up to the constant H(x). Targets are not binary, so
    the least value is the mean entropy of a pixel, not 0: 0.5 for uniform noise; predicting 0.5 gives ln 2.
    The sigmoid of the published decoder is part of the loss, which is the same value without its rounding.

    Args:
        logits: ``[B, C, H, W]``, any floating dtype, before the sigmoid.
        pixels: ``[B, C, H, W]`` in [0, 1]; no gradient flows into it.

    Returns:
        float32 scalar.
    """
    with full_precision(logits):
        loss: Tensor = _BinaryCrossEntropy.apply(logits.float(), pixels.detach().float())
        return loss


class _BinaryCrossEntropy(torch.autograd.Function):
    """The mean over all pixels, which keeps its gradient instead of logits and pixels: one tensor for two."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(torch.sigmoid(logits).sub_(pixels))
        return F.binary_cross_entropy_with_logits(logits, pixels)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (error,) = ctx.saved_tensors
        return (error * gradients[0]).div_(error.numel()), None


class Reconstruction(Term):
    """Reconstruction loss of a decoder that maps features ``[B, C, h, w]`` to the logits of ``Context.pixels``."""

    name = "reconstruction"
    needs_pixels = True

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        assert context.pixels is not None, "the reconstruction term was called without pixels"
        return TermValue(reconstruction_loss(self.decoder(features), context.pixels))
