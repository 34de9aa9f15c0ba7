"""Do learners that walk their own parts of a program on links compute what running it in turn computes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.program import BATCH, Call, Program
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import Links, Way, routes_of
from engine.runtimes.ray.schedule import LearnerSchedule
from tests.runtimes.adders import EXCHANGE, LARGE, SMALL, batch_of, in_turn, learners_of, program_of, programs

PATIENCE = 20.0
Meet = Callable[..., dict[str, Links]]


def _on_links(
    meet: Meet,
    found: Sequence[Program],
    steps: Sequence[int],
    way: Way = "memory",
    fails: str | None = None,
    writes: str | None = None,
) -> tuple[dict[str, float], dict[str, BaseException]]:
    learners = learners_of(*found)
    for learner in learners.values():
        learner.fails, learner.writes = learner.name == fails, learner.name == writes
    links = meet(routes_of(found), way)

    def walk(name: str) -> None:
        own = links.get(name, Links({}, {}))
        route = LearnerSchedule(learners[name], found, own)
        try:
            for step, number in enumerate(steps):
                route.step(found[number].name, batch_of(step))
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
    assert seen == in_turn((first, second), steps)


@pytest.mark.parametrize("way", ["memory", "tcp", "nccl"])
def test_an_exchange(way: Way, meet: Meet) -> None:
    seen, failures = _on_links(meet, (EXCHANGE,), [0] * 50, way)
    assert failures == {}
    assert seen == in_turn((EXCHANGE,), [0] * 50)


@pytest.mark.parametrize("failing", ["a", "b", "c"])
def test_a_failure_wakes_everybody(failing: str, meet: Meet) -> None:
    """Also those that have no link to the one that failed."""
    calls = [
        Call("a", "forward", (BATCH,), ("one",)),
        Call("b", "forward", (BATCH, "one"), ("two",)),
        Call("c", "forward", (BATCH, "two"), ("three",)),
        Call("b", "update", ("three",)),
    ]
    program = program_of(calls, {"one": 8192, "two": 16, "three": 16})
    _, failures = _on_links(meet, (program,), [0] * 1000, fails=failing)
    assert set(failures) == {"a", "b", "c"}
    assert str(failures.pop(failing)) == f"learner {failing}: as asked"
    assert all(isinstance(error, LostStep) for error in failures.values())


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_phase_that_writes_to_what_it_took_is_found_out(size: int, meet: Meet) -> None:
    calls = [Call("a", "forward", (BATCH,), ("one",)), Call("b", "update", ("one",))]
    _, failures = _on_links(meet, (program_of(calls, {"one": size}),), [0], writes="b")
    assert "update changes the message 'one' in place" in str(failures["b"])
