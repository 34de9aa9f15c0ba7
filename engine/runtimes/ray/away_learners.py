"""Learners without which the others go on, and which return when they are built anew."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import ray

from engine.checkpoints import LearnerState
from engine.errors import GOES_ON, LearnerError, LearnerLost
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.building import Building


class AwayLearners:
    """The learners of a team that are away, until all of them are built again.

    Args:
        actors: the team, of which those that are away are no part.
    """

    def __init__(self, actors: LearnerActors) -> None:
        self._actors = actors
        self._building: list[Building] = []
        self._states: dict[str, LearnerState] = {}
        self.away = set[str]()
        """Names of the learners."""

    def begin(self, states: Mapping[str, LearnerState]) -> None:
        """End what is left of learners, and build them anew meanwhile.

        Args:
            states: with which each of them will return.
        """
        self._actors.leave(states)
        self._states |= states
        self.away |= states.keys()
        self._building.append(self._actors.start_building(states))

    def completed(self, states: Mapping[str, LearnerState]) -> dict[str, LearnerState]:
        """Return states of a whole team: a learner that did not say has the state with which it returns."""
        return {**self._states, **states}

    def are_built(self, patience_seconds: float) -> bool:
        """Return whether all that are away could return, within some seconds for each.

        Raises:
            LearnerLost: one was not built in time.
        """
        try:
            return all(building.is_over(patience_seconds) for building in self._building)
        except LearnerError as error:
            raise _not_back(error) from error

    def end(self) -> Collection[str]:
        """Take up all that were away, all of which are built; returns their names.

        Raises:
            LearnerLost: one could not be built, or has ended again.
        """
        returned = sorted(self.away)
        try:
            for building in self._building:
                self._actors.take_up(building)
            self._actors.set_out({name: self._states[name] for name in returned})
        except LearnerError as error:
            raise _not_back(error) from error
        self._building.clear()
        self.away.clear()
        return returned

    def close(self) -> None:
        """End those that are being built."""
        for building in self._building:
            for actor in building.handles.values():
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    ray.kill(actor)
        self._building.clear()


def _not_back(error: LearnerError) -> LearnerLost:
    """Return the error of a learner that was lost before, whatever has kept it from returning."""
    cause: Any = error.cause.replace(f" ({GOES_ON})", "")
    return LearnerLost(error.learner, f"{cause}, when it was to return ({GOES_ON})", error.details)
