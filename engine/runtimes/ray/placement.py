"""Decides what each actor reserves, and refuses what the cluster cannot give before any actor starts.

Pure arithmetic on node descriptions; an impossible request that reaches Ray would stay pending for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.errors import PlanError
from engine.methods import Team
from engine.program import BATCH
from engine.recipes import Plan, Recipe

# What Ray needs beside the messages: its own records, a checkpoint's copies of the weights, and slack.
_STORE_SLACK = 256 * 2**20
_SMALLEST_STORE = 128 * 2**20
# For messages that a lost learner is told again, at least; shared memory is only used up as it is filled.
_HISTORY = 512 * 2**20
# From ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES: with less Ray does not start.
_RAY_LEAST_STORE = 75 * 2**20
CHUNK_BYTES = 16 * 2**20
"""From so many bytes of batches on, no further steps are handed out at once on direct links."""
# A float32 weight, two slots of its optimizer, and room for the copy that is written.
_STATE_BYTES_PER_PARAMETER = 4 * 4


@dataclass(frozen=True)
class Placement:
    """What every actor of a team reserves.

    Attributes:
        actors: number of actors.
        cpus: CPUs of each.
        gpus: GPUs of each.
        strategy: Ray's placement strategy.
        window: steps in flight.
    """

    actors: int
    cpus: float
    gpus: float
    strategy: str
    window: int

    @property
    def bundle(self) -> dict[str, float]:
        """Resources of one actor, as Ray names them."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in wanted.items() if amount > 0} or {"CPU": 0.001}

    def describe(self) -> str:
        """Return the reservation in words."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.actors} actors with {self.cpus:g} CPU{gpus} each, {self.strategy}, window {self.window}"


def choose_placement(plan: Plan, recipe: Recipe, actors: int, nodes: Sequence[Mapping[str, float]]) -> Placement:
    """Return what each actor reserves, after checking that the nodes have it.

    Args:
        plan: what the user asked for; what it leaves open is chosen to fit.
        recipe: says whether learners compute on GPUs.
        actors: number of actors, one per learner.
        nodes: resources of each node that is alive, such as ``{"CPU": 2.0, "GPU": 1.0}``.

    Raises:
        PlanError: the nodes can never hold the actors; says what was asked, what there is, and what to change.
    """
    strategy = plan.placement or recipe.method.placement
    cpus, gpus = plan.cpus_per_learner, plan.gpus_per_learner
    if gpus is None:
        wanted = recipe.numerics.device != "cpu" and any(node.get("GPU", 0.0) for node in nodes)
        gpus = _largest_share("GPU", {}, strategy, actors, nodes) if wanted else 0.0
    if cpus is None:
        cpus = _largest_share("CPU", {"GPU": gpus} if gpus else {}, strategy, actors, nodes)
    placement = Placement(actors, cpus, gpus, strategy, plan.steps_in_flight(actors))
    if not holds(placement, nodes):
        raise _does_not_fit(placement, nodes, _remedies(plan, recipe, placement, nodes))
    return placement


def holds(placement: Placement, nodes: Sequence[Mapping[str, float]]) -> bool:
    """Return whether nodes with these resources have room for all actors."""
    return _fits(placement.strategy, [_room(node, placement.bundle) for node in nodes], placement.actors)


def most_teams(placement: Placement, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many teams of this placement nodes with these resources have room for at the same time."""
    rooms = [_room(node, placement.bundle) for node in nodes]
    if placement.strategy == "STRICT_PACK":
        return sum(room // placement.actors for room in rooms)
    most = sum(rooms) // placement.actors
    if placement.strategy == "STRICT_SPREAD":
        # A node holds one actor of each team, so more room than there are teams helps none of them.
        while sum(min(room, most) for room in rooms) < most * placement.actors:
            most -= 1
    return most


def _largest_share(
    name: str, others: Mapping[str, float], strategy: str, actors: int, nodes: Sequence[Mapping[str, float]]
) -> float:
    """Return the most of a resource, up to 1, that each actor can reserve; 1 where nothing fits.

    Args:
        name: the resource.
        others: what each actor reserves besides.
        strategy: Ray's placement strategy.
        actors: number of actors.
        nodes: resources of each node.
    """
    # Some node, or a GPU, is divided without a rest; cut off after 4 digits, as Ray counts them.
    wholes = [1.0] if name == "GPU" else [node.get(name, 0.0) for node in nodes]
    shares = {int(whole / parts * 10_000) / 10_000 for whole in wholes for parts in range(1, actors + 1)}
    for share in sorted({1.0, *(share for share in shares if 0 < share < 1)}, reverse=True):
        if _fits(strategy, [_room(node, {**others, name: share}) for node in nodes], actors):
            return share
    return 1.0


def _room(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    """Return how many bundles fit on a node."""
    return min(_parts(name, node.get(name, 0.0), amount) for name, amount in bundle.items())


def _parts(name: str, there: float, amount: float) -> int:
    if name == "GPU" and amount < 1:
        # Ray takes a part of a GPU from one GPU: what is left of several adds up to nothing.
        return int(there) * int(1 / amount + 1e-9)
    return int(there / amount + 1e-9)


def _fits(strategy: str, rooms: Sequence[int], actors: int) -> bool:
    """Return whether nodes with room for so many bundles each can hold one for every actor."""
    if strategy == "STRICT_PACK":
        return max(rooms, default=0) >= actors
    if strategy == "STRICT_SPREAD":
        return sum(room > 0 for room in rooms) >= actors
    return sum(rooms) >= actors


def _most(strategy: str, rooms: Sequence[int]) -> str:
    """Return how many bundles nodes with room for so many each can hold, in words."""
    if strategy == "STRICT_PACK":
        return f"{max(rooms, default=0)} such actors on one node"
    if strategy == "STRICT_SPREAD":
        return f"{sum(room > 0 for room in rooms)} such actors, each on a node of its own"
    return f"{sum(rooms)} such actors"


def _remedies(plan: Plan, recipe: Recipe, placement: Placement, nodes: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what to change in a plan that does not fit; each alone is enough."""

    def fits(**changes: Any) -> bool:
        try:
            choose_placement(replace(plan, **changes), recipe, placement.actors, nodes)
        except PlanError:
            return False
        return True

    remedies = []
    looser = placement.strategy.removeprefix("STRICT_")
    if looser != placement.strategy and fits(placement=looser):
        remedies.append(f"set plan.placement={looser}")
    if placement.gpus and not any(node.get("GPU", 0.0) for node in nodes):
        besides = "" if fits(gpus_per_learner=0) else " and lower plan.cpus_per_learner"
        remedies.append(f"set plan.gpus_per_learner=0{besides}")
    else:
        remedies.append("lower plan.cpus_per_learner or plan.gpus_per_learner (fractions are allowed)")
    return [*remedies, "lower method.num_segments or the number of method.peers"]


def _does_not_fit(placement: Placement, nodes: Sequence[Mapping[str, float]], remedies: Sequence[str]) -> PlanError:
    rooms = [_room(node, placement.bundle) for node in nodes]
    there = "; ".join(
        f"node {index + 1}: {node.get('CPU', 0.0):g} CPU, {node.get('GPU', 0.0):g} GPU"
        for index, node in enumerate(nodes)
    )
    return PlanError(
        f"the plan does not fit: it asks for {placement.describe()}, but there is room for "
        f"{_most(placement.strategy, rooms)} ({there or 'no node is alive'}); {', '.join(remedies)}, or add nodes"
    )


def store_bytes_needed(team: Team, plan: Plan, transport: Literal["direct", "object_store"] = "object_store") -> int:
    """Return the bytes of object store that a run needs at most: messages in flight, and one checkpoint.

    On direct links only batches are in the store: those of two chunks in flight, and of one that is being filled.
    """
    window, programs = plan.steps_in_flight(len(team.learners)), team.programs.values()
    if transport == "object_store":
        in_flight = max(program.bytes_per_step for program in programs) * (window + 1)
    else:
        batch = max(program.messages[BATCH].bytes for program in programs)
        in_flight = max(batch * (window + 1), 3 * (CHUNK_BYTES + batch))
    parameters = team.trained_parameters
    return in_flight + parameters * _STATE_BYTES_PER_PARAMETER


@dataclass(frozen=True)
class Store:
    """A private Ray's object store.

    Attributes:
        bytes: its size.
        on_disk: whether its memory is a file, and not shared memory.
        caution: what the user should know of it; empty where there is nothing.
    """

    bytes: int
    on_disk: bool = False
    caution: str = ""


def choose_store(
    plan: Plan,
    needed: int,
    shared_memory_free: int,
    transport: Literal["direct", "object_store"],
    history: int = 0,
) -> Store:
    """Return the object store of a private Ray: with room to spare, or a smaller one, or one on disk if it has to be.

    Args:
        plan: says a size, or leaves it open.
        needed: bytes that it has to have at least.
        shared_memory_free: bytes that shared memory has.
        transport: how messages travel; on direct links hardly anything waits for the store, which then may be slow.
        history: bytes beside the needed ones with which a lost learner can come back alone; left out where shared
            memory would be more than half full.

    Raises:
        PlanError: the messages in flight do not fit into what the plan gives or shared memory has.
    """
    stated, least = plan.object_store_bytes, max(needed, _RAY_LEAST_STORE)
    if stated is not None and stated < needed:
        raise PlanError(
            f"plan.object_store_bytes is {stated:,}, but the messages of plan.window steps and a checkpoint need "
            f"{needed:,} bytes; raise it, or lower plan.window or data.batch_size"
        )
    kept = _HISTORY if transport == "object_store" and plan.recovery.max_failures else 0
    if kept < history and kept and needed + _STORE_SLACK + history <= shared_memory_free // 2:
        kept = history
    wanted = stated or max(needed + _STORE_SLACK + kept, _SMALLEST_STORE)
    if wanted <= shared_memory_free:
        return Store(wanted)
    if stated is None and least <= shared_memory_free:
        return Store(shared_memory_free)
    if transport == "direct":
        return Store(
            wanted if stated is not None else least,
            on_disk=True,
            caution=f"shared memory has {shared_memory_free:,} bytes free, so the object store of {least:,} bytes is a "
            "file on disk; on direct links little passes through it",
        )
    gigabytes = -(-(wanted + wanted // 10) // 10**9)
    remedies = ["set plan.transport=direct, which needs little of it"]
    # Fewer messages change nothing while the plan says the size, or where Ray's least store is too large.
    if stated is not None and least <= shared_memory_free:
        remedies.append("leave plan.object_store_bytes out")
    elif needed > _RAY_LEAST_STORE:
        without = "" if stated is None else "leave plan.object_store_bytes out and "
        remedies.append(f"{without}lower plan.window or data.batch_size")
    remedies.append(f"give this machine or container more shared memory (docker run --shm-size={gigabytes}g)")
    raise PlanError(
        f"the object store needs {wanted if stated is not None else least:,} bytes, but shared memory has "
        f"{shared_memory_free:,} free; {', '.join(remedies[:-1])}, or {remedies[-1]}"
    )


def check_store_bytes(needed: int, store_bytes: int) -> None:
    """Refuse a run whose messages do not fit into the object store of a cluster that is there already.

    Raises:
        PlanError: says both sizes.
    """
    if needed > store_bytes:
        raise PlanError(
            f"the messages of plan.window steps and a checkpoint need {needed:,} bytes of object store, but the "
            f"smallest node has {store_bytes:,}; lower plan.window or data.batch_size, or start the nodes with a "
            "larger --object-store-memory"
        )
