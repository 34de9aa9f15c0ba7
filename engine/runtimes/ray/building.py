"""Learners that are being built, each where it will live."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import ray

from engine.errors import LearnerError
from engine.runtimes.ray.actor import Builder
from engine.runtimes.ray.bundles import IN_TIME, Bundles
from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.ray.waiting import check_alive, waiting_for_ray


class Building:
    """Actors that build their learners, and what they will answer.

    Args:
        names: of the learners.
        bundles: in which the actors are created.
        builder: builds each learner where it lives.
        timeout: seconds in which they have to be built, for the message.
        deadline: as `time.monotonic`.

    Attributes:
        handles: the actors, by learner.
        answers: references to what `LearnerActor.build` returns.
    """

    def __init__(
        self, names: Collection[str], bundles: Bundles, builder: Builder, timeout: float, deadline: float
    ) -> None:
        self._timeout, self._deadline = timeout, deadline
        self.handles = {name: bundles.create(name, builder) for name in names}
        self.answers: dict[str, Any] = {name: actor.build.remote() for name, actor in self.handles.items()}

    def is_over(self, patience_seconds: float) -> bool:
        """Return whether all are built, or have failed, within some seconds.

        Raises:
            LearnerError: it is too late for one of them.
            RayEnded: the private Ray has ended meanwhile.
        """
        left = max(0.0, self._deadline - time.monotonic())
        with waiting_for_ray():
            check_alive()
            _, late = ray.wait(
                list(self.answers.values()), num_returns=len(self.answers), timeout=min(patience_seconds, left)
            )
        # A private Ray that is dead starts no actor any more, and does not say so.
        check_alive()
        if late and not left:
            name = next(name for name, reference in self.answers.items() if reference in late)
            raise LearnerError(
                name,
                f"did not start {IN_TIME}{self._timeout:g}; {_remedy()}",
            )
        return not late


def _remedy() -> str:
    if current_private_ray() is not None:
        return "raise it if this machine is slow"
    return (
        "raise it if the node is slow; if it is busy with other work, Ray's processes there give way to that (niceness "
        "15), unless its Ray is started with RAY_worker_niceness=0, as in RAY_worker_niceness=0 ray start ..."
    )
