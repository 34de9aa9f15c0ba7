"""The loss of group knowledge: a learner's predictions against what is remembered of an image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision

RECALLED = "recalled"
"""Name of the message with what is remembered of each image: probabilities [B, classes], NaN rows where nothing is."""


def knowledge_divergence(recalled: Tensor, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(K || p), p = softmax(logits / T), summed over the images that are known and divided by B.

    Tang et al., Mixed Knowledge Fraction: L_KD = sum_c K_c (log K_c - log p_c), with T = 1. Knowledge is probabilities,
    so a temperature means K^(1/T), renormalised. Dividing by B, not by how many are known, keeps the weight of an image
    the same while the store fills.

    Args:
        recalled: ``[B, classes]``, non-negative with rows that sum to 1, or rows of NaN; no gradient flows into it.
        logits: ``[B, classes]``, any floating dtype.
        temperature: T, above 0.

    Returns:
        float32 scalar in nats; 0 with gradient 0 if nothing is known of any image.
    """
    with full_precision(logits):
        recalled = recalled.detach().float()
        known = recalled.isfinite().all(dim=1, keepdim=True)
        if temperature != 1.0:
            recalled = (recalled.log() / temperature).softmax(dim=1)
        # A uniform stand-in keeps NaN out of the backward pass, which a mask behind the divergence would not.
        teacher = torch.where(known, recalled, 1.0 / recalled.shape[1])
        log_probabilities = F.log_softmax(logits.float() / temperature, dim=1)
        rows = F.kl_div(log_probabilities, teacher, reduction="none").sum(dim=1, keepdim=True)
        return temperature**2 * (rows * known).sum() / len(logits)


class KnowledgeMimicry(Term):
    """Divergence of ``Context.predictions`` from what the message ``recalled`` holds; see ``knowledge_divergence``.

    Args:
        temperature: T, above 0.
    """

    name = "knowledge"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        assert 0 < temperature < math.inf, f"temperature {temperature} is not above 0"
        self.temperature = temperature

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss; 0 without graph where nothing is recalled."""
        predictions = context.predictions
        assert predictions is not None, "the knowledge term was called without the learner's predictions"
        recalled = context.messages.get(RECALLED)
        if recalled is None:
            return TermValue(predictions.new_zeros((), dtype=torch.float32))
        return TermValue(knowledge_divergence(recalled, predictions, self.temperature))
