"""Does a learner that is lost at any moment, and linked to the others again, leave everybody with the same numbers?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.data import Batch
from engine.program import Program
from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import (
    LastingGiving,
    LastingLinks,
    LastingTaking,
    Links,
    Position,
    Route,
    Way,
    lasting_giving,
    routes_of,
)
from engine.runtimes.ray.schedule import LearnerSchedule
from tests.runtimes.test_schedule import EXCHANGE, batch_of, in_turn, learners_of, programs

PATIENCE = 20.0
Meet = Callable[..., dict[str, Links]]
ROUTE = Route("giver", "taker", ("first", "second"), 2 * 8192 * 4)


def unseen() -> int:
    """Return how often a driver has looked that is not there."""
    return 0


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


def _pair(meet: Meet, step: int = 0, looks: Callable[[], int] = unseen) -> tuple[LastingGiving, LastingTaking]:
    links = meet((ROUTE,), "memory")
    giving = LastingGiving("giver", "taker", links["giver"].giving["taker"], Position(step), step, looks)
    return giving, LastingTaking("taker", "giver", links["taker"].taking["giver"], step, looks)


def _again(meet: Meet, giving: LastingGiving, step: int) -> LastingTaking:
    """Link a giver to a taker in the place of one that is lost."""
    giving.part()
    links = meet((ROUTE,), "memory")
    giving.link_again(links["giver"].giving["taker"], Position(step))
    return LastingTaking("taker", "giver", links["taker"].taking["giver"], step, unseen)


def _give(giving: LastingGiving, steps: Iterable[int]) -> None:
    for step in steps:
        giving.give("first", torch.full((8192,), float(step)))
        giving.end_step()


def _take(taking: LastingTaking) -> float:
    tensor = taking.take("first")
    value = float(tensor[0])
    del tensor
    taking.end_step()
    return value


def test_messages_are_kept_until_newer_states_are_known(meet: Meet) -> None:
    giving, taking = _pair(meet)
    giving.keep_since(0)
    for step in range(6):
        _give(giving, [step])
        assert _take(taking) == step
    assert giving.kept_bytes == 6 * 8192 * 4
    giving.keep_since(4)
    assert giving.kept_bytes == 2 * 8192 * 4
    taking.close()
    taking = _again(meet, giving, 4)
    assert [_take(taking), _take(taking)] == [4.0, 5.0]
    # Waits until all that is kept has been given again: what has not been is not let go.
    _give(giving, [6])
    giving.keep_since(None)
    assert giving.kept_bytes == 0
    assert _take(taking) == 6.0


def test_what_is_kept_is_no_copy(meet: Meet) -> None:
    giving, _ = _pair(meet)
    giving.keep_since(0)
    tensor = torch.ones(8192)
    giving.give("first", tensor)
    assert giving._kept[0].tensor.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("kind", ["giving", "taking"])
def test_who_keeps_nothing_hears_of_a_loss(kind: str, meet: Meet) -> None:
    giving, taking = _pair(meet)
    if kind == "giving":
        taking.close()
        with pytest.raises(LostStep):
            _give(giving, range(10))
    else:
        giving.close()
        with pytest.raises(LostStep):
            _take(taking)


@pytest.mark.parametrize("kind", ["giving", "taking"])
def test_a_link_that_ends_between_two_that_live_is_no_loss_that_is_waited_for(
    kind: str, meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But only while the driver looks: it may write a checkpoint for long, and say so then."""
    monkeypatch.setattr(lasting_giving, "_SLICE_SECONDS", 0.01)
    unsaid = [0] * 5 + [1, 12, 23, 24]
    giving, taking = _pair(meet, looks=lambda: unsaid.pop(0))
    giving.keep_since(0)
    taking.keep_since(0)
    if kind == "giving":
        taking.close()
        with pytest.raises(LostStep):
            _give(giving, range(10))
    else:
        giving.close()
        with pytest.raises(LostStep):
            _take(taking)
    assert unsaid == []


def test_what_was_changed_after_it_was_given_is_not_given_again(meet: Meet) -> None:
    giving, taking = _pair(meet)
    giving.keep_since(0)
    tensor = torch.ones(4)
    giving.give("first", tensor)
    assert taking.take("first")[0] == 1.0
    tensor += 1
    taking.close()
    _again(meet, giving, 0)
    with pytest.raises(LostStep, match="'first' was changed in place after it was given"):
        giving.give("second", torch.ones(4))


class Parted:
    """An end whose message arrives while its giver is parted from."""

    def __init__(self, part: Callable[[], None]) -> None:
        self._part = part

    def take(self, name: str) -> Tensor:
        self._part()
        return torch.zeros(4)

    def close(self) -> None:
        pass


def test_a_message_that_was_told_not_to_be_there_is_taken_from_the_next_giver(meet: Meet) -> None:
    found: list[Position] = []
    giving, next_taking = _pair(meet)
    next_end = next_taking._end
    assert next_end is not None

    def part() -> None:
        found.append(taking.part())
        taking.link_again(next_end)

    end: Any = Parted(part)
    taking = LastingTaking("taker", "giver", end, 0, unseen)
    giving.give("first", torch.ones(4))
    assert taking.take("first")[0] == 1.0
    assert found == [Position(0)]


def test_a_learner_that_ends_lets_go_who_waits_for_a_lost_one(meet: Meet) -> None:
    giving, taking = _pair(meet)
    giving.keep_since(0)
    taking.keep_since(0)
    giving.part()
    taking.part()
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[Any]] = [pool.submit(_give, giving, [0]), pool.submit(_take, taking)]
        giving.close()
        taking.close()
        for each in waiting:
            with pytest.raises(LostStep, match="is closed"):
                each.result(PATIENCE)


def test_a_position_is_between_two_messages() -> None:
    position = Position(3, frozenset({"first"}))
    wanted = [(step, name) for step in (2, 3, 4) for name in ("first", "second") if position.wants(step, name)]
    assert wanted == [(3, "second"), (4, "first"), (4, "second")]


def test_nobody_waits_for_one_that_is_away(meet: Meet) -> None:
    giving, taking = _pair(meet)
    giving.keep_since(0)
    taking.keep_since(0)
    _give(giving, [0])
    with ThreadPoolExecutor() as pool:
        assert _take(taking) == 0.0
        waiting = pool.submit(taking.take, "first")
        taking.part(goes_away=True)
        assert waiting.result(PATIENCE) is None
        assert taking.take("second") is None
        giving.part(goes_away=True)
        # More than there is room for on the way.
        pool.submit(_give, giving, range(1, 50)).result(PATIENCE)
    assert giving.kept_bytes == 0


def test_one_that_was_away_returns_by_another_link(meet: Meet) -> None:
    links = {name: LastingLinks(name, unseen) for name in ("giver", "taker")}
    for name, ends in meet((ROUTE,), "memory").items():
        links[name].add(ends, {}, 0)
    links["giver"].do_without(["taker", "a stranger"])
    links["giver"].giving["taker"].give("first", torch.zeros(8192))
    links["taker"] = LastingLinks("taker", unseen)
    for name, ends in meet((ROUTE,), "memory").items():
        links[name].add(ends, {}, 7)
    links["giver"].giving["taker"].give("first", torch.full((8192,), 7.0))
    tensor = links["taker"].taking["giver"].take("first")
    assert tensor is not None and float(tensor[0]) == 7.0
