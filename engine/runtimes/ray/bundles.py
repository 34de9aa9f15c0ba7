"""A team's reservation of a Ray: a placement group with a bundle for each learner, in which actors are created."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.actor import OVERLAPPING, THREADS, WATCHING, Builder, LearnerActor
from engine.runtimes.ray.cluster import node_resources
from engine.runtimes.ray.placement import Placement, holds
from engine.runtimes.ray.waiting import check_alive

_SLICE_SECONDS = 1.0

IN_TIME = "within plan.start_timeout_seconds="
"""In every error of a team that did not start in time, which at another time it may; a search knows them by this."""


class Bundles:
    """A bundle for each learner.

    Args:
        names: of the learners.
        placement: what each actor reserves.
        timeout: seconds in which the cluster has to free it.

    Raises:
        PlanError: the cluster did not, or cannot any more.
    """

    def __init__(self, names: Sequence[str], placement: Placement, timeout: float) -> None:
        self._placement = placement
        # A trial of a search has reserved all that it needs, behind the bundle that it runs in: another reservation
        # inside it might wait for ever for what other trials hold that wait as well.
        self._group = get_current_placement_group()
        self._owns_group = self._group is None
        if self._owns_group:
            self._group = placement_group([placement.bundle] * placement.actors, strategy=placement.strategy)
        try:
            self.wait(timeout)
        except PlanError:
            self.close()
            raise
        first = self._group.bundle_count - placement.actors
        self._places = {name: first + index for index, name in enumerate(names)}

    def wait(self, timeout: float) -> None:
        """Wait until all are there: at first, or because one was lost with its node; raises PlanError as above."""
        wait_for_group(self._group, self._placement, timeout)

    @property
    def are_own(self) -> bool:
        """Whether they were reserved for this team alone, and are given back with it."""
        return self._owns_group

    def create(self, name: str, builder: Builder) -> Any:
        """Create an actor in a learner's bundle, once it is free; returns its handle."""
        actor_class: Any = ray.remote(concurrency_groups={OVERLAPPING: THREADS, WATCHING: 1})(LearnerActor)
        return actor_class.options(
            num_cpus=self._placement.bundle.get("CPU", 0),
            num_gpus=self._placement.gpus,
            # A restarted actor would have lost its weights, and a repeated call would train a batch twice.
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, self._places[name]),
        ).remote(builder, name)

    def close(self) -> None:
        """Give back what was reserved."""
        if self._owns_group:
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                remove_placement_group(self._group)


def plan_as_reserved(plan: Plan, group: Any) -> Plan:
    """Return a plan that asks for what a placement group holds for each actor, where it leaves that open.

    Nodes may have come since the group was reserved: the shares of all that there is now would fit into no bundle.

    Args:
        plan: what the user asked for.
        group: Ray's placement group; its last bundles are the actors'.
    """
    bundle, cpus, gpus = group.bundle_specs[-1], plan.cpus_per_learner, plan.gpus_per_learner
    return replace(
        plan,
        cpus_per_learner=bundle.get("CPU", 0.0) if cpus is None else cpus,
        gpus_per_learner=bundle.get("GPU", 0.0) if gpus is None else gpus,
    )


def wait_for_group(group: Any, placement: Placement, timeout: float) -> None:
    """Wait until a placement group is ready.

    That a node is gone Ray may notice only now; for what no node has it would wait for ever.

    Args:
        group: Ray's placement group.
        placement: what it holds.
        timeout: seconds after which others are taken to use what is missing.

    Raises:
        RayEnded: the private Ray has ended meanwhile.
        PlanError: it is not ready in time, or the nodes that are alive cannot hold it.
    """
    deadline = time.monotonic() + timeout
    while not group.wait(min(_SLICE_SECONDS, max(0.0, deadline - time.monotonic()))):
        check_alive()
        if not holds(placement, node_resources()):
            raise PlanError(
                f"a node was lost while {placement.describe()} were waited for, and the others have no room for them; "
                "add nodes, or lower what the plan asks for"
            )
        if time.monotonic() >= deadline:
            raise PlanError(
                f"the cluster did not free {placement.describe()} {IN_TIME}{timeout:g}: others are using it; wait, "
                "lower what the plan asks for, or add nodes"
            )
