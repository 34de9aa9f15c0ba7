"""The loss of ONE: a network's branches against the ensemble that they form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives.classification import cross_entropy_loss
from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.objectives.pooling import GlobalAveragePool

# Added to the ensemble's probabilities in the released code.
_OFFSET = 1e-7


def ensemble_divergence(ensemble_logits: Tensor, branch_logits: Tensor, temperature: float) -> Tensor:
    """Return T^2 sum_i sum_c p_c (log p_c - log q_ic), p = softmax(z_e / T) + 1e-7, q_i = softmax(z_i / T).

    Lan et al. 2018, equation 9, as the released code computes it.

    Args:
        ensemble_logits: z_e, ``[B, classes]``, any floating dtype; no gradient flows into it.
        branch_logits: z_i, ``[branches, B, classes]``, any floating dtype.
        temperature: T, above 0.

    Returns:
        float32 scalar in nats: the sum over the branches of the mean over the batch.
    """
    with full_precision(branch_logits):
        teacher = F.softmax(ensemble_logits.detach().float() / temperature, dim=-1) + _OFFSET
        students = F.log_softmax(branch_logits.float() / temperature, dim=-1)
        per_image = F.kl_div(students, teacher.expand_as(students), reduction="none").sum(dim=-1)
        return temperature**2 * per_image.mean(dim=-1).sum()


class OnTheFlyEnsemble(Term):
    """Branches beside the end of the network, and the gated ensemble that teaches all of them (Lan et al. 2018).

        sum_{i = 2..m} CE(z_i, y) + CE(z_e, y) + weight w(e) T^2 sum_{i = 1..m} KL(z_e || z_i)

    z_e = sum_i g_i z_i, where g = softmax(ReLU(BN(Linear(average-pooled features)))); z_1 is ``Context.predictions``,
    whose own cross-entropy is another term's. w(e) = exp(-5 (1 - min(e, E) / E)^2).

    Args:
        block: name of the block whose output ``[B, channels, H, W]`` all branches take.
        channels: of that output.
        branches: the others, m - 1 of them, each of which gives class logits ``[B, classes]``.
        weight: of the divergence.
        temperature: T, above 0.
        ramp_epochs: E; 0 for w = 1 throughout.
    """

    name = "ensemble"

    def __init__(
        self,
        block: str,
        channels: int,
        branches: Sequence[nn.Module],
        *,
        weight: float = 1.0,
        temperature: float = 3.0,
        ramp_epochs: int = 80,
    ) -> None:
        super().__init__()
        assert branches, "an ensemble of one"
        assert 0 < temperature < math.inf, f"temperature {temperature} is not above 0"
        self.hooks = (block,)
        self.branches = nn.ModuleList(branches)
        count = len(branches) + 1
        self.pool = GlobalAveragePool()
        self.gate = nn.Sequential(nn.Linear(channels, count), nn.BatchNorm1d(count), nn.ReLU(), nn.Softmax(dim=1))
        self.weight = weight
        self.temperature = temperature
        self.ramp_epochs = ramp_epochs

    def ramp(self, epoch: int) -> float:
        """Return w(e), in (0, 1]."""
        if not self.ramp_epochs:
            return 1.0
        return math.exp(-5.0 * (1.0 - min(epoch / self.ramp_epochs, 1.0)) ** 2)

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        assert context.predictions is not None, "the ensemble was called without the learner's predictions"
        shared = context.hooked[self.hooks[0]]
        gate = self.gate(self.pool(shared))
        others = [branch(shared) for branch in self.branches]
        with full_precision(shared):
            logits = torch.stack([context.predictions.float(), *(each.float() for each in others)])
            ensemble = (gate.float().T[:, :, None] * logits).sum(dim=0)
            loss = cross_entropy_loss(ensemble, context.labels)
            for each in logits[1:]:
                loss = loss + cross_entropy_loss(each, context.labels)
            weight = self.weight * self.ramp(context.epoch)
            if weight:
                loss = loss + weight * ensemble_divergence(ensemble, logits, self.temperature)
        return TermValue(loss)
