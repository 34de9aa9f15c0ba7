"""Do the others go on without a lost learner until it is built anew, and wait for it where they have to?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.checkpoints import LearnerState
from engine.errors import LearnerLost, LearnersAway
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.history import Given, History
from engine.runtimes.ray.object_store import ObjectStoreRuntime
from engine.runtimes.ray.submitted import SubmittedQuestion
from engine.runtimes.ray.waiting import waiting_for_ray
from tests.runtimes.scripted_team import NAMES, Team, _lost


def _known(team: Team, number: int) -> None:
    """Tell what the learners know after their next step."""
    history = team.come_back.history
    assert history is not None
    told = history.asked_for_states()
    told({name: LearnerState({}, {"number": number}) for name in NAMES})


def test_the_others_go_on_without_one_until_it_is_built() -> None:
    team = Team([{"b"}])
    team.goes_on = True
    team.ask(3)
    _known(team, 3)
    team.ask(3)
    team.come_back.bring_back(_lost("b"))
    assert team.done == ["may go on without b", "leave b", "go without b", "b left, known after 3"]
    assert team.asked == [("a", 2)], "what a was stopped at"
    whole = team.come_back.away_learners.completed({"a": LearnerState({}, {"number": 6})})
    assert {name: state.extra["number"] for name, state in whole.items()} == {"a": 6, "b": 3}
    assert not team.come_back.let_return(wait=False)
    team.is_built = True
    assert team.come_back.let_return(wait=False) == ["b"]
    assert team.done[4:] == ["take up", "set out b", "b returned after 6"]
    assert not team.come_back.let_return(wait=False)


def test_one_that_is_lost_when_another_could_return() -> None:
    """Nobody takes up what is not built yet, which would be waited for without an end."""
    team = Team([{"b"}, {"c"}])
    team.goes_on = team.is_built = True
    _known(team, 0)
    team.ask(2)
    team.come_back.bring_back(_lost("b"))

    def another() -> None:
        team.is_built = False
        team.come_back.bring_back(_lost("c"))

    team.finishing.append(another)
    assert not team.come_back.let_return(wait=False)
    assert team.come_back.away_learners.away == {"b", "c"} and "take up" not in team.done
    team.is_built = True
    assert team.come_back.let_return(wait=True) == ["b", "c"]
    assert team.done[-4:] == ["take up", "take up", "set out b c", "b c returned after 2"]


def test_it_is_not_said_that_they_go_on_where_they_cannot() -> None:
    team = Team([{"b"}], fails="a")
    team.goes_on = True
    _known(team, 0)
    error = _lost("b")
    with pytest.raises(LearnerLost) as caught:
        team.come_back.bring_back(error)
    assert caught.value is error and str(error.__cause__) == "learner a: failed, too"
    assert team.done == ["may go on without b"]


def test_nobody_is_waited_for_once_an_end_is_wanted() -> None:
    team = Team([{"b"}])
    team.goes_on = team.is_hurried = True
    _known(team, 0)
    team.come_back.bring_back(_lost("b"))
    assert not team.come_back.let_return(wait=False)
    with pytest.raises(LearnersAway, match="b: not built anew yet"):
        team.come_back.let_return(wait=True)
    team.is_built = True
    assert team.come_back.let_return(wait=True) == ["b"]


def test_those_that_are_away_do_not_count_as_hanging() -> None:
    actors = object.__new__(LearnerActors)
    process: Any = {"a": SimpleNamespace()}
    actors._watched, actors.places, actors._number = process, {"a": {"pid": os.getpid()}}, 2
    with waiting_for_ray():
        assert actors.activity() is None
        actors._number = 1
        assert actors.activity() is not None


@pytest.mark.parametrize("why", ["nothing is known yet", "an evaluation"])
def test_they_wait_for_it(why: str) -> None:
    team = Team([{"b"}])
    team.goes_on, team.are_evaluating = True, why == "an evaluation"
    team.ask(1)
    if team.are_evaluating:
        _known(team, 1)
        team.ask(1)
    team.come_back.bring_back(_lost("b"))
    assert team.done[-1] == "are back"
    assert "leave b" not in team.done


def test_nobody_repeats_alone_what_was_done_without_another() -> None:
    team = Team([{"b"}, {"c"}, {"c"}])
    team.goes_on = team.is_built = True
    _known(team, 0)
    team.ask(2)
    team.come_back.bring_back(_lost("b"))
    team.come_back.let_return(wait=False)
    team.are_evaluating = True
    with pytest.raises(LearnerLost) as caught:
        team.come_back.bring_back(_lost("c"))
    assert str(caught.value.__cause__) == "others were away since its newest state"


def test_a_state_that_came_before_its_learner_left_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns with an older one, after which it is noted to have been away: a checkpoint says the same."""
    monkeypatch.setattr("engine.runtimes.ray.object_store.is_there", lambda given: given.reference != "lost")
    runtime = ObjectStoreRuntime(cast(LearnerActors, Others()), 2, "")
    state, metrics, score = (
        SubmittedQuestion(question, {"a": Given("there"), "b": Given(of_b)}, None, lambda _: {})
        for question, of_b in (("state", "there"), ("metrics", "there"), ("score", "lost"))
    )
    runtime._unheard += [state, metrics, score]
    runtime.go_without({"b"}, History(1000, {}))
    assert [question.given["b"].is_gone for question in (state, metrics, score)] == [True, False, True]
    assert not any(question.given["a"].is_gone for question in (state, metrics, score))


class Others:
    """Stands for the actors that are left."""

    def settle(self, references: Sequence[Any]) -> None:
        assert list(references) == []

    def resume(self, names: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(names, 7)

    def __iter__(self) -> Iterator[str]:
        return iter("a")
