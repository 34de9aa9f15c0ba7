"""Does a link give again what a lost learner had been given, and does nobody wait for one that does not return?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.runtimes.ray.failures import LostStep
from engine.runtimes.ray.links import LastingGiving, LastingLinks, LastingTaking, Links, Position, Route, lasting_giving
from tests.runtimes.giver_and_taker import PATIENCE, unseen

Meet = Callable[..., dict[str, Links]]
ROUTE = Route("giver", "taker", ("first", "second"), 2 * 8192 * 4)


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
