"""Notices: nodes that a cluster is about to take away.

Ray says which nodes it drains, and until when: of spot machines that their owner wants back, of pods that are deleted
(`ray start --block` drains its node on SIGTERM), of what its autoscaler lets go. They get no new actors.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray._private import worker as ray_worker

from engine.errors import GOES_ON, DriverPreempted, EngineError, LearnerPreempted
from engine.runtimes.ray.private.current import current_private_ray
from engine.runtimes.stopped import STOPPED_SECONDS

_POLL_SECONDS = 5.0
# It answers in one or two thousandths of a second, or is away.
_ANSWER_SECONDS = 1.0


def draining_nodes() -> Mapping[str, float]:
    """Return the ids of nodes that are being drained, and when each will end, as `time.time`; 0 where nobody knows.

    None are where Ray is private, and where its first process does not answer, of which others will hear.
    """
    return _ask() or {}


def _ask() -> Mapping[str, float] | None:
    """As `draining_nodes`; None where Ray's first process does not answer."""
    if current_private_ray() is not None:
        return {}
    try:
        found = ray_worker.global_worker.gcs_client.get_draining_nodes(timeout=_ANSWER_SECONDS)
        return {node: milliseconds / 1000 for node, milliseconds in found.items()}
    except (AttributeError, TypeError):
        # Not public, so not relied on: without it nodes end without notice.
        return {}
    except Exception:  # Ray raises what it likes
        return None


class _Silence:
    """A time in which a cluster's first process does not answer; it is not ours to end."""

    def __init__(self) -> None:
        self._since, self._clock, self._has_told = time.monotonic(), time.strftime("%H:%M:%S"), False

    def tell(self) -> None:
        """Say so, once, when it has lasted."""
        if not self._has_told and time.monotonic() - self._since > STOPPED_SECONDS:
            self._has_told = True
            logging.getLogger(__name__).warning(
                "the GCS of the cluster has not answered since %s: training goes on, but a learner that is lost does "
                "not come back before it answers",
                self._clock,
            )


class Drains:
    """Looks now and then whether a node of a team is being drained.

    Args:
        places: where the learners live, as `LearnerActor.build` says.
        here: the id of the node to which this process is connected.
    """

    def __init__(self, places: Mapping[str, Mapping[str, Any]], here: str) -> None:
        self._places, self._here = places, here
        self._ends: dict[str, float] = {}
        self._asked = time.monotonic()
        self._silence: _Silence | None = None

    def notice(self) -> EngineError | None:
        """Return what a training has to end with in time, and may go on from elsewhere; None while all nodes stay.

        Asks Ray every few seconds at most, however often it is called; it never raises.
        """
        now = time.monotonic()
        if now - self._asked < _POLL_SECONDS:
            return None
        self._look()
        self._asked = time.monotonic()
        if self._here in self._ends:
            return DriverPreempted(f"the node of the training itself is draining{self._rest(self._here)} ({GOES_ON})")
        for name, place in self._places.items():
            if place["node"] in self._ends:
                where = f"its node {place['address']} is draining{self._rest(place['node'])}"
                return LearnerPreempted(name, f"{where} ({GOES_ON})")
        return None

    def was_told_of(self, learner: str) -> bool:
        """Return whether the node of a learner that is gone was being drained."""
        self._look()
        return self._places.get(learner, {}).get("node") in self._ends

    def _look(self) -> None:
        found = _ask()
        if found is None:
            self._silence = self._silence or _Silence()
            self._silence.tell()
        else:
            # A node that has ended is draining no more.
            self._silence, self._ends = None, {**self._ends, **found}

    def _rest(self, node: str) -> str:
        seconds = self._ends[node] - time.time()
        return f", and ends in {seconds:.0f} s" if seconds > 0 else ""


def drains_of(places: Mapping[str, Mapping[str, Any]]) -> Drains:
    """Return what looks after the nodes of a team of the Ray to which this process is connected."""
    return Drains(places, ray.get_runtime_context().get_node_id())
