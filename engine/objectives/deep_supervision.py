"""Deep supervision: companion classifiers on a network's hidden features, as in deeply supervised nets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.data import NO_LABEL
from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.recipes import DeepSupervisionDecay


def squared_hinge_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return sum_c max(0, 1 - t_c s_c)^2, t_c = 1 for the label and -1 otherwise, averaged over the labelled images.

    The loss of every classifier in the code released with Lee et al. 2015 (deeply supervised nets); it fails to
    converge with more than 10 classes.

    Args:
        logits: scores s, ``[B, classes]``, any floating dtype.
        labels: int64 ``[B]``; -1 where an image has no label.

    Returns:
        float32 scalar; 0 with gradient 0 if no image has a label.
    """
    with full_precision(logits):
        classes = torch.arange(logits.shape[1], device=logits.device)
        signs = torch.where(labels[:, None] == classes, 1.0, -1.0)
        rows = (1.0 - signs * logits.float()).relu().square().sum(dim=1)
        labelled = labels != NO_LABEL
        return (rows * labelled).sum() / labelled.sum().clamp(min=1)


class SquaredHinge(Term):
    """Squared hinge loss of features that already are scores ``[B, classes]``: the end of a backbone."""

    name = "squared_hinge"
    needs_labels = True

    def predict(self, features: Tensor) -> Tensor:
        """Return the features, which are the scores."""
        return features

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss, with the features as scores."""
        return TermValue(squared_hinge_loss(features, context.labels))


@dataclass(frozen=True)
class DeepSupervisionSchedule:
    """How the companions' weight changes over the epochs (Lee et al. 2015, section 3: it decays).

    Attributes:
        decay: ``none``; ``linear``, to 0 at the end; ``stop``, to 0 at once.
        epochs: of the run, E.
        stop_at: for ``stop``, the share of the epochs after which it is 0.
    """

    decay: DeepSupervisionDecay
    epochs: int
    stop_at: float

    def factor(self, epoch: int) -> float:
        """Return the factor of the weight in epoch e = 0, 1, ...: 1, 1 - e / E, or whether e / E < ``stop_at``."""
        if self.decay == "linear":
            return 1.0 - epoch / self.epochs
        if self.decay == "stop":
            return float(epoch / self.epochs < self.stop_at)
        return 1.0
