"""The private Ray that this process is connected to."""

from __future__ import annotations

import ray

from engine.runtimes.ray.private.lifetime import PrivateRay

_current: PrivateRay | None = None


def open_private_ray(
    cpus: int, gpus: int, object_store_bytes: int | None, on_disk: bool, hanging_seconds: float
) -> None:
    """Start a private Ray and connect this process to it; see `PrivateRay`."""
    global _current
    close_private_ray()
    _current = PrivateRay(cpus, gpus, object_store_bytes, on_disk, hanging_seconds)


def current_private_ray() -> PrivateRay | None:
    """Return the private Ray that this process is connected to; None where it is another one, or none."""
    return _current


def close_private_ray() -> None:
    """Disconnect from a Ray, whichever it is, and end it if it is a private one of this process."""
    global _current
    # Somebody may have disconnected from a private one, which then has ended, and connected to another.
    if _current is None or _current.has_ended:
        _current = None
        ray.shutdown()
        return
    try:
        _current.close()
    finally:
        _current = None
