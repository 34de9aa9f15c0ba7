"""Peers from which a step can learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import RecipeError
from engine.objectives.objective import Context

# Beyond this a squared difference, or a sum of a few of them, is no finite float32: such a peer has diverged as well.
_LARGEST = 1e15


@dataclass(frozen=True)
class PeerMessages:
    """What the peers gave in this step, of which some may have diverged.

    Attributes:
        values: float32 ``[peers, B, n]``, or ``[peers, B, n, ...]``, without graph; zeros where the peer has diverged.
        usable: bool ``[peers]``, False where the peer has diverged.
    """

    values: Tensor
    usable: Tensor

    def total(self, losses: Tensor) -> Tensor:
        """Return the sum over the usable peers of finite losses ``[peers]``, or ``[1]`` if all peers share one."""
        return (self.usable * losses).sum()

    def mean(self, losses: Tensor) -> Tensor:
        """Return the mean over the usable peers of losses as in ``total``; 0 if no peer is usable."""
        return self.total(losses) / self.usable.sum().clamp(min=1)


def peer_messages(context: Context, names: Sequence[str], own: Tensor, wanted_by: str) -> PeerMessages | None:
    """Return those of the named messages that this step brings, or None if it brings none.

    A peer has diverged if any number of its message is NaN, infinite or beyond +-1e15. Whether it has is never asked
    on the host, which would have to wait for the device; so it stays in the result as zeros that do not count.

    Args:
        context: holds the messages, each ``[B, n]`` or ``[B, n, ...]`` of any floating dtype.
        names: of the messages.
        own: of their shape, what the learner itself has in their place.
        wanted_by: name of the term, for the error.

    Raises:
        RecipeError: a message is of another width than the learner's own.
    """
    given = {name: context.messages[name].detach().float() for name in names if name in context.messages}
    for name, message in given.items():
        if message.shape[1:] != own.shape[1:]:
            raise RecipeError(
                f"{wanted_by} compares a learner with its peers, but {name} has shape {tuple(message.shape[1:])} per "
                f"image where the learner's own is {tuple(own.shape[1:])}: give all peers of the cohort backbones "
                f"with as many outputs there, or set the weight of {wanted_by} to 0 in the recipe's method"
            )
        assert len(message) == len(own), f"{name} is of a batch of {len(message)} images, the learner's of {len(own)}"
    if not given:
        return None
    values = torch.stack(list(given.values()))
    # A comparison with NaN is False.
    usable = (values.abs() <= _LARGEST).flatten(1).all(dim=1)
    return PeerMessages(torch.where(usable.view(-1, *[1] * (values.dim() - 1)), values, 0.0), usable)
