"""Runs all learners in turn in this process: the reference that every other runtime must equal.

Each segment updates, and so frees its graph, before the next one starts: memory peaks at the largest segment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from engine.checkpoints import LearnerState
from engine.data import Batch, Facts
from engine.learners import Member, choose_device, numerics_applied
from engine.methods import Team, method_of
from engine.program import BATCH, SOURCE, Program
from engine.recipes import Recipe
from engine.runtimes.calls import make_call
from engine.runtimes.runtime import Losses


class _Ready:
    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def result(self) -> dict[str, Any]:
        return self._values


class ProcessRuntime:
    """All learners of a team, in this process and on one device."""

    def __init__(self, recipe: Recipe, facts: Facts, team: Team, steps_per_epoch: int) -> None:
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(numerics_applied(recipe.numerics))
        self._device = choose_device(recipe.numerics, torch.cuda.is_available())
        method = method_of(recipe)
        self._learners: dict[str, Member] = {
            name: method.build_learner(recipe, facts, steps_per_epoch, name, self._device) for name in team.names
        }

    def submit(self, program: Program, batch: Batch) -> None:
        """Run the calls of a program one after another; messages are dropped after their last taker.

        The batch is given read-only, as from an object store: a phase that writes to its arrays fails in every runtime.
        """
        batch = batch.read_only()
        messages: dict[str, torch.Tensor] = {}
        for place, call in enumerate(program.calls):
            if call.learner == SOURCE:
                continue
            taken = {name: messages[name] for name in call.takes if name != BATCH}
            gives = program.given_by(call)
            given = make_call(
                self._learners[call.learner], call.phase, batch if BATCH in call.takes else None, taken, gives
            )
            messages.update(zip(call.gives, given, strict=True))
            for name in call.takes:
                if program.last_taker(name) == place:
                    messages.pop(name, None)

    def ask(self, question: str) -> _Ready:
        """Return the learners' answers, at once."""
        return _Ready({name: learner.ask(question) for name, learner in self._learners.items()})

    def restore(self, states: Mapping[str, LearnerState]) -> None:
        """Give each learner the state of a checkpoint."""
        for name, learner in self._learners.items():
            learner.restore(states[name])

    def keep_for_losses(self, losses: Losses) -> str:
        """Nobody is lost alone."""
        return "all learners are in this process"

    needs_states = False

    def finish(self) -> None:
        """No step is ever in flight here, though a GPU may still do what it was asked for."""

    def notice(self) -> None:
        """This process has no node that could be drained."""

    def activity(self) -> None:
        """Nobody else is ever waited for."""

    def abandon(self) -> None:
        """Nobody else is ever waited for."""

    def describe(self) -> dict[str, str]:
        """Return where each learner lives, in words."""
        return dict.fromkeys(self._learners, f"this process, {self._device}")

    def close(self) -> None:
        """Let the learners go, and put torch's settings back."""
        self._learners.clear()
        self._settings.close()
