"""What a team has reserved of a Ray: a placement group with a bundle for each learner, in which actors are created."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.errors import PlanError
from engine.runtimes.ray.actor import OVERLAPPING, THREADS, WATCHING, Builder, LearnerActor
from engine.runtimes.ray.placement import Placement


class Bundles:
    """A bundle for each learner.

    Args:
        names: of the learners.
        placement: what each actor reserves.
        timeout: seconds in which the cluster has to free it.

    Raises:
        PlanError: the cluster did not.
    """

    def __init__(self, names: Sequence[str], placement: Placement, timeout: float) -> None:
        self._placement = placement
        # A trial of a search has reserved all that it needs, behind the bundle that it runs in: another reservation
        # inside it might wait for ever for what other trials hold that wait as well.
        self._group = get_current_placement_group()
        self._owns_group = self._group is None
        if self._owns_group:
            self._group = placement_group([placement.bundle] * placement.actors, strategy=placement.strategy)
        if not self._group.wait(timeout):
            self.close()
            raise PlanError(
                f"the cluster did not free {placement.describe()} within plan.start_timeout_seconds="
                f"{timeout:g}: others are using it; wait, lower what the plan asks for, or add nodes"
            )
        first = self._group.bundle_count - placement.actors
        self._places = {name: first + index for index, name in enumerate(names)}

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
