"""The rendezvous of the processes of a job, on this machine alone."""

from __future__ import annotations

import datetime
import os

import torch
import torch.distributed as dist

from engine.benchmarking.baselines.job import Job
from engine.errors import PlanError


def meet(job: Job) -> None:
    """Let all processes of a job form torch's default group: gloo over loopback, or NCCL with a GPU for each.

    Raises:
        PlanError: this torch was built without what is needed.
    """
    on_cpu = job.device == "cpu"
    if not dist.is_available() or not (dist.is_gloo_available() if on_cpu else dist.is_nccl_available()):
        raise PlanError(f"this torch was built without {'gloo' if on_cpu else 'NCCL'}")
    # No port that another machine could reach.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    if not on_cpu:
        torch.cuda.set_device(torch.device(job.device))
    dist.init_process_group(
        "gloo" if on_cpu else "nccl",
        init_method=f"file://{job.store}",
        rank=job.rank,
        world_size=job.workers,
        timeout=datetime.timedelta(seconds=job.timeout_seconds),
    )


def first_reason(reason: str) -> str:
    """Return the reason of the first process that has one, the same in all that met; "" if none has any.

    Args:
        reason: of this process; "" if it has none.
    """
    if not dist.is_available() or not dist.is_initialized():
        return reason
    reasons: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    return next(filter(None, reasons), "")
