"""The one kind of actor: it builds a learner where it will live, and runs that learner's phases."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import traceback
from collections.abc import Sequence
from typing import Any

import ray
import torch

from engine.data import Batch, Facts
from engine.errors import EngineError, LearnerError
from engine.learners import LearnerState, choose_device, explain, numerics_applied
from engine.methods import method_of
from engine.recipes import recipe_from_dict
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.messages import Packed, pack, unpack


class LearnerActor:
    """A learner on a device of its own.

    No weights travel: the actor gets the recipe as JSON and builds its learner itself. After a failure it answers
    every further call with the same error, so nothing goes on from a half-finished step.

    Args:
        recipe: JSON of the resolved recipe.
        facts: JSON of what is known of the data.
        steps_per_epoch: optimizer steps in an epoch.
        name: the learner's name.
        gpus_are_planned: whether this actor reserves a GPU or a part of one.
    """

    def __init__(self, recipe: str, facts: str, steps_per_epoch: int, name: str, gpus_are_planned: bool) -> None:
        self._recipe = recipe_from_dict(json.loads(recipe))
        self._facts = Facts.from_json(json.loads(facts))
        self._steps_per_epoch = steps_per_epoch
        self._name = name
        self._gpus_are_planned = gpus_are_planned
        self._failure: EngineError | None = None
        self._next = 0

    def build(self) -> dict[str, Any]:
        """Build the learner; returns its actor's id, process, node, host and device.

        Apart from the constructor, because Ray hides the cause of an error that is raised there.
        """
        # Ray's own handler raises SystemExit wherever the process happens to be, which may tell its parent the reason
        # or only an exit code; ended by the signal itself, the kernel tells.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            # Entered for the life of the process, which belongs to this learner alone.
            contextlib.ExitStack().enter_context(numerics_applied(self._recipe.numerics))
            device = choose_device(self._recipe.numerics, self._gpus_are_planned)
            self._learner = method_of(self._recipe).build_learner(
                self._recipe, self._facts, self._steps_per_epoch, self._name, device
            )
        except EngineError:
            raise
        except Exception as error:
            raise LearnerError(self._name, f"could not be built: {explain(error)}", traceback.format_exc()) from error
        named = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        context = ray.get_runtime_context()
        return {
            "actor": context.get_actor_id(),
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "host": os.uname().nodename,
            "device": named,
        }

    def check(self) -> None:
        """Raise what this learner failed with; a dead one does not even answer."""
        if self._failure is not None:
            raise self._failure

    def _expect(self, number: int) -> None:
        # Ray leaves out a call whose messages were never made, and would run the next one.
        if self._failure is None and number != self._next:
            self._failure = LostStep(f"learner {self._name}: call {self._next} never came")
        self._next = number + 1
        self.check()

    def call(self, number: int, phase: str, gives: int, names: Sequence[str], *values: Batch | Packed) -> Any:
        """Run one phase; the values are what the names name, the batch among them.

        Args:
            number: 0 for the first call or question, 1 for the next, and so on.
            phase: name of the phase.
            gives: how many messages the call gives; a phase may offer more.
            names: of the messages that it takes.
            values: those messages.
        """
        self._expect(number)
        try:
            batch = next((value for value in values if isinstance(value, Batch)), None)
            messages = {n: unpack(v) for n, v in zip(names, values, strict=True) if isinstance(v, Packed)}
            given = tuple(pack(tensor) for tensor in self._learner.call(phase, batch, messages)[:gives])
            return given[0] if len(given) == 1 else given or None
        except EngineError as error:
            self._failure = error
            raise
        except Exception as error:
            self._failure = LearnerError(self._name, explain(error))
            raise self._failure from error

    def ask(self, number: int, question: str) -> Any:
        """Answer a question between steps."""
        self._expect(number)
        return getattr(self._learner, f"ask_{question}")()

    def restore(self, state: LearnerState) -> None:
        """Take up the state of a checkpoint."""
        self._learner.restore(state)
