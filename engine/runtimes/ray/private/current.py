"""The private Ray that this process is connected to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import ray

from engine.runtimes.ray.private.lifetime import PrivateRay

_current: PrivateRay | None = None
# Whether who is done with it leaves it to who comes next, and whether somebody has.
_is_to_be_left = _is_left = False


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


@contextlib.contextmanager
def lasting_private_ray() -> Iterator[None]:
    """Let one team leave a private Ray that is well to the next inside the block, for Ray takes seconds to start.

    One that nobody has taken over is ended behind the block.
    """
    global _is_to_be_left
    _is_to_be_left = True
    try:
        yield
    finally:
        _is_to_be_left = False
        if take_over_private_ray():
            close_private_ray()


def leave_private_ray() -> bool:
    """Leave a private Ray to whoever comes next, if that is wanted and it is well; returns whether it was left.

    It is left once: a team that cannot be started on it may be started on another.
    """
    global _is_left, _is_to_be_left
    _is_left = _is_to_be_left and _current is not None and _current.is_well
    _is_to_be_left = _is_to_be_left and not _is_left
    return _is_left


def take_over_private_ray() -> bool:
    """Return whether a private Ray was left, and has to be ended by the caller from now on."""
    global _is_left
    was_left, _is_left = _is_left, False
    return was_left


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
