"""Does a learner that is lost at any moment, and linked to the others again, leave everybody with the same numbers?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.data import Batch
from engine.program import Program
from engine.runtimes.ray.links import LastingLinks, Links, Way, routes_of
from engine.runtimes.ray.schedule import LearnerSchedule
from tests.runtimes.adders import EXCHANGE, batch_of, in_turn, learners_of, programs
from tests.runtimes.giver_and_taker import PATIENCE, unseen

Meet = Callable[..., dict[str, Links]]


class Gone(Exception):
    """A learner's process has ended."""


class Team:
    """Learners in threads, of which some end in the midst of a step, as often as they are built.

    Args:
        meet: makes links.
        found: the programs.
        steps: which of them each step runs.
        ends: how many calls a learner makes before it ends, for each time that it is built.
        way: of all links.
    """

    def __init__(
        self, meet: Meet, found: tuple[Program, ...], steps: list[int], ends: Mapping[str, list[int]], way: Way
    ) -> None:
        self._meet, self._found, self._steps, self._way = meet, found, steps, way
        self._ends = {name: list(each) for name, each in ends.items()}
        self.learners = learners_of(*found)
        self.links = {name: LastingLinks(name, unseen) for name in self.learners}
        self._routes = routes_of(found)
        self._pool = ThreadPoolExecutor(16)
        self._walks: dict[str, Future[None]] = {}
        self.times_lost = 0

    def _start(self, name: str, begins: int) -> None:
        learner, links = self.learners[name], self.links[name]
        ends = self._ends.get(name)
        left = ends.pop(0) if ends else None
        make = learner.call

        def call(phase: str, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
            nonlocal left
            if left == 0:
                raise Gone
            left = None if left is None else left - 1
            return make(phase, batch, messages)

        learner.call = call  # type: ignore[method-assign]
        schedule = LearnerSchedule(learner, self._found, links)

        def walk() -> None:
            try:
                for step in range(begins, len(self._steps)):
                    links.keep_since(begins)
                    schedule.step(self._found[self._steps[step]].name, batch_of(step))
            except Gone:
                links.close()
                raise

        self._walks[name] = self._pool.submit(walk)

    def walk(self, begins: int) -> dict[str, float]:
        """Walk all steps from one on, whose states all know; returns what all have seen in the end."""
        states = in_turn(self._found, self._steps[:begins])
        for name, links in self._meet(self._routes, self._way).items():
            self.links[name].add(links, {}, begins)
        for name, learner in self.learners.items():
            learner.seen = states[name]
            self._start(name, begins)
        try:
            while lost := self._lost():
                self.times_lost += len(lost)
                self._bring_back(lost, states, begins)
        finally:
            for own in self.links.values():
                own.close()
            self._pool.shutdown()
        return {name: learner.seen for name, learner in self.learners.items()}

    def _lost(self) -> set[str]:
        done, left = wait(self._walks.values(), PATIENCE, FIRST_EXCEPTION)
        lost = {name for name, walk in self._walks.items() if walk in done and walk.exception() is not None}
        assert lost or not left, "somebody waits for ever"
        assert all(isinstance(self._walks[name].exception(), Gone) for name in lost)
        return lost

    def _bring_back(self, lost: set[str], states: Mapping[str, float], begins: int) -> None:
        others = set(self.learners) - lost
        positions = {name: self.links[name].part_from(lost) for name in others}
        fresh = learners_of(*self._found)
        for name in lost:
            self.learners[name] = fresh[name]
            fresh[name].seen = states[name]
            self.links[name] = LastingLinks(name, unseen)
        routes = tuple(route for route in self._routes if {route.giver, route.taker} & lost)
        for name, links in self._meet(routes, self._way).items():
            wanted = {taker: positions[taker][name] for taker in links.giving if taker in others and name in lost}
            self.links[name].add(links, wanted, begins)
        for name in lost:
            self._start(name, begins)


@settings(max_examples=40, deadline=None)
@given(
    first=programs(tag="0"),
    second=programs(tag="1"),
    steps=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    begins=st.integers(0, 3),
    ends=st.dictionaries(
        st.sampled_from("abc"), st.lists(st.integers(0, 20), min_size=1, max_size=2), min_size=1, max_size=2
    ),
)
def test_any_two_programs_whoever_is_lost_and_when(
    meet: Meet, first: Program, second: Program, steps: list[int], begins: int, ends: dict[str, list[int]]
) -> None:
    """Also two at once, one while another catches up, and one that is lost again."""
    begins = min(begins, len(steps))
    team = Team(meet, (first, second), steps, ends, "memory")
    assert team.walk(begins) == in_turn((first, second), steps)


@pytest.mark.parametrize("way", ["memory", "tcp"])
@pytest.mark.parametrize("ends", [{"a": [31]}, {"b": [40, 12]}, {"a": [30], "b": [30]}], ids=str)
def test_an_exchange(way: Way, ends: dict[str, list[int]], meet: Meet) -> None:
    team = Team(meet, (EXCHANGE,), [0] * 50, ends, way)
    assert team.walk(10) == in_turn((EXCHANGE,), [0] * 50)
    assert team.times_lost == sum(map(len, ends.values()))


class TeamThatGoesOn(Team):
    """The same learners, of which nobody waits for one that ends."""

    def _bring_back(self, lost: set[str], states: Mapping[str, float], begins: int) -> None:
        for name in lost:
            del self._walks[name]
        for name in self._walks:
            self.links[name].do_without(lost)


@settings(max_examples=40, deadline=None)
@given(
    first=programs(tag="0"), ends=st.dictionaries(st.sampled_from("abc"), st.integers(0, 20), min_size=1, max_size=2)
)
def test_the_others_finish_whoever_goes_away_and_when(meet: Meet, first: Program, ends: dict[str, int]) -> None:
    team = TeamThatGoesOn(meet, (first,), [0] * 12, {name: [left] for name, left in ends.items()}, "memory")
    team.walk(0)
    assert all(walk.exception() is None for walk in team._walks.values())
    assert len(team._walks) == len(team.learners) - team.times_lost
