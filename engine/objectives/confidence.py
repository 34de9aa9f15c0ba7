"""The confidence penalty: the negative entropy of a learner's predictions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision


def negative_entropy(logits: Tensor, axis: int = 1) -> Tensor:
    """Return -H(p) = sum_c p_c log p_c, where p = softmax(logits), as the mean over the batch and all positions.

    Args:
        logits: ``[B, classes]``, or ``[B, classes, ...]`` with a distribution at each position; any floating dtype.
        axis: that of the classes.

    Returns:
        float32 scalar in nats, from -ln(classes) where all classes are as likely up to 0 where one is certain.
    """
    with full_precision(logits):
        log_probability = F.log_softmax(logits.float(), dim=axis)
        return (log_probability.exp() * log_probability).sum(dim=axis).mean()


class ConfidencePenalty(Term):
    """``negative_entropy`` of ``Context.predictions``.

    Pereyra et al. 2017: with weight beta beside a cross-entropy the objective is CE - beta H(p). The loss is negative.

    Args:
        axis: that of the classes in the predictions.
    """

    name = "confidence_penalty"

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        assert context.predictions is not None, "the confidence penalty was called without the learner's predictions"
        return TermValue(negative_entropy(context.predictions, self.axis))
