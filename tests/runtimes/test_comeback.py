"""Is a lost learner brought back in the right order, another one that is lost meanwhile, and else said why not?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray.exceptions

from engine.checkpoints import LearnerState
from engine.errors import LearnerError, LearnerLost, LearnersAway
from engine.runtimes.ray import fetching
from engine.runtimes.ray.actor_team import LearnerActors
from engine.runtimes.ray.comeback import ComeBack
from engine.runtimes.ray.fetching import Fetching
from engine.runtimes.ray.history import Asked, Given, History
from engine.runtimes.ray.object_store import ObjectStoreRuntime
from engine.runtimes.ray.submitted import SubmittedQuestion
from engine.runtimes.ray.waiting import waiting_for_ray

NAMES = ("a", "b", "c")


def _lost(name: str) -> LearnerLost:
    return LearnerLost(name, "its process 7 died")


class Team:
    """Stands for the actors, for what becomes of the others, and for who decides; writes down what is asked of it."""

    wait = True

    def __init__(self, deaths: Sequence[set[str]], fails: str = "") -> None:
        self.deaths, self.fails = list(deaths), fails
        self.done: list[str] = []
        self.may, self.goes_on, self.is_built, self.are_evaluating = True, False, False, False
        self.is_hurried = False
        self.settling: list[Callable[[], None]] = []
        self.finishing: list[Callable[[], None]] = []
        self.asked: list[tuple[str, int]] = []
        self.come_back = ComeBack(self, self, lambda asked: asked.number > 1)  # type: ignore[arg-type]
        self.come_back.keep(self, 1000)

    def lost(self) -> dict[str, LearnerLost]:
        return {name: _lost(name) for name in (self.deaths.pop(0) if self.deaths else set())}

    def may_come_back(self, lost: Sequence[LearnerLost], steps: int) -> bool:
        self.done.append(f"may {' '.join(sorted(error.learner for error in lost))} {steps}")
        return self.may

    def gone_with(self, lost: Collection[str]) -> frozenset[str]:
        return frozenset(lost) if self.goes_on else frozenset()

    def may_go_on_without(self, lost: Sequence[LearnerLost]) -> bool:
        self.done.append(f"may go on without {' '.join(sorted(error.learner for error in lost))}")
        return self.may

    def have_left(self, lost: Sequence[LearnerLost], away: Collection[str], known: int) -> None:
        self.done.append(f"{' '.join(sorted(away))} left, known after {known}")

    def leave(self, names: Collection[str]) -> None:
        if self.fails:
            raise LearnerError(self.fails, "failed, too")
        self.done.append(f"leave {' '.join(sorted(names))}")

    def start_building(self, names: Collection[str]) -> Any:
        return SimpleNamespace(is_over=lambda _: self.is_built, handles={})

    def finish(self) -> None:
        if self.finishing:
            self.finishing.pop(0)()

    def take_up(self, building: Any) -> None:
        self.done.append("take up")

    def set_out(self, states: Mapping[str, LearnerState]) -> None:
        self.done.append(f"set out {' '.join(sorted(states))}")

    def go_without(self, away: Collection[str], history: History) -> Mapping[str, int]:
        self.done.append(f"go without {' '.join(sorted(away))}")
        return {"a": 2}

    def have_returned(self, returned: Collection[str], trained: int) -> None:
        self.done.append(f"{' '.join(returned)} returned after {trained}")

    def are_back(self) -> None:
        self.done.append("are back")

    def part_from(self, lost: Collection[str]) -> None:
        self.done.append(f"part from {' '.join(sorted(lost))}")

    def replace(self, names: Collection[str], states: Mapping[str, LearnerState], begin: Mapping[str, int]) -> None:
        if self.fails:
            raise LearnerError(self.fails, "could not be built")
        self.done.append(
            f"build {' '.join(sorted(names))}, begin {' '.join(str(begin[name]) for name in sorted(names))}"
        )

    def are_built(self, history: History) -> None:
        self.done.append("are built")

    def go_on(self, lost: Collection[str], history: History) -> Mapping[str, int]:
        self.done.append(f"go on with {' '.join(sorted(lost))}")
        return {}

    steps_in_flight = 1

    def settle(self, references: Sequence[Any], others_wait: bool, of_others: Mapping[Any, str]) -> None:
        assert others_wait
        # A failure of those that have not done all is one at once.
        self.watched = sorted(of_others.items())
        self.done.append(f"settle {' '.join(references)}")
        if self.settling:
            self.settling.pop(0)()

    def ask(self, steps: int) -> None:
        """Ask everybody for so many steps."""
        history = self.come_back.history
        assert history is not None
        for number in range(steps):
            history.add([self._asked(name, number) for name in NAMES], 10, 1, 1)

    def _asked(self, name: str, number: int) -> Asked:
        def send() -> Sequence[str]:
            self.asked.append((name, number))
            return [f"{name}{number}"]

        return Asked(name, number, send, (Given(f"{name}{number}"),))


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


class Answers:
    """Stands for Ray: who has answered, and who has died."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, died: str, waiting: Collection[str]) -> None:
        self.died, self.waiting = died, waiting
        self.asked: list[str] = []
        monkeypatch.setattr(fetching, "get_while_alive", self._get)
        monkeypatch.setattr(fetching, "check_after", lambda _: True)
        monkeypatch.setattr(fetching, "ray", SimpleNamespace(exceptions=ray.exceptions, wait=self._wait))

    def _get(self, references: Any, look: Callable[[], None]) -> Any:
        look()
        if isinstance(references, list) and self.died in references:
            raise ray.exceptions.RayError
        if not isinstance(references, list):
            assert references not in self.waiting, "it would be waited for, for ever"
            self.asked.append(references)
            if references == self.died:
                raise ray.exceptions.RayError
        return references

    def _wait(self, references: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0
        ready = [each for each in references if each not in self.waiting]
        return ready, [each for each in references if each in self.waiting]


def test_a_death_is_told_though_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, died="c", waiting={"a"})
    culprits: Any = SimpleNamespace(blame=lambda learner, *_: _lost(learner))
    with pytest.raises(LearnerLost, match="learner c"):
        Fetching(culprits).fetch_all({name: name for name in NAMES}, others_wait=True)
    assert answers.asked == ["b", "c"]


@pytest.mark.parametrize("others_wait", [True, False])
def test_one_that_had_done_all_is_told_by_its_silence(others_wait: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, died="nobody", waiting=())
    culprits: Any = SimpleNamespace(lost=lambda: {"b": _lost("b")})
    fetches = Fetching(culprits)
    fetches.stalls = SimpleNamespace(look=lambda: None, are_gone=True)  # type: ignore[assignment]
    if others_wait:
        with pytest.raises(LearnerLost, match="learner b"):
            fetches.fetch_all({"a": "a"}, others_wait=True)
    else:
        assert fetches.fetch_all({"a": "a"}) == {"a": "a"}


def test_what_another_fails_with_is_told_while_one_catches_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that catches up may wait for the one that has failed."""

    def wait(references: list[str], num_returns: int, timeout: float, **_: Any) -> tuple[list[str], list[str]]:
        done = [each for each in references if each != "catches up"]
        return done, [each for each in references if each == "catches up"]

    monkeypatch.setattr(fetching, "ray", SimpleNamespace(exceptions=ray.exceptions, wait=wait))
    monkeypatch.setattr(fetching, "check_after", lambda _: False)

    def get(reference: str, look: Callable[[], None]) -> str:
        if reference == "failed":
            raise ray.exceptions.RayError
        return reference

    monkeypatch.setattr(fetching, "get_while_alive", get)
    culprits: Any = SimpleNamespace(blame=lambda learner, *_: LearnerError(learner, "loss is not finite"))
    with pytest.raises(LearnerError, match="learner c: loss is not finite"):
        Fetching(culprits).settle(["catches up"], others_wait=True, of_others={"done": "b", "failed": "c"})


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
