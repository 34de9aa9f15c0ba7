"""Is it noted who was away, from where to where, and who goes with a lost learner?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import engine
from engine.errors import LearnerLost, LearnerPreempted
from engine.recipes import DML, Peer, Recipe
from engine.training.absences import Absences
from engine.training.losses import Budget, LossesOfTraining
from engine.training.result import Absence, Result

DIED = LearnerLost("peer1_segment0", "its process 7 died: signal SIGKILL")


def test_what_is_begun_again_never_was() -> None:
    absences = Absences()
    absences.begin("peer1", "died", 10)
    absences.end("peer1", 20)
    absences.begin("peer0", "died", 30)
    absences.begin("peer1", "died", 40)
    absences.go_on_from(35)
    assert absences.found == [Absence("peer1", "died", 10, 20), Absence("peer0", "died", 30, 35)]
    absences.go_on_from(30)
    assert absences.found == [Absence("peer1", "died", 10, 20)]
    absences.go_on_from(15)
    assert absences.found == [Absence("peer1", "died", 10, 15)]


def test_a_checkpoint_holds_those_of_its_step() -> None:
    absences = Absences()
    absences.begin("peer1", "died", 10)
    absences.end("peer1", 20)
    absences.begin("peer1", "died", 30)
    for step, until in [(30, 20), (20, 20), (15, None)]:
        others = Absences()
        others.load(absences.to_json(step))
        assert others.found == [Absence("peer1", "died", 10, until)]
        others.go_on_from(step)
        assert others.found == [Absence("peer1", "died", 10, until or 15)]


def test_one_that_is_lost_again_knows_as_little_as_before() -> None:
    """Until it has told what it knows since it has returned."""
    absences = Absences()
    assert absences.begin("peer1", "died", 10) == 10
    absences.end("peer1", 20)
    assert absences.begin("peer0", "died", 20) == 20
    assert absences.begin("peer1", "died", 20) == 10
    absences.end("peer1", 30)
    assert absences.begin("peer1", "died", 31) == 31


def test_they_are_told_in_words() -> None:
    others = Absences()
    others.load([{"network": "peer1", "cause": "died", "since": 10, "until": 20}])
    assert others.describe() == [
        "peer1 was away after step 10 until step 20: these numbers are not those of an undisturbed run"
    ]


class Record:
    """What is said and noted of a run."""

    def __init__(self) -> None:
        self.reached = 50
        self.absences = Absences()
        self.said: list[str] = []
        self.noted: list[tuple[str, int]] = []
        self.faults = SimpleNamespace(settle=lambda: None)
        self.say = self.said.append

    def note_fault(self, cause: str, checkpoint: int) -> None:
        self.noted.append((cause, checkpoint))

    def show_faults(self) -> None:
        pass


def _losses(record: Any, *, goes_on: bool = True, most: int = 3) -> LossesOfTraining:
    learners = {f"peer{place}": (f"peer{place}_segment0", f"peer{place}_segment1") for place in range(2)}
    session: Any = SimpleNamespace(
        recipe=SimpleNamespace(method=SimpleNamespace(goes_on_without_lost=goes_on)),
        team=SimpleNamespace(networks={name: SimpleNamespace(learners=each) for name, each in learners.items()}),
    )
    training: Any = SimpleNamespace(saved=40, first_step=40, is_interrupted=False, is_ending=False, diverged=set())
    snapshots: Any = SimpleNamespace(step=44)
    return LossesOfTraining(training, snapshots, Budget(most, "failure"), record, session)


def test_a_whole_peer_goes_with_its_learner() -> None:
    record: Any = Record()
    losses = _losses(record)
    away = losses.gone_with({"peer1_segment0"})
    assert away == {"peer1_segment0", "peer1_segment1"}
    assert losses.may_go_on_without([DIED])
    # Until it has succeeded: a team that is started again instead is no second failure.
    assert losses.has_noted(DIED) and (record.said, record.absences.found) == ([], [])
    losses.have_left([DIED], away, 4)
    assert not losses.has_noted(DIED)
    losses.have_returned(away, 30)
    assert record.absences.found == [Absence("peer1", str(DIED), 44, 70)]
    assert record.noted == [(str(DIED), 50)]
    assert record.said == [
        f"{DIED}; the others go on without peer1, which returns as it was after step 44 "
        "(failure 1 of at most 3, plan.recovery.max_failures)",
        "peer1 takes part again, from step 71 on",
    ]


def test_nobody_goes_where_nobody_would_be_left_or_all_wait() -> None:
    record: Any = Record()
    assert _losses(record).gone_with({"peer1_segment0", "peer0_segment1"}) == frozenset()
    assert _losses(record, goes_on=False).gone_with({"peer1_segment0"}) == frozenset()
    losses: Any = _losses(record)
    losses._training.is_ending = True
    assert losses.gone_with({"peer1_segment0"}) == frozenset()


def test_a_peer_that_has_diverged_is_nobody_who_would_be_left() -> None:
    record: Any = Record()
    losses: Any = _losses(record)
    losses._training.diverged = {"peer1_segment1"}
    assert losses.gone_with({"peer0_segment0"}) == frozenset()
    assert losses.gone_with({"peer1_segment0"}) == {"peer1_segment0", "peer1_segment1"}


@pytest.mark.parametrize("why", ["too often", "taken away"])
def test_it_is_an_error_all_the_same(why: str) -> None:
    record: Any = Record()
    losses = _losses(record, most=0 if why == "too often" else 3)
    lost = LearnerPreempted("peer1_segment0", "its node is draining") if why == "taken away" else DIED
    assert not losses.may_go_on_without([lost]) and not losses.has_noted(lost)
    assert (record.said, record.noted, record.absences.found) == ([], [], [])


def test_a_summary_of_before_there_were_absences(tmp_path: Any, tiny_recipe: Any) -> None:
    result = engine.train(tiny_recipe(epochs=1), engine.Plan(executor="process"), tmp_path)
    values = result.to_summary()
    assert values.pop("absences") == []
    assert Result.from_json(values, tmp_path).absences == ()
    values["absences"] = [{"network": "peer0", "cause": "died", "since": 3, "until": None}]
    assert Result.from_json(values, tmp_path).absences == (Absence("peer0", "died", 3, None),)
    values["absences"] = [{"network": "peer0", "since": "3"}]
    with pytest.raises(engine.RunError, match=r"0\.cause: Field required"):
        Result.from_json(values, tmp_path)


def test_the_field_is_for_cohorts(tiny_recipe: Any) -> None:
    recipe: Recipe = tiny_recipe(method=DML(peers=(Peer(), Peer())))
    changed, plan = engine.apply_overrides(recipe, engine.Plan(), ["method.on_loss=continue"])
    assert changed.method.goes_on_without_lost and not recipe.method.goes_on_without_lost
    assert changed.method.obstacle_to_replicas() is not None
    with pytest.raises(engine.RecipeError, match=r"on_loss=continue is for two peers and more"):
        engine.apply_overrides(changed, plan, ["method.peers=1"])
    with pytest.raises(engine.RecipeError, match=r"method\.on_loss"):
        engine.apply_overrides(tiny_recipe(), plan, ["method.on_loss=continue"])
    with pytest.raises(engine.RecipeError, match=r"method\.on_loss"):
        engine.apply_overrides(recipe, plan, ["method.on_loss=go"])
