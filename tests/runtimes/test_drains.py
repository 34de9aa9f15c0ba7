"""Is a node that its cluster takes away noticed in time, cheaply, and never where there is none?"""

from __future__ import annotations

import types
from typing import Any

import pytest

from engine.errors import DriverPreempted, LearnerLost, LearnerPreempted
from engine.runtimes.ray import cluster, drains
from engine.runtimes.ray.drains import Drains, draining_nodes

PLACES = {
    "segment0": {"node": "a" * 56, "address": "10.0.0.2"},
    "segment1": {"node": "b" * 56, "address": "10.0.0.3"},
}
ELSEWHERE, HERE = "e" * 56, "f" * 56


class Cluster:
    """What Ray says of its nodes, at a time that passes only when told; both are what the drains are asked with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.asked = 1_000.0, 0
        self.draining: dict[str, float] = {}
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.time", lambda: self.now)
        self.answers = True
        monkeypatch.setattr(drains, "_ask", self.said)

    def said(self) -> dict[str, float] | None:
        self.asked += 1
        return dict(self.draining) if self.answers else None


def test_ray_is_asked_every_few_seconds_however_often_steps_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)
    for _ in range(1_000):
        assert found.notice() is None
        said.now += 0.01
    assert said.asked == 1
    said.now += 100
    found.notice()
    assert said.asked == 2


def test_the_learner_on_a_node_that_is_drained_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)
    said.draining = {PLACES["segment1"]["node"]: 1_033.0, ELSEWHERE: 0.0}
    assert found.notice() is None
    said.now += 6
    notice = found.notice()
    assert isinstance(notice, LearnerPreempted)
    assert notice.learner == "segment1"
    assert str(notice).startswith("learner segment1: its node 10.0.0.3 is draining, and ends in 27 s (the newest")
    assert isinstance(notice, LearnerLost) and notice.exit_code == 3


def test_a_node_without_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)
    said.draining = {PLACES["segment0"]["node"]: 0.0}
    said.now += 6
    assert str(found.notice()).startswith("learner segment0: its node 10.0.0.2 is draining (the newest")


def test_nodes_of_others_are_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)
    said.draining = {ELSEWHERE: 1_033.0}
    said.now += 6
    assert found.notice() is None
    assert not found.was_told_of("segment0")


def test_the_node_of_the_training_itself_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with all that it has in memory: there is nothing to go on elsewhere with."""
    said = Cluster(monkeypatch)
    found = Drains({**PLACES, "segment2": {"node": HERE, "address": "10.0.0.1"}}, HERE)
    said.draining = {PLACES["segment0"]["node"]: 0.0, HERE: 1_010.0}
    said.now += 6
    notice = found.notice()
    assert isinstance(notice, DriverPreempted)
    assert notice.exit_code == 3
    assert str(notice).startswith("the node of the training itself is draining, and ends in 4 s (the newest")


def test_a_death_is_looked_up_at_once_and_after_the_node_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)
    said.draining = {PLACES["segment1"]["node"]: 1_033.0}
    assert found.was_told_of("segment1")
    said.draining = {}
    assert found.was_told_of("segment1")
    assert not found.was_told_of("segment0")


def test_a_ray_that_does_not_answer_gives_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(timeout: float) -> Any:
        assert timeout <= 1.0
        raise RuntimeError("Deadline exceeded")

    client = types.SimpleNamespace(get_draining_nodes=fails)
    monkeypatch.setattr(drains.ray_worker, "global_worker", types.SimpleNamespace(gcs_client=client))
    assert draining_nodes() == {}
    monkeypatch.setattr(drains.ray_worker, "global_worker", types.SimpleNamespace())
    assert draining_nodes() == {}


def test_a_gcs_that_does_not_answer_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = Cluster(monkeypatch)
    found = Drains(PLACES, HERE)

    def pass_by(seconds: int) -> int:
        for _ in range(seconds):
            said.now += 1
            assert found.notice() is None
        return caplog.text.count("the GCS of the cluster has not answered since ")

    said.answers = False
    assert pass_by(60) == 0
    assert pass_by(200) == 1
    said.answers = True
    assert pass_by(10) == 1
    said.answers = False
    assert pass_by(60) == 1
    assert pass_by(20) == 2


def test_a_private_ray_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    client = types.SimpleNamespace(get_draining_nodes=lambda timeout: {ELSEWHERE: 5_000})
    monkeypatch.setattr(drains.ray_worker, "global_worker", types.SimpleNamespace(gcs_client=client))
    assert draining_nodes() == {ELSEWHERE: 5.0}
    monkeypatch.setattr(drains, "current_private_ray", lambda: object())
    assert draining_nodes() == {}


def test_nothing_is_placed_on_a_node_that_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": alive, "NodeID": name, "Resources": {"CPU": cpus}}
        for name, alive, cpus in ((HERE, True, 1.0), (ELSEWHERE, True, 2.0), ("dead", False, 4.0))
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(cluster, "draining_nodes", lambda: {ELSEWHERE: 0.0})
    assert cluster.node_resources() == [{"CPU": 1.0}]
