"""The role of a learner: what sets it apart from the others of its team."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Output = Literal["features", "predictions", "pooled"]


@dataclass(frozen=True)
class Role:
    """A learner's place in its team.

    Attributes:
        network: the deployed network that its body is a part of.
        seed: with ``stream`` the origin of its random numbers.
        stream: the same for a learner that does the same work in another team, whatever its name is there.
        gives: what its ``forward`` gives, in this order: the features [B, ...] for the next segment, its class
            logits [B, classes], and the features [B, D] that enter its last linear layer.
        may_leave: whether a loss that is not finite makes it leave its cohort instead of stopping the run.
    """

    network: str
    seed: int
    stream: str
    gives: tuple[Output, ...] = ()
    may_leave: bool = False
