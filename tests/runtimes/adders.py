"""What do the tests of learners on links share: programs, and learners that add up what they are told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import LearnerError
from engine.learners import PhaseFunction, UntrainedMember
from engine.phases import PHASES
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message

# Some of a size that is read in place, some of one that is copied.
SMALL, LARGE = 16, 8192
# What each phase gives in the programs that are drawn.
GIVES = dict(
    zip(
        (name for name, phase in PHASES.items() if phase.use == "training"),
        itertools.cycle([(), (SMALL,), (LARGE, SMALL), (LARGE,), (SMALL, SMALL)]),
        strict=False,
    )
)


class Adder(UntrainedMember):
    """Gives sums of what it takes and of what it has seen, so that a mistake in any step is in all later ones."""

    def __init__(self, name: str, gives: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(name, torch.device("cpu"))
        self._gives = gives
        self.seen = 0.0
        self.fails = self.writes = False

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        return {}

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if self.fails and self.seen > 50:
            raise LearnerError(self.name, "as asked")
        if self.writes:
            next(iter(messages.values())).add_(1)
        self.seen += 1 + sum(float(tensor.double().mean()) for tensor in messages.values()) % 1000
        self.seen += 0 if batch is None else batch.step
        return tuple(torch.full((size,), self.seen) for size in self._gives.get(phase, ()))

    def ask_memory(self) -> dict[str, int]:
        return {}

    def ask_state(self) -> LearnerState:
        return LearnerState({}, {})

    def restore(self, state: LearnerState) -> None:
        pass


def program_of(calls: Sequence[Call], sizes: Mapping[str, int], name: str = "training") -> Program:
    messages = {each: Message(each, (((size,), "float32"),)) for each, size in sizes.items()}
    return Program((Call(SOURCE, "next", (), (BATCH,)), *calls), {BATCH: batch_message(1, (1, 1, 1)), **messages}, name)


@st.composite
def programs(draw: Any, names: tuple[str, ...] = ("a", "b", "c"), tag: str = "0") -> Program:
    calls: list[Call] = []
    sizes: dict[str, int] = {}
    for place in range(draw(st.integers(1, 8))):
        takes = tuple(draw(st.lists(st.sampled_from(sorted(sizes)), unique=True, max_size=3))) if sizes else ()
        phase = draw(st.sampled_from(sorted(GIVES)))
        takes += (BATCH,) if PHASES[phase].takes_batch else ()
        given = {f"m{tag}_{place}_{part}": size for part, size in enumerate(GIVES[phase])}
        sizes |= given
        calls.append(Call(draw(st.sampled_from(names)), phase, takes, tuple(given)))
    return program_of(calls, sizes, f"program {tag}")


def learners_of(*found: Program) -> dict[str, Adder]:
    gives: dict[str, dict[str, tuple[int, ...]]] = {}
    for program in found:
        for call in program.calls[1:]:
            parts = [program.messages[name].parts[0][0][0] for name in call.gives]
            gives.setdefault(call.learner, {})[call.phase] = tuple(parts)
    return {name: Adder(name, phases) for name, phases in gives.items()}


def batch_of(step: int) -> Batch:
    return Batch(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64), "train", 0, step)


def in_turn(found: Sequence[Program], steps: Sequence[int]) -> dict[str, float]:
    learners = learners_of(*found)
    for step, number in enumerate(steps):
        messages: dict[str, Tensor] = {}
        for call in found[number].calls[1:]:
            taken = {name: messages[name] for name in call.takes if name != BATCH}
            given = learners[call.learner].call(call.phase, batch_of(step) if BATCH in call.takes else None, taken)
            messages.update(zip(call.gives, given, strict=True))
    return {name: learner.seen for name, learner in learners.items()}


EXCHANGE = program_of(
    [
        Call("a", "forward", (BATCH,), ("said_a",)),
        Call("b", "forward", (BATCH,), ("said_b",)),
        Call("a", "update", ("said_b",)),
        Call("b", "update", ("said_a",)),
    ],
    {"said_a": 8192, "said_b": 16},
)
