"""Cross-entropy of label maps: the class of each pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.interpolation import enlarged
from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.recipes.tasks import PixelMean

IGNORED = 255
"""The value in label maps of pixels without a class."""


def pixel_cross_entropy(logits: Tensor, labels: Tensor, mean: PixelMean, *, align_corners: bool = False) -> Tensor:
    """Return the cross-entropy per pixel of logits that are enlarged to the size of the labels.

    Args:
        logits: ``[B, C, h, w]``, any floating dtype.
        labels: uint8 ``[B, H, W]``, 0 to C - 1, or 255 where a pixel has no class.
        mean: ``labelled`` divides the sum by the number of pixels with a class, as InfoPro's local heads do; ``all`` by
            that of all pixels, as the final heads of its code do (mmsegmentation 0.10).
        align_corners: of the bilinear enlarging: False for the final heads of that code, True for its local ones.

    Returns:
        float32 scalar in nats; 0 with gradient 0 if no pixel has a class.
    """
    with full_precision(logits):
        height, width = labels.shape[1:]
        whole = enlarged(logits.float(), (int(height), int(width)), align_corners=align_corners)
        # In rows, because torch's loss of maps is not deterministic on GPUs.
        rows, classes = whole.movedim(1, -1).flatten(0, -2), labels.long().flatten()
        total = F.cross_entropy(rows, classes, ignore_index=IGNORED, reduction="sum")
        count = (labels != IGNORED).sum().clamp(min=1) if mean == "labelled" else labels.numel()
        return total / count


class PixelClassification(Term):
    """Cross-entropy of an auxiliary network on features ``[B, ...]``, or of features that already are logits.

    Args:
        head: maps the features to logits ``[B, C, h, w]``; None where they are the logits.
        mean: see `pixel_cross_entropy`.
        align_corners: see `pixel_cross_entropy`.
    """

    name = "cross_entropy"

    def __init__(self, head: nn.Module | None, mean: PixelMean, *, align_corners: bool = False) -> None:
        super().__init__()
        self.head = nn.Identity() if head is None else head
        self.mean: PixelMean = mean
        self.align_corners = align_corners
        # The mean over all pixels weighs every image alike.
        self.needs_labels = mean == "labelled"

    def predict(self, features: Tensor) -> Tensor:
        """Return the logits ``[B, C, h, w]``."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        logits = context.predictions if context.predictions is not None else self.predict(features)
        loss = pixel_cross_entropy(logits, context.labels, self.mean, align_corners=self.align_corners)
        return TermValue(loss)


class HookedPixelClassification(Term):
    """As `PixelClassification`, of a classifier on the output of a block inside the body.

    Args:
        block: name of the block.
        head: maps the block's output to logits ``[B, C, h, w]``.
        mean: see `pixel_cross_entropy`.
    """

    name = "cross_entropy"

    def __init__(self, block: str, head: nn.Module, mean: PixelMean) -> None:
        super().__init__()
        self.hooks = (block,)
        self.head = head
        self.mean: PixelMean = mean
        self.needs_labels = mean == "labelled"

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        logits = self.head(context.hooked[self.hooks[0]])
        return TermValue(pixel_cross_entropy(logits, context.labels, self.mean))
