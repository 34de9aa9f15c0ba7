"""How do messages travel between actors, and why?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.recipes import Plan


@dataclass(frozen=True)
class Transport:
    """A way for messages to travel.

    Attributes:
        kind: on links between actors, or through Ray's object store.
        reason: why, in words.
    """

    kind: Literal["direct", "object_store"]
    reason: str

    def describe(self) -> str:
        """Return way and reason in words."""
        return f"{'direct links' if self.kind == 'direct' else 'object store'} ({self.reason})"


def choose_transport(plan: Plan, nodes: int) -> Transport:
    """Return how messages travel in a team whose actors live on so many nodes.

    ``auto`` takes direct links on one node, where they cost less than the object store for steps of any length, and
    the object store between nodes, which sends a message on before the taker asks for it.
    """
    if plan.transport != "auto":
        return Transport(plan.transport, f"plan.transport={plan.transport}")
    if nodes == 1:
        return Transport("direct", "plan.transport=auto: all actors are on one node")
    return Transport("object_store", f"plan.transport=auto: the actors are on {nodes} nodes")
