"""The batch-hard triplet loss: pictures of one identity against the nearest of all others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision

# The square root has no gradient at 0, which is the distance of a picture from itself.
_LEAST_SQUARE = 1e-12


def distance_matrix(features: Tensor) -> Tensor:
    """Return Euclidean distances, float32 ``[B, B]``, of features ``[B, D]`` of any floating dtype."""
    with full_precision(features):
        own = features.float()
        squares = own.square().sum(dim=1)
        return (squares[:, None] + squares[None, :] - 2 * own @ own.T).clamp_min(_LEAST_SQUARE).sqrt()


def batch_hard_triplet_loss(features: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return the mean of [m + max_p d(a, p) - min_n d(a, n)]_+ over the anchors a (Hermans et al. 2017, equation 5).

    p are the other images of the anchor's class in the batch, n those of other classes. An image that has no p or no n
    is no anchor; images without a label are left out.

    Args:
        features: ``[B, D]``, any floating dtype.
        labels: int64 ``[B]``; negative where an image has no label.
        margin: m.

    Returns:
        float32 scalar; 0 with gradient 0 if there is no anchor.
    """
    distances = distance_matrix(features)
    known = labels >= 0
    both = known[:, None] & known[None, :]
    same = (labels[:, None] == labels[None, :]) & both
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    right, wrong = same & ~itself, ~same & both
    farthest = distances.masked_fill(~right, 0.0).amax(dim=1)
    nearest = distances.masked_fill(~wrong, torch.inf).amin(dim=1)
    anchors = right.any(dim=1) & wrong.any(dim=1)
    # Infinite without a wrong image; such rows are no anchors, and must not reach the gradient.
    losses = F.relu(margin + farthest - nearest.masked_fill(~anchors, 0.0)) * anchors
    return losses.sum() / anchors.sum().clamp_min(1)


class BatchHardTriplet(Term):
    """Batch-hard triplet loss of the features ``[B, D]`` that enter the network's last linear layer.

    Where they pass a batch-norm neck, it takes them before it (Luo et al. 2019, section 3.5).

    Args:
        margin: m.
    """

    name = "triplet"
    needs_labels = True
    hooks = ("before_neck",)

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss."""
        return TermValue(batch_hard_triplet_loss(context.hooked["before_neck"], context.labels, self.margin))
