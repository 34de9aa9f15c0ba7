"""Finds the learner that is to blame when calls fail: one that failed or ended, not those that waited for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ray

from engine.errors import EngineError, LearnerLost
from engine.runtimes.ray.failures import LostStep, as_engine_error, is_death, original_error
from engine.runtimes.ray.processes import WatchedProcess
from engine.runtimes.ray.waiting import check_after, check_alive

CHECK_SECONDS = 5.0
"""How long the learners have to say how they are, when it is not known which one failed."""


class Culprits:
    """Knows a team's actors.

    Args:
        handles: by learner.
        places: actor's id and process of each, as `LearnerActor.build` says.
        watched: their processes, of those on this machine.
        was_draining: whether the node of a learner that is gone was being taken away by its cluster.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        places: Mapping[str, Mapping[str, Any]],
        watched: Mapping[str, WatchedProcess],
        was_draining: Callable[[str], bool],
    ) -> None:
        self._handles, self._places, self._watched, self._was_draining = handles, places, watched, was_draining

    def blame(self, learner: str, error: BaseException, ray_is_checked: bool = False) -> EngineError:
        """Return the error of the learner that is to blame, rather than of those that waited for it.

        Args:
            learner: whose call failed.
            error: what Ray raised.
            ray_is_checked: whether `check_after` has had a look at a death before.

        Raises:
            RayEnded: it is a private Ray that has ended.
        """
        error = original_error(error)
        if is_death(error) or isinstance(error, LostStep):
            learner, error = self._find(learner, error)
            # What came first may have been the word of a learner that waited for a dead one.
            if not ray_is_checked:
                check_after(error)
        if isinstance(error, LostStep):
            return LearnerLost(learner, str(error))
        return self._as_engine_error(learner, error)

    def lost(self) -> dict[str, LearnerLost]:
        """Return the learners whose processes have ended, and how.

        Raises:
            LearnerError: one of them has failed by itself, which explains more than what ended.
            RayEnded: the private Ray has ended.
        """
        found: dict[str, LearnerLost] = {}
        for name, error in self._check():
            if isinstance(error, LostStep):
                continue
            known = self._as_engine_error(name, error)
            if not isinstance(known, LearnerLost):
                raise known
            found[name] = known
        return found

    def _find(self, learner: str, error: BaseException) -> tuple[str, BaseException]:
        actor = getattr(error, "actor_id", None)
        for name, place in self._places.items():
            if actor is not None and place["actor"] == actor:
                return name, error
        # Ray does not say who it was, and a death explains more than a failure.
        culprits = [(name, why) for name, why in self._check() if not isinstance(why, LostStep)]
        return min(culprits, key=lambda pair: not is_death(pair[1]), default=(learner, error))

    def _check(self) -> list[tuple[str, BaseException]]:
        """Return what is wrong with each learner, of those with which something is; all are asked at once."""
        check_alive()
        names = {actor.check.remote(): name for name, actor in self._handles.items()}
        answered, _ = ray.wait(list(names), num_returns=len(names), timeout=CHECK_SECONDS)
        found = [(names[reference], _error_of(reference)) for reference in answered]
        return [(name, why) for name, why in found if why is not None]

    def _as_engine_error(self, learner: str, error: BaseException) -> EngineError:
        watched = self._watched.get(learner)
        ending = watched.ending() if watched is not None and is_death(error) else None
        was_draining = is_death(error) and self._was_draining(learner)
        place = self._places.get(learner, {})
        return as_engine_error(error, learner, place.get("pid"), ending, was_draining, place.get("address"))


def _error_of(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        return original_error(error)
    return None
