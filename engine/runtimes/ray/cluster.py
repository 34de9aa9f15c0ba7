"""Starts a private Ray on this machine or joins a cluster, and says what its nodes have."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import ray
import torch
from ray._private import ray_constants
from ray._private import worker as ray_worker

from engine.errors import PlanError
from engine.recipes import Plan
from engine.runtimes.ray.placement import check_store_bytes, choose_store_bytes


def private_node() -> dict[str, float]:
    """Return what a private Ray on this machine has: the CPUs that this process may use, and the GPUs torch sees."""
    return {"CPU": float(len(os.sched_getaffinity(0))), "GPU": float(torch.cuda.device_count())}


def start_private_ray(object_store_bytes: int | None = None, num_cpus: int | None = None) -> None:
    """Start a Ray that only this machine can reach, and that ends with this process.

    Args:
        object_store_bytes: size of the object store; Ray's default unless given.
        num_cpus: CPUs to offer; all that this process may use unless given.
    """
    # Read by Ray when it starts: no usage reports, and no lower priority for the actors than for the driver.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A learner lives in a thread of its own, for which glibc would keep memory apart, which it cannot be told to hold.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    # Ray's head process never comes back on a machine of its own: without it nothing waits for a minute.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    _keep_output_clean()
    with _loopback_only():
        ray.init(
            address="local",
            num_cpus=num_cpus or int(private_node()["CPU"]),
            num_gpus=int(private_node()["GPU"]),
            object_store_memory=object_store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts inside the block listen on 127.0.0.1 alone.

    Ray does so where clusters are switched off, as by default on macOS; elsewhere it listens on every interface,
    also when it is told that the node's address is 127.0.0.1.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _keep_output_clean() -> None:
    """Silence what Ray says of a dead worker, also with ``log_to_driver=False``.

    It would be printed to standard output, which is for results, and LearnerError says more.
    """
    # Of calls that fail because of the first failure, and whose answers nobody waits for any more.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")

    def to_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        logging.getLogger("ray").info("%s", "\n".join(data["lines"]))

    ray_worker.print_to_stdstream = to_log


def shared_memory_free() -> int:
    """Return the bytes that a private Ray's object store can take: shared memory, or main memory without one."""
    if os.path.isdir("/dev/shm"):
        return int(psutil.disk_usage("/dev/shm").free)
    return int(psutil.virtual_memory().available)


def connect(plan: Plan, needed_store_bytes: int) -> bool:
    """Make sure that this process is connected to a Ray with a large enough object store.

    A Ray to which the process is connected already is used as it is.

    Returns:
        whether a private Ray was started, which the caller has to shut down.

    Raises:
        PlanError: the cluster cannot be reached, or the object store is too small.
    """
    if ray.is_initialized():
        check_store_bytes(needed_store_bytes, _smallest_store())
        return False
    if plan.address is None:
        start_private_ray(choose_store_bytes(plan, needed_store_bytes, shared_memory_free()))
        return True
    _check_reachable(plan.address)
    _keep_output_clean()
    try:
        ray.init(address=plan.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PlanError(
            f"plan.address={plan.address}: no Ray answers there ({str(error).splitlines()[0]}); start one with "
            "`ray start --head` or `ray up cluster.yaml`, or leave plan.address out for a private Ray"
        ) from error
    try:
        check_store_bytes(needed_store_bytes, _smallest_store())
    except PlanError:
        ray.shutdown()
        raise
    return True


def _check_reachable(address: str) -> None:
    """Refuse an address at which nothing answers, where Ray would try again for many minutes."""
    found = _found_by_ray() if address == "auto" else address
    if found is None:
        return
    host, _, port = found.rpartition(":")
    if "://" in found or not host or not port.isdigit():
        raise PlanError(
            f"plan.address={address}: expected auto, or HOST:PORT of the cluster's head, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        which = f", which is {found}" if found != address else ""
        private = "; the private Ray of another training on this machine is no cluster" if found != address else ""
        raise PlanError(
            f"plan.address={address}{which}: nothing answers there ({error}){private}; start a Ray with "
            "`ray start --head` or `ray up cluster.yaml`, or leave plan.address out for a private Ray"
        ) from error


def _found_by_ray() -> str | None:
    """Return the address that Ray takes ``auto`` for; None where Ray itself has to say."""
    from ray._private import services

    # Not public, so not relied on: without it Ray is asked, as before.
    find = getattr(services, "canonicalize_bootstrap_address", None)
    try:
        found = find("auto") if find is not None else None
    except (ConnectionError, ValueError):
        return None
    return found if isinstance(found, str) and "://" not in found else None


def node_resources() -> list[Mapping[str, float]]:
    """Return what each node that is alive has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _smallest_store() -> int:
    stores = [int(node.get("object_store_memory", 0)) for node in node_resources()]
    return min((size for size in stores if size), default=0)
