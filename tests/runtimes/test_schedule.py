"""Do learners that walk their own parts of a program on links compute what running it in turn computes?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.checkpoints import LearnerState
from engine.data import Batch
from engine.errors import LearnerError
from engine.learners import PhaseFunction, UntrainedMember
from engine.phases import PHASES
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import Links, Way, routes_of
from engine.runtimes.ray.schedule import LearnerSchedule

PATIENCE = 20.0
Meet = Callable[..., dict[str, Links]]
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


def _program(calls: Sequence[Call], sizes: Mapping[str, int], name: str = "training") -> Program:
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
    return _program(calls, sizes, f"program {tag}")


def _learners(*found: Program) -> dict[str, Adder]:
    gives: dict[str, dict[str, tuple[int, ...]]] = {}
    for program in found:
        for call in program.calls[1:]:
            parts = [program.messages[name].parts[0][0][0] for name in call.gives]
            gives.setdefault(call.learner, {})[call.phase] = tuple(parts)
    return {name: Adder(name, phases) for name, phases in gives.items()}


def _batch(step: int) -> Batch:
    return Batch(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int64), np.zeros(1, np.int64), "train", 0, step)


def _in_turn(found: Sequence[Program], steps: Sequence[int]) -> dict[str, float]:
    learners = _learners(*found)
    for step, number in enumerate(steps):
        messages: dict[str, Tensor] = {}
        for call in found[number].calls[1:]:
            taken = {name: messages[name] for name in call.takes if name != BATCH}
            given = learners[call.learner].call(call.phase, _batch(step) if BATCH in call.takes else None, taken)
            messages.update(zip(call.gives, given, strict=True))
    return {name: learner.seen for name, learner in learners.items()}


def _on_links(
    meet: Meet,
    found: Sequence[Program],
    steps: Sequence[int],
    way: Way = "memory",
    fails: str | None = None,
    writes: str | None = None,
) -> tuple[dict[str, float], dict[str, BaseException]]:
    learners = _learners(*found)
    for learner in learners.values():
        learner.fails, learner.writes = learner.name == fails, learner.name == writes
    links = meet(routes_of(found), way)

    def walk(name: str) -> None:
        own = links.get(name, Links({}, {}))
        route = LearnerSchedule(learners[name], found, own)
        try:
            for step, number in enumerate(steps):
                route.step(found[number].name, _batch(step))
        except BaseException:
            own.close()
            raise

    failures = {}
    with ThreadPoolExecutor(len(learners)) as pool:
        for name, future in {name: pool.submit(walk, name) for name in learners}.items():
            error = future.exception(PATIENCE)
            if error is not None:
                failures[name] = error
    return {name: learner.seen for name, learner in learners.items()}, failures


@settings(max_examples=40, deadline=None)
@given(first=programs(tag="0"), second=programs(tag="1"), steps=st.lists(st.integers(0, 1), min_size=1, max_size=9))
def test_any_two_programs_in_any_order(meet: Meet, first: Program, second: Program, steps: list[int]) -> None:
    """Nobody waits for ever, though every link has two frames only."""
    seen, failures = _on_links(meet, (first, second), steps)
    assert failures == {}
    assert seen == _in_turn((first, second), steps)


EXCHANGE = _program(
    [
        Call("a", "forward", (BATCH,), ("said_a",)),
        Call("b", "forward", (BATCH,), ("said_b",)),
        Call("a", "update", ("said_b",)),
        Call("b", "update", ("said_a",)),
    ],
    {"said_a": 8192, "said_b": 16},
)


@pytest.mark.parametrize("way", ["memory", "tcp", "nccl"])
def test_an_exchange(way: Way, meet: Meet) -> None:
    seen, failures = _on_links(meet, (EXCHANGE,), [0] * 50, way)
    assert failures == {}
    assert seen == _in_turn((EXCHANGE,), [0] * 50)


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_a_failure_wakes_everybody(failing: str, meet: Meet) -> None:
    """Also those that have no link to the one that failed."""
    calls = [
        Call("a", "forward", (BATCH,), ("one",)),
        Call("b", "forward", (BATCH, "one"), ("two",)),
        Call("c", "forward", (BATCH, "two"), ("three",)),
        Call("b", "update", ("three",)),
    ]
    program = _program(calls, {"one": 8192, "two": 16, "three": 16})
    _, failures = _on_links(meet, (program,), [0] * 1000, fails=failing)
    assert set(failures) == {"a", "b", "c"}
    assert str(failures.pop(failing)) == f"learner {failing}: as asked"
    assert all(isinstance(error, LostStep) for error in failures.values())


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_phase_that_writes_to_what_it_took_is_found_out(size: int, meet: Meet) -> None:
    calls = [Call("a", "forward", (BATCH,), ("one",)), Call("b", "update", ("one",))]
    _, failures = _on_links(meet, (_program(calls, {"one": size}),), [0], writes="b")
    assert "update changes the message 'one' in place" in str(failures["b"])
