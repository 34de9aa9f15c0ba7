"""How sure is a learner of its predictions: the confidence penalty."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision


def negative_entropy(logits: Tensor) -> Tensor:
    """Return -H(p) = sum_c p_c log p_c, where p = softmax(logits), as the mean over the batch.

    Args:
        logits: ``[B, classes]``, any floating dtype.

    Returns:
        float32 scalar in nats, from -ln(classes) where all classes are as likely up to 0 where one is certain.
    """
    with full_precision(logits):
        log_probability = F.log_softmax(logits.float(), dim=1)
        return (log_probability.exp() * log_probability).sum(dim=1).mean()


class ConfidencePenalty(Term):
    """``negative_entropy`` of ``Context.predictions``.

    Pereyra et al. 2017: with weight beta beside a cross-entropy the objective is CE - beta H(p). The loss is negative.
    """

    name = "confidence_penalty"

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        assert context.predictions is not None, "the confidence penalty was called without the learner's predictions"
        return TermValue(negative_entropy(context.predictions))
