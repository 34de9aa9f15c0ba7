"""Supervised contrastive loss: images of one class closer together than others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.objective import Context, Term, TermValue, full_precision

TEMPERATURE = 0.07
EMBEDDING_SIZE = 128


def supervised_contrastive_loss(embeddings: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the supervised contrastive loss with one view per image.

    Khosla et al. 2020, equation 2 (L_out), as InfoPro (Wang et al. 2021) uses it: with z the L2-normalised
    embeddings, tau the temperature, P(i) the other images of the class of i and A(i) all images but i,

        L = -1/B sum_i 1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )

    An anchor without positives contributes 0 and is still counted in B. The scale depends on the batch size:
    collapsed embeddings give ln(B - 1), perfect clusters about ln|P(i)|. Memory is O(B^2).

    Args:
        embeddings: ``[B, D]``, any floating dtype, not normalised.
        labels: int64 ``[B]``.
        temperature: tau, above 0.

    Returns:
        float32 scalar in nats.
    """
    with full_precision(embeddings):
        normalised = F.normalize(embeddings.float(), dim=1)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positive = (labels[:, None] == labels[None, :]) & ~itself
        # The lowest finite number and not -inf: a batch of one image has nothing else in its row, which would be NaN.
        logits = (normalised @ normalised.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min)
        log_probability = logits - torch.logsumexp(logits, dim=1, keepdim=True)
        summed = torch.where(positive, log_probability, 0.0).sum(dim=1)
        return -(summed / positive.sum(dim=1).clamp(min=1)).mean()


class Contrastive(Term):
    """Supervised contrastive loss of a head's embeddings ``[B, EMBEDDING_SIZE]``.

    Minimising it also raises a lower bound of I(h; y) (InfoPro, Wang et al. 2021). Where batches are
    small against the number of classes most anchors have no positive: prefer cross-entropy there.
    """

    name = "contrastive"

    def __init__(self, head: nn.Module, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.head = head
        self.temperature = temperature

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss of features ``[B, ...]``."""
        return TermValue(supervised_contrastive_loss(self.head(features), context.labels, self.temperature))
