"""Is a lost learner brought back in the right order, another one that is lost meanwhile, and else said why not?"""

from __future__ import annotations

import pytest

from engine.errors import LearnerLost
from tests.runtimes.scripted_team import Team, _lost


def test_only_the_lost_one_is_asked_again_and_only_what_was_done_is_waited_for() -> None:
    team = Team([{"b"}])
    team.ask(3)
    team.come_back.bring_back(_lost("b"))
    assert team.done == [
        *("may b 2", "part from b", "build b, begin 0", "are built", "go on with b", "settle b0 b1", "are back")
    ]
    assert team.asked == [("b", 0), ("b", 1), ("b", 2)]
    assert team.watched == [("a2", "a"), ("c2", "c")]


def test_one_that_is_lost_while_another_is_built() -> None:
    team = Team([{"b"}, {"c"}])
    team.ask(1)
    team.come_back.bring_back(_lost("b"))
    assert team.done == [
        *("may b 0", "part from b", "build b, begin 0", "are built"),
        *("may c 0", "part from b c", "build c, begin 0", "are built"),
        *("go on with b c", "settle b0 c0", "are back"),
    ]


def test_one_that_is_lost_while_another_catches_up() -> None:
    """For it the other may wait."""
    team = Team([{"b"}, set(), {"c"}])
    team.ask(1)

    def another() -> None:
        raise _lost("c")

    team.settling.append(another)
    team.come_back.bring_back(_lost("b"))
    assert team.done[5:] == [
        *("settle b0", "may c 0", "part from c", "build c, begin 0", "are built", "go on with c", "settle c0"),
        "are back",
    ]


def test_it_is_said_why_one_does_not_come_back() -> None:
    team = Team([{"b"}], fails="b")
    team.ask(1)
    error = _lost("b")
    with pytest.raises(LearnerLost) as caught:
        team.come_back.bring_back(error)
    assert caught.value is error
    assert str(error.__cause__) == "learner b: could not be built"
    with pytest.raises(LearnerLost):
        team.come_back.bring_back(error)
    assert team.done == ["may b 0", "part from b"], "it is not tried again"


def test_without_states_nobody_comes_back() -> None:
    team = Team([{"b"}])
    team.ask(200)
    with pytest.raises(LearnerLost) as caught:
        team.come_back.bring_back(_lost("b"))
    assert "more was given since its newest state than is kept" in str(caught.value.__cause__)
    assert team.done == []


def test_who_may_not_come_back_does_not() -> None:
    team = Team([{"b"}])
    team.may = False
    team.ask(1)
    error = _lost("b")
    with pytest.raises(LearnerLost) as caught:
        team.come_back.bring_back(error)
    assert caught.value is error and error.__cause__ is None
    assert team.done == ["may b 0"]
