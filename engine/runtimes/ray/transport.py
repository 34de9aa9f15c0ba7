"""Choice of the transport of messages between actors, and its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.recipes import Plan
from engine.runtimes.ray.links import HAS_NAMELESS_MEMORY, Route, Way

# Smaller frames pass through the host: a group of NCCL takes memory and threads for each link, and a cohort has many.
_NCCL_FROM_BYTES = 2**20


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


def choose_transport(plan: Plan, nodes: int, on_gpus: bool) -> Transport:
    """Return how messages travel in a team whose actors live on so many nodes.

    ``auto`` takes direct links on one node, where they cost less than the object store for steps of any length, and
    between GPUs, whose messages then need not pass through hosts. Between other nodes it takes the object store, which
    sends a message on before the taker asks for it.

    Args:
        plan: what the user asked for.
        nodes: on which actors live.
        on_gpus: whether every learner computes on a GPU.
    """
    if plan.transport == "object_store":
        return Transport("object_store", "plan.transport=object_store")
    if plan.transport != "auto":
        return Transport("direct", f"plan.transport={plan.transport}")
    if nodes == 1:
        return Transport("direct", "plan.transport=auto: all actors are on one node")
    if on_gpus:
        return Transport("direct", "plan.transport=auto: all learners are on GPUs")
    return Transport("object_store", f"plan.transport=auto: the actors are on {nodes} nodes")


def choose_way(plan: Plan, route: Route, places: Mapping[str, Mapping[str, Any]]) -> Way:
    """Return how what one learner gives another travels on their direct link.

    Args:
        plan: with ``direct_host`` nothing goes from GPU to GPU.
        route: who gives whom what.
        places: node, GPU (its unique name, empty on a CPU) and whether there is NCCL, of each learner.
    """
    giver, taker = places[route.giver], places[route.taker]
    if plan.transport != "direct_host" and giver["gpu"] and taker["gpu"]:
        if giver["gpu"] == taker["gpu"] and giver["node"] == taker["node"]:
            return "gpu_memory"
        if route.frame_bytes >= _NCCL_FROM_BYTES and giver["nccl"] and taker["nccl"]:
            return "nccl"
    return "memory" if HAS_NAMELESS_MEMORY and giver["node"] == taker["node"] else "tcp"
