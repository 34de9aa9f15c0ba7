"""Waits until a cluster has freed what a team reserves, for no longer than it can."""

from __future__ import annotations

import time
from typing import Any

from engine.errors import PlanError
from engine.runtimes.ray.cluster import node_resources
from engine.runtimes.ray.placement import Placement, holds

_SLICE_SECONDS = 1.0


def wait_for_group(group: Any, placement: Placement, timeout: float) -> None:
    """Wait until a placement group is ready.

    That a node is gone Ray may notice only now; for what no node has it would wait for ever.

    Args:
        group: Ray's placement group.
        placement: what it holds.
        timeout: seconds after which others are taken to use what is missing.

    Raises:
        PlanError: it is not ready in time, or the nodes that are alive cannot hold it.
    """
    deadline = time.monotonic() + timeout
    while not group.wait(min(_SLICE_SECONDS, max(0.0, deadline - time.monotonic()))):
        if not holds(placement, node_resources()):
            raise PlanError(
                f"a node was lost while {placement.describe()} were waited for, and the others have no room for them; "
                "add nodes, or lower what the plan asks for"
            )
        if time.monotonic() >= deadline:
            raise PlanError(
                f"the cluster did not free {placement.describe()} within plan.start_timeout_seconds="
                f"{timeout:g}: others are using it; wait, lower what the plan asks for, or add nodes"
            )
