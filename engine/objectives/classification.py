"""How well can the label be told from the features: cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.objective import Context, Term, TermValue, full_precision


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats, a float32 scalar, of logits ``[B, classes]`` and int64 labels ``[B]``."""
    with full_precision(logits):
        return F.cross_entropy(logits.float(), labels)


class Classification(Term):
    """Cross-entropy of features that already are logits ``[B, classes]``: the end of a backbone."""

    name = "cross_entropy"

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, with the features as logits."""
        return TermValue(cross_entropy_loss(features, context.labels), features)


class AuxiliaryClassification(Term):
    """Cross-entropy of an auxiliary classifier on features ``[B, ...]``.

    Minimising it raises a lower bound of I(h; y), since I(h; y) = H(y) - H(y|h) >= H(y) - cross-entropy
    (InfoPro, Wang et al. 2021). With ``linear_head`` it is greedy supervised learning, with ``dgl_head``
    decoupled greedy learning (Belilovsky et al. 2020), with ``prediction_head`` the prediction loss of PredSim
    (Nokland & Eidnes 2019).
    """

    name = "cross_entropy"

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss and the head's logits ``[B, classes]``."""
        logits = self.head(features)
        return TermValue(cross_entropy_loss(logits, context.labels), logits)
