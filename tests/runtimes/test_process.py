"""Does the runtime in this process free messages as soon as it can, and leave torch as it found it?"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import LearnerState
from engine.data import Batch, Source, open_source
from engine.learners import Learner, PhaseFunction, UntrainedMember
from engine.methods import Team, method_of
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Numerics, Recipe
from engine.runtimes import ProcessRuntime


@pytest.fixture
def source(tiny_recipe: Callable[..., Recipe]) -> Iterator[Source]:
    recipe = tiny_recipe()
    opened = open_source(recipe.data, recipe.seed)
    yield opened
    opened.close()


def _open(recipe: Recipe, source: Source) -> tuple[ProcessRuntime, Team]:
    team = method_of(recipe).team(recipe, source.facts)
    return ProcessRuntime(recipe, source.facts, team, source.steps_per_epoch()), team


class Watcher(UntrainedMember):
    """A learner that gives tensors, and notes which of all that were given are still alive at each call."""

    def __init__(self) -> None:
        super().__init__("watcher", torch.device("cpu"))
        self.given: dict[str, weakref.ref[torch.Tensor]] = {}
        self.alive: list[set[str]] = []
        self.taken: list[list[str]] = []
        self.gives: dict[str, tuple[str, ...]] = {}

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        return {}

    def call(self, phase: str, batch: Batch | None, messages: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        gc.collect()
        self.alive.append({name for name, reference in self.given.items() if reference() is not None})
        self.taken.append([*([BATCH] if batch is not None else []), *messages])
        tensors = tuple(torch.ones(2) for _ in self.gives[phase])
        self.given.update({name: weakref.ref(t) for name, t in zip(self.gives[phase], tensors, strict=True)})
        return tensors

    def ask_memory(self) -> dict[str, int]:
        return {}

    def ask_state(self) -> LearnerState:
        return LearnerState({}, {})

    def restore(self, state: LearnerState) -> None:
        pass


def test_messages_are_freed_after_their_last_taker(tiny_recipe: Callable[..., Recipe], source: Source) -> None:
    calls = [
        Call("segment0", "forward", (BATCH,), ("x", "y")),
        Call("segment1", "restate", ("x", BATCH)),
        Call("segment2", "conclude", ("y", "x"), ("z",)),
        Call("segment0", "update", ("y",)),
        Call("segment1", "learn", ("z",)),
        Call("segment2", "adopt"),
    ]
    names = [name for call in calls for name in call.gives]
    messages = {name: Message(name, (((2,), "float32"),)) for name in names}
    messages[BATCH] = batch_message(2, (1, 2, 2))
    program = Program((Call(SOURCE, "next", (), (BATCH,)), *calls), messages, "training")
    runtime, _ = _open(tiny_recipe(), source)
    watcher = Watcher()
    watcher.gives = {call.phase: call.gives for call in calls}
    runtime._learners = dict.fromkeys(("segment0", "segment1", "segment2"), watcher)
    pixels, labels = np.zeros((2, 1, 2, 2), np.uint8), np.zeros(2, np.int64)
    runtime.submit(program, Batch(pixels, labels, labels, "train", 0, 0))
    runtime.close()
    assert watcher.taken == [[BATCH], [BATCH, "x"], ["y", "x"], ["y"], ["z"], []]
    assert watcher.alive == [set(), {"x", "y"}, {"x", "y"}, {"y", "z"}, {"z"}, set()]


def test_each_segment_frees_its_graph_before_the_next_one_starts(
    tiny_recipe: Callable[..., Recipe], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    runtime, team = _open(recipe, source)
    held: list[set[str]] = []
    call = Learner.call

    def noted(learner: Learner, *arguments: Any) -> Any:
        held.append(
            {
                name
                for name, other in runtime._learners.items()
                if isinstance(other, Learner) and other._pending is not None
            }
        )
        return call(learner, *arguments)

    monkeypatch.setattr(Learner, "call", noted)
    runtime.submit(team.program(0), source.batch(0, 0))
    runtime.close()
    assert held == [set(), {"segment0"}, set(), {"segment1"}, set(), {"segment2"}]


def test_settings_of_torch_are_put_back(tiny_recipe: Callable[..., Recipe], source: Source) -> None:
    def settings() -> tuple[Any, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
        )

    before = settings()
    runtime, _ = _open(tiny_recipe(numerics=Numerics(threads=before[0] + 1)), source)
    assert torch.get_num_threads() == before[0] + 1
    assert torch.are_deterministic_algorithms_enabled()
    runtime.close()
    assert settings() == before


def test_global_random_state_is_not_touched(tiny_recipe: Callable[..., Recipe], source: Source) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    runtime, team = _open(tiny_recipe(), source)
    runtime.submit(team.program(0), source.batch(0, 0))
    for batch in source.evaluation_batches("test"):
        runtime.submit(team.evaluation, batch)
    runtime.close()
    assert torch.get_rng_state().equal(before)


def test_questions_are_answered_by_all(tiny_recipe: Callable[..., Recipe], source: Source) -> None:
    runtime, team = _open(tiny_recipe(), source)
    runtime.submit(team.program(0), source.batch(0, 0))
    for question in ("metrics", "score", "memory", "state"):
        assert tuple(runtime.ask(question).result()) == team.names
    assert runtime.ask("metrics").result() == {name: {} for name in team.names}
    assert set(runtime.describe()) == set(team.names)
    runtime.close()
