"""Checks of `local-learning doctor`: processor, GPUs, memory, disk and compiler."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.cli.check import Check
from engine.errors import DataError, PlanError
from engine.machine import disk, existing, main_memory, shared_memory
from engine.tracking import format_bytes

_LITTLE_MEMORY = 2 * 2**30
_LITTLE_SHARED_MEMORY = 512 * 2**20
_LITTLE_DISK = 2**30


def machine_checks() -> Iterator[Check]:
    """Yield a check for each part of this machine."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("problem", "torch", f"cannot be imported: {error}", "install it anew: https://pytorch.org")
        return
    yield from _processors(torch.get_num_threads())
    yield _gpus()
    yield _memory()
    yield _shared_memory()
    yield _temporary_folder()
    yield from _disks()
    yield _compiler()


def _processors(threads: int) -> Iterator[Check]:
    yield Check("ok", "cores", f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}")
    yield Check("ok", "torch threads", f"{threads}; learners use numerics.threads instead, 1 by default")


def _gpus() -> Check:
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if gpus:
        return Check("ok", "GPUs", ", ".join(f"{gpu.name} ({format_bytes(gpu.total_memory)})" for gpu in gpus))
    if shutil.which("nvidia-smi"):
        build = f"was built for CUDA {torch.version.cuda}" if torch.version.cuda else "was built without CUDA"
        remedy = "install a torch that fits the driver (https://pytorch.org), or check CUDA_VISIBLE_DEVICES"
        return Check("warning", "GPUs", f"there is a driver, but torch sees no GPU; this torch {build}", remedy)
    return Check("ok", "GPUs", "none; learners compute on the CPU")


def _memory() -> Check:
    room = main_memory()
    found = f"{format_bytes(room.free)} free of {format_bytes(room.total)}"
    if room.free < _LITTLE_MEMORY:
        remedy = "end other programs, or train with --on process and a small data.batch_size"
        return Check("warning", "memory", found, remedy)
    return Check("ok", "memory", found)


def _shared_memory() -> Check:
    """Say what a private Ray would take, as a training does when it starts one."""
    from engine.recipes import Plan
    from engine.runtimes.ray.placement import choose_store

    room = shared_memory()
    found = f"{format_bytes(room.free)} free of {format_bytes(room.total)}"
    if room.free >= _LITTLE_SHARED_MEMORY:
        return Check("ok", "shared memory", found)
    if choose_store(Plan(), 0, room.free, "direct").on_disk:
        found += "; too little for Ray's object store, which is a file on disk then"
    remedy = (
        "messages on direct links, as on one machine by default, need little of it; for plan.transport=object_store "
        "start the container with more (docker run --shm-size=2g)"
    )
    return Check("warning", "shared memory", found, remedy)


def _temporary_folder() -> Check:
    """Say where the sockets of a private Ray would lie, as a training chooses it."""
    from engine.runtimes.ray.private.folder import choose_temporary_folder

    try:
        return Check("ok", "temporary folder", f"{choose_temporary_folder()}, for Ray's sockets and logs")
    except PlanError as error:
        return Check("problem", "temporary folder", str(error), "set TMPDIR, or use --on process")


def _disks() -> Iterator[Check]:
    from engine.data import cache_root

    yield _disk("disk of this folder", Path.cwd(), "--run-dir")
    try:
        cache = cache_root()
    except DataError as error:
        remedy = "sets that are read from files need a cache; set LOCAL_LEARNING_CACHE to a folder for it"
        yield Check("warning", "disk of the cache", str(error).partition(";")[0], remedy)
    else:
        yield _disk("disk of the cache", cache, "LOCAL_LEARNING_CACHE")


def _disk(subject: str, folder: Path, elsewhere: str) -> Check:
    room = disk(folder)
    found = f"{folder}, {format_bytes(room.free)} free of {format_bytes(room.total)}"
    if not os.access(existing(folder), os.W_OK):
        return Check("warning", subject, f"{folder}, cannot be written to", f"choose another with {elsewhere}")
    if room.free < _LITTLE_DISK:
        return Check("warning", subject, found, f"free some space, or choose another with {elsewhere}")
    return Check("ok", subject, found)


def _compiler() -> Check:
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        return Check("warning", "C++ compiler", "none; only numerics.compile=true needs one", "install g++ or clang")
    return Check("ok", "C++ compiler", found)
