"""Is a learner that does not keep to its program found out in the same words by every executor?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor

from engine.checkpoints import LearnerState
from engine.data import Batch, open_source
from engine.errors import LearnerError
from engine.learners import PhaseFunction, UntrainedMember
from engine.methods import LearnerSummary, Team, method_of
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Recipe
from engine.runtimes import ProcessRuntime, Runtime
from engine.runtimes.calls import make_call
from engine.runtimes.ray import ObjectStoreRuntime, StreamRuntime, disconnect, start_private_ray
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.placement import Placement

ROWS = 4
MESSAGES = {
    BATCH: batch_message(ROWS, (1, 2, 2)),
    **{name: Message(name, (((ROWS, 3), "float32"),)) for name in ("one", "two")},
}
PROGRAM = Program(
    (
        Call(SOURCE, "next", (), (BATCH,)),
        Call("giver", "forward", (BATCH,), ("one", "two")),
        Call("taker", "update", ("one", "two")),
    ),
    MESSAGES,
    "training",
)
GOOD = (torch.ones(ROWS, 3), torch.ones(ROWS, 3))
# By what is wrong: what the giver gives, and what the error says.
MISTAKES: dict[str, tuple[tuple[Tensor, ...], str]] = {
    "too few": (GOOD[:1], "learner giver: forward gave 1 of 2 messages that its call gives; 'two' missing"),
    "written to": (
        GOOD,
        "learner taker: update changes the message 'two' in place, which would change it for all who read it",
    ),
    "written to the images": (
        GOOD,
        "learner giver: forward of epoch 1, step 1: ValueError: assignment destination is read-only",
    ),
    "written to the labels": (
        GOOD,
        "learner giver: forward of epoch 1, step 1: ValueError: assignment destination is read-only",
    ),
    "another dtype": (
        (GOOD[0], GOOD[1].double()),
        "learner giver: forward gave the message 'two' as 4x3 float64, but its program states 4x3 float32 at most",
    ),
    "too large": (
        (torch.ones(ROWS, 4), GOOD[1]),
        "learner giver: forward gave the message 'one' as 4x4 float32, but its program states 4x3 float32 at most",
    ),
    "another rank": (
        (torch.ones(ROWS), GOOD[1]),
        "learner giver: forward gave the message 'one' as 4 float32, but its program states 4x3 float32 at most",
    ),
}


class Member(UntrainedMember):
    """Gives what it is told to, and makes the mistake that it is told to, where it can."""

    def __init__(self, name: str, given: tuple[Tensor, ...] = (), mistake: str = "") -> None:
        super().__init__(name, torch.device("cpu"))
        self._given, self._mistake = given, mistake

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        return {"forward": self._run, "update": self._run}

    def _run(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if batch is not None and self._mistake.startswith("written to the "):
            getattr(batch, self._mistake.rpartition(" ")[2])[0] = 0
        if self._mistake == "written to" and messages:
            messages["two"].mul_(1)
        return tuple(tensor.clone() for tensor in self._given)

    def ask_memory(self) -> dict[str, int]:
        return {}

    def ask_state(self) -> LearnerState:
        return LearnerState({}, {})

    def restore(self, state: LearnerState) -> None:
        pass


class Builder:
    """Builds both members where they live."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def build(self, name: str) -> Member:
        given = MISTAKES[self.mistake][0] if self.mistake else GOOD
        return Member(name, given if name == "giver" else (), self.mistake)


def _batch() -> Batch:
    return Batch(np.zeros((ROWS, 1, 2, 2), np.uint8), np.zeros(ROWS, np.int64), np.arange(ROWS), "train", 0, 0)


def _error(runtime: Runtime) -> LearnerError:
    try:
        with pytest.raises(LearnerError) as caught:
            runtime.submit(PROGRAM, _batch())
            runtime.finish()
    finally:
        runtime.close()
    return caught.value


@pytest.fixture
def in_process(tiny_recipe: Callable[..., Recipe]) -> Callable[[str], Runtime]:
    def open_runtime(mistake: str) -> Runtime:
        recipe = tiny_recipe()
        source = open_source(recipe.data, recipe.seed)
        runtime = ProcessRuntime(recipe, source.facts, method_of(recipe).team(recipe, source.facts), 1)
        source.close()
        runtime._learners = {name: Builder(mistake).build(name) for name in ("giver", "taker")}
        return runtime

    return open_runtime


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_process(mistake: str, in_process: Callable[[str], Runtime]) -> None:
    assert str(_error(in_process(mistake))) == MISTAKES[mistake][1]


def test_whoever_reads_a_batch_may_still_write_to_it_afterwards(in_process: Callable[[str], Runtime]) -> None:
    batch, runtime = _batch(), in_process("")
    runtime.submit(PROGRAM, batch)
    runtime.close()
    batch.images[0] = 1
    assert batch.images.flags.writeable and not batch.read_only().images.flags.writeable
    assert batch.read_only().images.ctypes.data == batch.images.ctypes.data


def test_what_a_phase_offers_beyond_its_call_is_left_out() -> None:
    assert make_call(Member("giver", GOOD), "forward", _batch(), {}, [MESSAGES["one"]]) == (pytest.approx(GOOD[0]),)
    assert make_call(Member("giver", GOOD), "forward", _batch(), {}, []) == ()


def test_a_smaller_batch_fits() -> None:
    (given,) = make_call(Member("giver", (GOOD[0][:1],)), "forward", _batch(), {}, [MESSAGES["one"]])
    assert given.shape == (1, 3)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    # Actors cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_private_ray(num_cpus=2)
    yield
    disconnect()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("transport", ["object store", "stream"])
@pytest.mark.parametrize("mistake", ["too few", "written to", "written to the images"])
def test_the_same_is_said_on_ray(mistake: str, transport: str) -> None:
    builder: Any = Builder(mistake)
    names = ("giver", "taker")
    team = Team(tuple(LearnerSummary(name, (), 0, 0) for name in names), (PROGRAM,), PROGRAM, {})
    actors = LearnerActors(builder, names, Placement(2, 1.0, 0.0, "PACK", 4), timeout=120.0, owns_ray=False)
    runtime: Runtime
    if transport == "stream":
        runtime = StreamRuntime(actors, team, None, 120.0, "test", lambda _: "memory")
    else:
        runtime = ObjectStoreRuntime(actors, 4, "test")
    error = _error(runtime)
    assert str(error) == MISTAKES[mistake][1]
    assert error.learner == ("taker" if mistake == "written to" else "giver")
