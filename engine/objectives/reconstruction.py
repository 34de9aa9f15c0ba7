"""Binary cross-entropy of a decoder that rebuilds the image from features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import on_device
from engine.objectives.convolutions import layout_of
from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.streams import generator


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
    """Reconstruction loss of a decoder that maps features ``[B, C, h, w]`` to the logits of ``Context.pixels``.

    Args:
        decoder: that is trained.
        share: of the images of each batch that are reconstructed, above 0 to 1. The mean over a part that is drawn
            anew for each batch has the mean over all images as its expected value, and so has its gradient, but that
            the decoder's batch normalisation sees the part alone.
        seed: of the recipe; with epoch and step it decides which images these are.
    """

    name = "reconstruction"
    needs_pixels = True

    def __init__(self, decoder: nn.Module, share: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        assert 0 < share <= 1
        self.decoder = decoder
        self.share, self.seed = share, seed

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        pixels = context.pixels
        assert pixels is not None, "the reconstruction term was called without pixels"
        if self.share < 1:
            rows = on_device(self._rows(len(features), context), features.device)
            # index_select forgets the order of dimensions in memory.
            features = features.index_select(0, rows).contiguous(memory_format=layout_of(features))
            pixels = pixels.index_select(0, rows)
        return TermValue(reconstruction_loss(self.decoder(features), pixels))

    def _rows(self, images: int, context: Context) -> Tensor:
        drawing = generator(self.seed, "reconstruction", context.epoch, context.step)
        number = max(1, round(self.share * images))
        return torch.randperm(images, generator=drawing)[:number].sort().values
