"""Saving and restoring of a learner: its state beside that of whatever it keeps of others."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.checkpoints import KNOWLEDGE_FOLLOWS, SELF_DISTILLATION, LearnerState, pack_state, unpack_state
from engine.learners.frozen_peers import FrozenPeers
from engine.learners.self_distillation.passes import SelfDistillation


class StateKeeper:
    """Saves and restores all that training changes in a learner, but for its counters.

    Args:
        body: the blocks.
        objective: with its auxiliary networks.
        optimizer: of all parameters.
        named: the parameters, by name.
        frozen: copies of other networks.
        self_distillation: how the network teaches itself, if it does.
    """

    def __init__(
        self,
        body: nn.Module,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        named: dict[str, nn.Parameter],
        frozen: FrozenPeers,
        self_distillation: SelfDistillation | None,
    ) -> None:
        self._parts = body, objective, optimizer, named
        self._frozen, self._self_distillation = frozen, self_distillation
        self._known_at: int | None = None

    def save(self, steps: int, extra: dict[str, Any]) -> LearnerState:
        """Return a copy of everything, after so many steps, with the counters of the learner."""
        state = pack_state(*self._parts, {"steps": steps, **extra})
        state.tensors.update(self._frozen.state())
        if self._self_distillation is not None:
            remembered = self._self_distillation.state()
            state.tensors.update({f"{SELF_DISTILLATION}{name}": value for name, value in remembered.items()})
            state.knowledge, state.extra[KNOWLEDGE_FOLLOWS] = self._self_distillation.knowledge(), self._known_at
            self._known_at = steps
        return state

    def restore(self, state: LearnerState) -> dict[str, Any]:
        """Take up what `save` returned; returns its counters, ``steps`` among them.

        Raises:
            RunError: names or shapes are not this learner's.
        """
        extra = unpack_state(state, *self._parts)
        self._frozen.restore(state.tensors)
        if self._self_distillation is not None:
            prefix = SELF_DISTILLATION
            found = {name: value for name, value in state.tensors.items() if name.startswith(prefix)}
            self._self_distillation.restore({name.removeprefix(prefix): value for name, value in found.items()})
            self._self_distillation.restore_knowledge(state.knowledge)
            self._known_at = extra["steps"]
        return extra
