"""Starts a recipe's team on Ray, and chooses how its messages travel."""

from __future__ import annotations

from dataclasses import replace

import ray
from ray.util.placement_group import get_current_placement_group

from engine.data import Facts
from engine.methods import Team
from engine.recipes import Plan, Recipe
from engine.runtimes.ray.actor_team import LearnerActors, nodes_of
from engine.runtimes.ray.blueprint import Blueprint
from engine.runtimes.ray.bundles import plan_as_reserved
from engine.runtimes.ray.cluster import connect, disconnect, node_resources, private_node, smallest_store
from engine.runtimes.ray.fewer_devices import choose_placement_again
from engine.runtimes.ray.history import history_bytes, store_bytes_for_history
from engine.runtimes.ray.object_store import ObjectStoreRuntime
from engine.runtimes.ray.placement import Placement, choose_placement, store_bytes_needed
from engine.runtimes.ray.replica_rendezvous import join_replicas
from engine.runtimes.ray.stream import StreamRuntime
from engine.runtimes.ray.transport import choose_transport, choose_way
from engine.runtimes.replicated import replicas_of
from engine.runtimes.reservations import Reservations


def open_on_ray(
    recipe: Recipe,
    facts: Facts,
    team: Team,
    steps_per_epoch: int,
    plan: Plan,
    reservations: Reservations | None = None,
) -> ObjectStoreRuntime | StreamRuntime:
    """Start one actor for each learner; as `engine.runtimes.open_runtime`.

    Raises:
        PlanError: the cluster cannot hold the team; found before any actor starts.
        LearnerError: a learner could not be built.
    """
    one_node = plan.address is None and not ray.is_initialized()
    if one_node:
        # Ray takes seconds to start; this machine is known without it.
        choose_placement(plan, recipe, len(team.names), [private_node()])
    nodes = 1 if one_node else len(node_resources()) if ray.is_initialized() else 2
    expected = choose_transport(plan, nodes, on_gpus=False)
    # Of replicas no learner comes back alone.
    history = store_bytes_for_history(team, plan) if plan.replicas == 1 else 0
    owns_ray = connect(plan, store_bytes_needed(team, plan, expected.kind), expected.kind, history)
    try:
        earlier = reservations or Reservations()
        group = get_current_placement_group()
        # This machine has what it had, and a trial of a search what it has reserved.
        if one_node or group is not None:
            earlier = replace(earlier, less_will_do=False)
        wanted = plan if group is None else plan_as_reserved(plan, group)
        placement = choose_placement_again(wanted, recipe, len(team.names), node_resources(), earlier)
    except BaseException:
        if owns_ray:
            disconnect()
        raise
    replicated = plan.replicas > 1
    blueprint = Blueprint.of(recipe, facts, steps_per_epoch, bool(placement.gpus), replicated)
    actors = LearnerActors(
        blueprint, team.names, placement, plan.start_timeout_seconds, owns_ray, plan.recovery.stall_seconds
    )
    try:
        if replicated:
            join_replicas(actors, replicas_of(team), placement.gpus)
        on_gpus = all(place["gpu"] for place in actors.places.values())
        transport = choose_transport(plan, len(nodes_of(actors)), on_gpus)
        if reservations is not None:
            reservations.note(placement)
        if transport.kind == "object_store":
            kept = history_bytes(team, plan, _share_of_store(placement) - store_bytes_needed(team, plan))
            return ObjectStoreRuntime(actors, placement.window, transport.reason, kept)
        return StreamRuntime(
            actors,
            team,
            plan.window,
            plan.start_timeout_seconds,
            transport.reason,
            lambda route: choose_way(plan, route, actors.places),
        )
    except BaseException:
        actors.close()
        raise


def _share_of_store(placement: Placement) -> int:
    """Return the bytes of the object store that a team may take for its own."""
    store = smallest_store()
    if get_current_placement_group() is not None:
        # Other trials of the search have teams like this one.
        processors = sum(node.get("CPU", 0.0) for node in node_resources())
        store //= max(1, int(processors / max(1.0, placement.actors * placement.cpus)))
    return store
