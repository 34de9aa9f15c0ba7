"""Waiting for Ray: for as long as a private Ray lives, and known to whoever may have to end it.

Ray itself waits for ever for a part of it that hangs, and ends this process when a part of it has ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from engine.errors import RayEnded
from engine.runtimes.ray.private.current import current_private_ray

SLICE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
# Until it is known how the processes of Ray are, when an actor is gone: where the system tells, and elsewhere. They may
# end after the actor, where somebody ends all of them.
_MOMENT_SECONDS = 0.25
_DYING_SECONDS = 2.0

_waits = 0
_counted = threading.Lock()


@contextlib.contextmanager
def waiting_for_ray() -> Iterator[None]:
    """Mark a block in which Ray is asked for something and may never answer."""
    global _waits
    with _counted:
        _waits += 1
    try:
        yield
    finally:
        with _counted:
            _waits -= 1


def is_waiting_for_ray() -> bool:
    """Return whether some thread of this process waits for Ray."""
    return _waits > 0


def get_while_alive(references: Any, look: Callable[[], None] = lambda: None) -> Any:
    """As `ray.get`, for one reference or a list of them.

    Args:
        references: what is waited for.
        look: called now and then while it does not come; what it raises ends the waiting.

    Raises:
        RayEnded: the private Ray has ended meanwhile.
        ray.exceptions.RayError: as `ray.get`.
    """
    with waiting_for_ray():
        while True:
            # Also while all answers come in time, as those of a Ray of which a part hung.
            check_alive()
            try:
                return ray.get(references, timeout=SLICE_SECONDS)
            except ray.exceptions.GetTimeoutError as error:
                if isinstance(error, ray.exceptions.RayTaskError):  # of what was called, not of this waiting
                    raise
                check_alive()
                look()


def put_while_alive(value: Any) -> Any:
    """As `ray.put`.

    Raises:
        RayEnded: the private Ray has ended; Ray would end this process.
    """
    with waiting_for_ray():
        check_alive()
        return ray.put(value)


def check_alive(patience_seconds: float = 0.0) -> None:
    """Raise RayEnded if the private Ray of this process has ended or hung, or does within some seconds."""
    private, deadline = current_private_ray(), time.monotonic() + patience_seconds
    while private is not None:
        if private.lost is not None:
            raise RayEnded(private.lost)
        if (hang := private.take_hang()) is not None:
            raise RayEnded(hang)
        if time.monotonic() >= deadline:
            return
        time.sleep(_PAUSE_SECONDS)


def check_after(error: BaseException) -> bool:
    """Raise RayEnded if an actor is gone because its private Ray is; return whether an actor is gone at all."""
    is_death = not isinstance(error, ray.exceptions.RayTaskError)
    if is_death:
        private = current_private_ray()
        check_alive(_MOMENT_SECONDS if private is not None and private.is_lost_at_once else _DYING_SECONDS)
    return is_death
