"""Cross-entropy of the labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import NO_LABEL
from engine.objectives.objective import Context, MixedLabels, Term, TermValue, full_precision


def cross_entropy_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the labelled images.

    Args:
        logits: ``[B, classes]``, any floating dtype.
        labels: int64 ``[B]``; -1 where an image has no label.
        smoothing: epsilon; the target is (1 - epsilon) y + epsilon / classes (Szegedy et al. 2016, section 7).

    Returns:
        float32 scalar in nats; 0 with gradient 0 if no image has a label.
    """
    with full_precision(logits):
        loss = F.cross_entropy(logits.float(), labels, ignore_index=NO_LABEL, label_smoothing=smoothing)
        # The mean over nothing is NaN. Choosing without asking how many there are spares a GPU a wait.
        return torch.where((labels != NO_LABEL).any(), loss, 0.0)


def mixed_cross_entropy_loss(logits: Tensor, labels: Tensor, mixed: MixedLabels, smoothing: float = 0.0) -> Tensor:
    """Return the mean of lambda CE(z, y_1) + (1 - lambda) CE(z, y_2) (Zhang et al. 2018, mixup; Yun et al. 2019).

    As ``cross_entropy_loss`` of the mixed label; a part whose image has no label is left out of sum and mean.

    Args:
        logits: ``[B, classes]``, any floating dtype.
        labels: int64 ``[B]``, of the first images; -1 where one has no label.
        mixed: labels of the second images, and lambda.
        smoothing: epsilon.

    Returns:
        float32 scalar in nats; 0 with gradient 0 if no image has a label.
    """
    with full_precision(logits):
        loss = count = logits.new_zeros((), dtype=torch.float32)
        for each, share in ((labels, mixed.share), (mixed.second, 1 - mixed.share)):
            rows = F.cross_entropy(
                logits.float(), each, ignore_index=NO_LABEL, label_smoothing=smoothing, reduction="none"
            )
            weights = share * (each != NO_LABEL)
            loss, count = loss + (weights * rows).sum(), count + weights.sum()
        return loss / count.clamp_min(torch.finfo(torch.float32).tiny)


class Classification(Term):
    """Cross-entropy of features that already are logits ``[B, classes]``: the end of a backbone.

    Args:
        smoothing: epsilon of label smoothing.
    """

    name = "cross_entropy"
    needs_labels = True

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def predict(self, features: Tensor) -> Tensor:
        """Return the features, which are the logits."""
        return features

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, with the features as logits."""
        if context.mixed is None:
            return TermValue(cross_entropy_loss(features, context.labels, self.smoothing))
        return TermValue(mixed_cross_entropy_loss(features, context.labels, context.mixed, self.smoothing))


class AuxiliaryClassification(Term):
    """Cross-entropy of an auxiliary classifier on features ``[B, ...]``.

    Minimising it raises a lower bound of I(h; y), since I(h; y) = H(y) - H(y|h) >= H(y) - cross-entropy
    (InfoPro, Wang et al. 2021). With ``linear_head`` it is greedy supervised learning, with ``dgl_head``
    decoupled greedy learning (Belilovsky et al. 2020), with ``prediction_head`` the prediction loss of PredSim
    (Nokland & Eidnes 2019).
    """

    name = "cross_entropy"
    needs_labels = True

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def predict(self, features: Tensor) -> Tensor:
        """Return the head's logits ``[B, classes]``."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        logits = context.predictions if context.predictions is not None else self.predict(features)
        return TermValue(cross_entropy_loss(logits, context.labels))


class HookedClassification(Term):
    """Cross-entropy of a classifier on the output of a block inside the body, beside the body's own objective.

    Args:
        block: name of the block.
        head: maps the block's output to class logits ``[B, classes]``.
    """

    name = "cross_entropy"
    needs_labels = True

    def __init__(self, block: str, head: nn.Module) -> None:
        super().__init__()
        self.hooks = (block,)
        self.head = head

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        return TermValue(cross_entropy_loss(self.head(context.hooked[self.hooks[0]]), context.labels))
