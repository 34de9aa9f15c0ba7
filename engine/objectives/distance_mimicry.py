"""Mimicry of distance matrices: the distances within a batch against those that the peers see."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.objectives.objective import Context, Term, TermValue, full_precision
from engine.objectives.peers import PeerMessages, peer_messages
from engine.objectives.triplet import distance_matrix


class DistanceMimicry(Term):
    """Mean over the peers j, and over the pairs of images, of (d_k(a, b) - d_j(a, b))^2.

    d is the Euclidean distance of features before the classifier. The mutual learning of global distances that
    AlignedReID's reproductions use (Zhang, Luo et al. 2017, section 3.3). Peers' features may be of other widths. Peers
    whose message this step does not bring, or has diverged, are not counted; without any the loss is 0. No gradient
    flows to peers.

    Args:
        teachers: names of the peers' messages, each ``[B, D_j]`` of any floating dtype.
        own: name of the block in ``Context.hooked`` whose output ``[B, D_k]`` the learner compares.
    """

    name = "distance_mimicry"

    def __init__(self, teachers: Sequence[str], own: str = "pooled") -> None:
        super().__init__()
        assert len(set(teachers)) == len(teachers) > 0, f"teachers {teachers} are none, or not all different"
        self.teachers = tuple(teachers)
        self.own = own
        self.hooks = (own,)

    def forward(self, features: Tensor, context: Context) -> TermValue:
        """Return the loss; 0 without graph if this step brings no message of a peer."""
        own = context.hooked[self.own]
        found = [heard for name in self.teachers if (heard := self._heard(context, name)) is not None]
        if not found:
            return TermValue(own.new_zeros((), dtype=torch.float32))
        with full_precision(own):
            distances = distance_matrix(own)
            losses = torch.stack([(distances - distance_matrix(each.values[0])).square().mean() for each in found])
            return TermValue(PeerMessages(losses, torch.cat([each.usable for each in found])).mean(losses))

    def _heard(self, context: Context, name: str) -> PeerMessages | None:
        # One at a time, and of its own width.
        given = context.messages.get(name)
        return None if given is None else peer_messages(context, (name,), given, self.name)
