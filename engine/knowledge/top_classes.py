"""Predictions of which only the most probable classes are stored."""

from __future__ import annotations

import torch
from torch import Tensor


def truncate(probabilities: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the largest probabilities of each row; what is left counts as spread evenly over the other classes.

    Args:
        probabilities: float32 ``[B, classes]``, rows that sum to 1.
        top_k: k, at least 1 and below the number of classes. Which of equal probabilities are kept is not defined, but
            the same for the same row.

    Returns:
        int64 ``[B, k]``, the classes; float32 ``[B, k]``, their probabilities; float32 ``[B]``, the mass that moves
        from one class to another by spreading, in [0, 1): half of sum_c |p_c - spread_c|.
    """
    # The spread is at most the smallest that is kept, so whatever lies above it among the others is what moves.
    kept, classes = probabilities.topk(top_k, dim=1, sorted=False)
    spread = _spread(kept, probabilities.shape[1])
    moved = (probabilities - spread).clamp_(min=0).sum(dim=1) - (kept - spread).clamp_(min=0).sum(dim=1)
    return classes, kept, moved.clamp_(min=0)


def densify(classes: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Return float32 ``[B, num_classes]``: what is kept, and what it lacks to 1 spread evenly over the other classes.

    Args:
        classes: int64 ``[B, k]``, different in each row.
        kept: float32 ``[B, k]``, their probabilities; rows may sum to slightly more than 1 by rounding.
        num_classes: above k.
    """
    return _spread(kept, num_classes).repeat(1, num_classes).scatter_(1, classes, kept)


def _spread(kept: Tensor, num_classes: int) -> Tensor:
    rest = (1 - kept.sum(dim=1, keepdim=True)).clamp_(min=0)
    return torch.div(rest, num_classes - kept.shape[1])
