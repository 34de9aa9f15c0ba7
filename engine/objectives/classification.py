"""How well can the label be told from the features: cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import NO_LABEL
from engine.objectives.objective import Context, Term, TermValue, full_precision


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the labelled images.

    Args:
        logits: ``[B, classes]``, any floating dtype.
        labels: int64 ``[B]``; -1 where an image has no label.

    Returns:
        float32 scalar in nats; 0 with gradient 0 if no image has a label.
    """
    with full_precision(logits):
        loss = F.cross_entropy(logits.float(), labels, ignore_index=NO_LABEL)
        # The mean over nothing is NaN. Choosing without asking how many there are spares a GPU a wait.
        return torch.where((labels != NO_LABEL).any(), loss, 0.0)


class Classification(Term):
    """Cross-entropy of features that already are logits ``[B, classes]``: the end of a backbone."""

    name = "cross_entropy"
    needs_labels = True

    def predict(self, features: Tensor) -> Tensor:
        """Return the features, which are the logits."""
        return features

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, with the features as logits."""
        return TermValue(cross_entropy_loss(features, context.labels))


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


class TappedClassification(Term):
    """Cross-entropy of a classifier on the output of a block inside the body, beside the body's own objective.

    Args:
        block: name of the block.
        head: maps the block's output to class logits ``[B, classes]``.
    """

    name = "cross_entropy"
    needs_labels = True

    def __init__(self, block: str, head: nn.Module) -> None:
        super().__init__()
        self.taps = (block,)
        self.head = head

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        return TermValue(cross_entropy_loss(self.head(context.tapped[self.taps[0]]), context.labels))
