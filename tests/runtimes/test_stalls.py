"""Is a learner that hangs told from one that works long and from one that only waits?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from engine.errors import LearnerLost
from engine.runtimes.ray import stalls
from engine.runtimes.ray.actor import Builder, LearnerActor
from engine.runtimes.ray.doing import Doing, Sign
from engine.runtimes.ray.stalls import Stalls


class Machine:
    """Learners whose signs of life a test decides, and time that passes only when it says so."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seconds: float | None, nodes: dict[str, str] | None = None
    ) -> None:
        nodes = nodes or {"segment0": "here", "segment1": "there"}
        self.now = 0.0
        self.signs: dict[str, Sign | None] = {"segment0": Sign(1, "", 0.0), "segment1": Sign(1, "", 0.0)}
        self.ended: list[Any] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("os.kill", lambda process, number: self.ended.append((process, number)))
        monkeypatch.setattr(
            stalls,
            "ray",
            SimpleNamespace(
                exceptions=ray.exceptions,
                wait=self._wait,
                get=self._get,
                kill=self.ended.append,
                get_runtime_context=lambda: SimpleNamespace(get_node_id=lambda: "here"),
            ),
        )
        self.handles = {name: SimpleNamespace(sign=SimpleNamespace(remote=self._remote(name))) for name in self.signs}
        places = {name: {"pid": pid, "node": nodes[name]} for pid, name in enumerate(nodes, start=10)}
        self.stalls = Stalls(self.handles, places, seconds)

    def _remote(self, name: str) -> Any:
        return lambda with_stacks=False: (name, with_stacks)

    def _wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        ((name, _),) = references
        return (references, []) if self.signs[name] is not None else ([], references)

    def _get(self, reference: Any, timeout: float | None = None) -> Sign:
        name, with_stacks = reference
        sign = self.signs[name]
        if sign is None:
            raise ray.exceptions.GetTimeoutError("no answer")
        return Sign(sign.count, sign.doing, sign.processor_seconds, "thread learner" if with_stacks else "")

    def pass_by(self, seconds: float, processor_share: float = 0.0, only: str | None = None) -> None:
        for _ in range(round(seconds)):
            self.now += 1.0
            for name, sign in self.signs.items():
                if sign is not None and only in (None, name):
                    self.signs[name] = Sign(sign.count, sign.doing, sign.processor_seconds + processor_share)
            self.stalls.look()


def test_learners_that_wait_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.pass_by(1000)
    assert not machine.ended


def test_a_learner_that_computes_has_ten_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.signs["segment0"] = Sign(2, "forward of step 3 of epoch 1", 0.0)
    machine.pass_by(195, processor_share=0.5)
    # What ends is no endless loop, however often it comes.
    for count in range(4, 20, 2):
        machine.signs["segment0"] = Sign(count, "forward of step 3 of epoch 1", 1e3)
        machine.pass_by(195, processor_share=0.5)
    assert not machine.ended
    with pytest.raises(LearnerLost, match=r"no progress for 2\d\d s in forward of step 3 of epoch 1, and") as caught:
        machine.pass_by(30, processor_share=0.5)
    assert caught.value.details == "thread learner"


def test_the_first_things_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, None)
    machine.signs["segment0"] = Sign(2, "forward of step 0 of epoch 0", 0.0)
    machine.pass_by(3000, processor_share=0.9)
    assert not machine.ended
    machine = Machine(monkeypatch, None)
    machine.signs["segment0"] = Sign(200, "forward of step 30 of epoch 0", 0.0)
    with pytest.raises(LearnerLost, match="no progress for 60"):
        machine.pass_by(700, processor_share=0.9)


def test_one_that_hangs_beside_one_that_computes_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, None)
    for name in machine.signs:
        machine.signs[name] = Sign(2, "update of step 0 of epoch 0", 0.0)
    machine.pass_by(590, processor_share=0.9, only="segment1")
    assert not machine.ended
    with pytest.raises(LearnerLost, match="learner segment0: its process 10 made no progress for 60"):
        machine.pass_by(30, processor_share=0.9, only="segment1")


def test_one_that_waits_inside_of_its_work_is_not_blamed_for_one_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    for name in machine.signs:
        machine.signs[name] = Sign(2, "update of step 3 of epoch 1", 0.0)
    machine.pass_by(190, processor_share=0.5, only="segment1")
    assert not machine.ended
    with pytest.raises(LearnerLost, match="learner segment1: its process 11 made no progress"):
        machine.pass_by(30, processor_share=0.5, only="segment1")


def test_a_learner_that_does_nothing_in_its_work_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.pass_by(50)
    machine.signs["segment0"] = Sign(2, "forward of step 3 of epoch 1", 0.0)
    with pytest.raises(LearnerLost) as caught:
        machine.pass_by(100)
    assert 70 <= machine.now <= 90
    assert str(caught.value).startswith("learner segment0: its process 10 made no progress for ")
    assert " s in forward of step 3 of epoch 1, and was ended (the newest" in str(caught.value)
    assert caught.value.details == "thread learner"
    assert machine.ended == [(10, 9)]


def test_one_that_does_not_answer_is_named_and_not_the_one_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.signs = {"segment0": Sign(2, "forward of step 3 of epoch 1", 0.0), "segment1": None}
    with pytest.raises(LearnerLost, match="learner segment1: its process 11 made no progress") as caught:
        machine.pass_by(100)
    assert machine.ended == [machine.handles["segment1"]]
    assert "did not answer" in caught.value.details


def test_a_node_that_says_nothing_is_left_to_ray_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.pass_by(50)
    # The one waits for the other, whose node cannot be reached.
    machine.signs = {"segment0": Sign(2, "forward of step 3 of epoch 1", 0.0), "segment1": None}
    machine.pass_by(70)
    assert not machine.ended
    # Reached again.
    machine.signs["segment1"] = Sign(1, "", 0.0)
    machine.signs["segment0"] = Sign(3, "", 0.0)
    machine.pass_by(30)
    machine.signs["segment1"] = None
    machine.pass_by(70)
    assert not machine.ended
    # Ray has had the time to say that the node is dead, and has not: it is the process that hangs.
    with pytest.raises(LearnerLost, match="learner segment1: its process 11 made no progress"):
        machine.pass_by(20)


def test_a_process_that_hangs_beside_one_that_answers_gets_no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0, nodes={"segment0": "there", "segment1": "there"})
    machine.pass_by(50)
    machine.signs["segment1"] = None
    with pytest.raises(LearnerLost, match="learner segment1: its process 11 made no progress"):
        machine.pass_by(40)


def test_a_pause_of_the_driver_is_held_against_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 20.0)
    machine.signs["segment0"] = Sign(2, "forward of step 3 of epoch 1", 0.0)
    for _ in range(10):
        machine.pass_by(10)
        machine.now += 100
    assert not machine.ended


def test_patience_grows_with_the_longest_work(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, None)
    assert machine.stalls.patience == 60.0
    machine.signs["segment0"] = Sign(2, "forward of step 1 of epoch 1", 0.0)
    machine.pass_by(40, processor_share=1.0)
    machine.signs["segment0"] = Sign(4, "forward of step 2 of epoch 1", 40.0)
    machine.pass_by(10, processor_share=1.0)
    assert 300.0 <= machine.stalls.patience <= 400.0


def test_what_a_learner_does_is_seen_from_outside() -> None:
    doing = Doing()
    assert doing.sign(with_stacks=False).doing == ""
    with doing.while_in("forward of step 1 of epoch 1"):
        sign = doing.sign(with_stacks=True)
    after = doing.sign(with_stacks=False)
    assert (sign.doing, after.doing, after.count - sign.count) == ("forward of step 1 of epoch 1", "", 1)
    assert after.processor_seconds > 0


def test_an_answer_is_work_like_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score of one's own may loop, too."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    actor: Any = LearnerActor(cast(Builder, None), "segment0")
    actor._learner = SimpleNamespace(ask=lambda _: actor.sign().doing)
    assert actor.ask(0, "score") == "its answer to 'score'"
    assert actor.sign().doing == ""
