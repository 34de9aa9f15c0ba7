"""Mimicry of features: the squared distance of a learner's features from those of its peers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.objectives.peers import peer_messages


class FeatureMimicry(Term):
    """Mean over the peers j, and over the images, of the squared distance ||f_k - f_j||^2, summed over features.

    The "DML, L2" of Zhang et al. 2018, table 5, on features before the classifier. Peers whose message this step does
    not bring, or has diverged, are not counted; without any the loss is 0. No gradient flows to peers.

    Args:
        teachers: names of the peers' messages, each ``[B, D]`` of any floating dtype.
        own: name of the block in ``Context.hooked`` whose output ``[B, D]`` is f_k.

    Raises:
        RecipeError: when called, a peer's features are of another width than the learner's.
    """

    name = "feature_mimicry"

    def __init__(self, teachers: Sequence[str], own: str = "pooled") -> None:
        super().__init__()
        assert len(set(teachers)) == len(teachers) > 0, f"teachers {teachers} are none, or not all different"
        self.teachers = tuple(teachers)
        self.own = own
        self.hooks = (own,)

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss; 0 without graph if this step brings no message of a peer."""
        own = context.hooked[self.own]
        peers = peer_messages(context, self.teachers, own, self.name)
        if peers is None:
            return TermValue(own.new_zeros((), dtype=torch.float32))
        with full_precision(own):
            distances = (own.float() - peers.values).square().sum(dim=-1)
            return TermValue(peers.mean(distances.mean(dim=-1)))
