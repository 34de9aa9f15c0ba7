"""Starts a private Ray on this machine or joins a cluster, and says what its nodes have."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Literal

import ray
import torch

from engine.errors import PlanError
from engine.machine import main_memory, shared_memory
from engine.reading import first_line
from engine.recipes import Plan
from engine.runtimes.ray.address import START_ONE, check_answers, check_same
from engine.runtimes.ray.drains import draining_nodes
from engine.runtimes.ray.placement import check_store_bytes, choose_store
from engine.runtimes.ray.private import last_exit
from engine.runtimes.ray.private.current import close_private_ray, open_private_ray, take_over_private_ray
from engine.runtimes.ray.private.folder import check_token_of_clusters
from engine.runtimes.ray.private.surroundings import connecting, keep_output_clean, safe_job
from engine.runtimes.ray.tokens import use_token
from engine.runtimes.stopped import STOPPED_SECONDS


def private_node() -> dict[str, float]:
    """Return what a private Ray on this machine has: the CPUs that this process may use, and the GPUs torch sees."""
    return {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}


def start_private_ray(
    object_store_bytes: int | None = None,
    num_cpus: int | None = None,
    on_disk: bool = False,
    hanging_seconds: float = STOPPED_SECONDS,
) -> None:
    """Start a Ray that only this process can use, and that ends with it; `disconnect` ends it sooner.

    Args:
        object_store_bytes: size of the object store; Ray's default unless given.
        num_cpus: CPUs to offer; all that this process may use unless given.
        on_disk: whether the object store's memory is a file among Ray's own, and not shared memory.
        hanging_seconds: how long one of its processes may be stopped before it counts as lost.

    Raises:
        PlanError: it does not start; says why.
    """
    node = private_node()
    open_private_ray(num_cpus or int(node["CPU"]), int(node["GPU"]), object_store_bytes, on_disk, hanging_seconds)


def disconnect() -> None:
    """Disconnect this process from Ray, and end a private one, within seconds also where Ray hangs."""
    close_private_ray()


def connect(
    plan: Plan,
    needed_store_bytes: int,
    transport: Literal["direct", "object_store"] = "object_store",
    history_bytes: int = 0,
) -> bool:
    """Make sure that this process is connected to a Ray with a large enough object store.

    A Ray to which the process is connected already is used as it is, also a private one that an earlier team has left.

    Args:
        plan: says which Ray.
        needed_store_bytes: that the object store has to have at least.
        transport: how messages travel; on direct links little is in a private Ray's store, which then may be slow.
        history_bytes: as of `choose_store`; left out where they would take more than half of the memory that is free.

    Returns:
        whether this process has to be disconnected by the caller, with `disconnect`.

    Raises:
        PlanError: the cluster cannot be reached or demands no token, or the object store is too small; or the process
            is connected to another Ray than the plan names.
    """
    if ray.is_initialized():
        if plan.address is not None:
            check_same(plan.address, ray.get_runtime_context().gcs_address)
        is_own = take_over_private_ray()
        try:
            check_store_bytes(needed_store_bytes, smallest_store())
        except PlanError:
            if is_own:
                disconnect()
            raise
        return is_own
    if plan.address is None:
        history = history_bytes if needed_store_bytes + history_bytes <= main_memory().free // 2 else 0
        store = choose_store(plan, needed_store_bytes, shared_memory().free, transport, history)
        if store.caution:
            logging.getLogger(__name__).warning(store.caution)
        hanging_seconds = plan.recovery.stall_seconds or STOPPED_SECONDS
        start_private_ray(store.bytes, on_disk=store.on_disk, hanging_seconds=hanging_seconds)
        return True
    found = check_answers(plan.address)
    check_token_of_clusters()
    use_token(plan.address, found)
    keep_output_clean()
    last_exit.take_over(last_exit.end_with_cluster)
    try:
        with connecting(on_loopback=False):
            ray.init(address=plan.address, job_config=safe_job(), log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray raises what it likes
        raise PlanError(
            f"plan.address={plan.address}: no Ray answers there ({first_line(error)}); {START_ONE}"
        ) from error
    try:
        check_store_bytes(needed_store_bytes, smallest_store())
    except PlanError:
        disconnect()
        raise
    return True


def node_resources() -> list[Mapping[str, float]]:
    """Return what each node has in all that is alive and not about to be taken away."""
    leaving = draining_nodes()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def smallest_store() -> int:
    """Return the bytes of the smallest object store of all nodes; 0 where there is none."""
    stores = [int(node.get("object_store_memory", 0)) for node in node_resources()]
    return min((size for size in stores if size), default=0)
