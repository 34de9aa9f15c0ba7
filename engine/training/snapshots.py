"""Snapshots: what all learners knew after a step, in this process's memory, for a team that is started again.

A checkpoint outlives this process and costs a disk's time; a snapshot costs the learners a copy. What a learner's
knowledge store has changed since the newest checkpoint is kept here until the next one holds it: a store says once, to
whoever asks first, what it has changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from engine.checkpoints import KNOWLEDGE_FOLLOWS, Checkpoint, LearnerState
from engine.knowledge import merge_changes
from engine.learners.memory import tensor_bytes

# Of the time that training takes.
_MOST_SHARE = 0.01
# What a learner copies out of itself in a second, and whoever asked out of the object store; most machines do better.
_BYTES_PER_SECOND = 5e8
# A question ends a chunk of steps that learners make by themselves, however little there is to be copied.
_FEWEST_SECONDS = 2.0


class Snapshots:
    """Decides when snapshots are taken, and keeps the newest.

    Args:
        every: steps between two; unless given as many as keep the time for them at one percent of all.
        are_wanted: False where no team is started again, or not by this process.

    Attributes:
        are_wanted: as given.
        step: of the newest one; -1 before there is one.
        latest: scores as they were known then.
    """

    def __init__(self, every: int | None = None, are_wanted: bool = True) -> None:
        self._every, self.are_wanted = every, are_wanted
        self._states: dict[str, LearnerState] = {}
        self._asked = 0
        self._bytes = 0
        self.step = -1
        self.latest: Mapping[str, float] = {}

    def begin(self, step: int) -> None:
        """Take note that training begins, or goes on, after a step; a snapshot of another step is forgotten."""
        self._asked = step
        if step != self.step:
            self.saved()

    def is_due(self, step: int, step_seconds: float | None) -> bool:
        """Return whether one is to be taken after a step.

        Args:
            step: the last that was submitted.
            step_seconds: how long a step takes, if that is known yet.
        """
        if not self.are_wanted:
            return False
        every = self._every
        if every is None:
            if step_seconds is None:
                return False
            seconds = max(_FEWEST_SECONDS, self._bytes / _BYTES_PER_SECOND / _MOST_SHARE)
            every = math.ceil(seconds / step_seconds)
        return step - self._asked >= every

    def asked(self, step: int) -> None:
        """Take note that all learners are asked for their states after a step."""
        self._asked = step

    def keep(self, step: int, states: Mapping[str, LearnerState], latest: Mapping[str, float]) -> None:
        """Keep the states of all learners after a step, instead of those of an earlier one."""
        self._states = {name: _after(self._states.get(name), state) for name, state in states.items()}
        self._bytes = sum(tensor_bytes([*s.tensors.values(), *s.knowledge.values()]) for s in states.values())
        self.step, self.latest = step, dict(latest)

    @property
    def states(self) -> Mapping[str, LearnerState]:
        """The newest states of all learners, with what their knowledge has changed since the newest checkpoint."""
        return self._states

    def saved(self) -> None:
        """Take note that a checkpoint holds all that the newest one does, which is let go."""
        self._states, self.step, self.latest = {}, -1, {}

    def after(self, checkpoint: Checkpoint | None) -> dict[str, LearnerState] | None:
        """Return whole states for learners that go on from the newest snapshot.

        Args:
            checkpoint: the newest one on the disk.

        Returns:
            None where that is as new, or where what their knowledge stores have changed does not follow it.
        """
        if self.step <= (checkpoint.step if checkpoint is not None else 0):
            return None
        whole = {}
        for name, state in self._states.items():
            extra = {**state.extra}
            follows = extra.pop(KNOWLEDGE_FOLLOWS, None)
            known = checkpoint.states[name].knowledge if checkpoint is not None else {}
            if state.knowledge and follows is not None and (checkpoint is None or follows != checkpoint.step):
                return None
            pieces = [piece for piece in (known if follows is not None else {}, state.knowledge) if piece]
            whole[name] = LearnerState(state.tensors, extra, merge_changes(pieces) if pieces else {})
        return whole


def _after(before: LearnerState | None, state: LearnerState) -> LearnerState:
    """Return a state whose changes of knowledge hold those of the one before, too."""
    if before is None or not before.knowledge:
        return state
    return LearnerState(
        state.tensors,
        {**state.extra, KNOWLEDGE_FOLLOWS: before.extra[KNOWLEDGE_FOLLOWS]},
        merge_changes([before.knowledge, state.knowledge]),
    )
