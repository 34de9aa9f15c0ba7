"""Is what Ray raises turned into the learner, the cause and the remedy?"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayTaskError

from engine.errors import LearnerError, LearnerPreempted, PlanError, RayEnded
from engine.runtimes.ray.culprits import Culprits
from engine.runtimes.ray.failures import LostStep, as_engine_error, is_death, original_error
from engine.runtimes.ray.fetching import Fetching
from engine.runtimes.ray.history import Given
from engine.runtimes.ray.submitted import is_there
from engine.runtimes.ray.waiting import check_after, check_alive

UNEXPECTED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed "
    "unexpectedly due to SIGSEGV or another unexpected error."
)


@pytest.mark.parametrize(
    ("text", "ending", "cause"),
    [
        (UNEXPECTED, "signal SIGKILL", "its process 7 died: signal SIGKILL"),
        (UNEXPECTED, "exit code 7", "its process 7 died: exit code 7"),
        (UNEXPECTED, None, "its process 7 died: its connection ended without a word, as after a kill signal"),
        ("Worker exits with an exit code 5.", None, "its process 7 died: exit code 5"),
        (
            "The actor is dead because it was killed by `ray.kill`.",
            "exit code 1",
            "its process 7 died: it was ended by",
        ),
        ("something new in Ray", None, "its process 7 died: something new in Ray"),
    ],
)
def test_a_dead_actor(text: str, ending: str | None, cause: str) -> None:
    died = ActorDiedError()
    died.error_msg = text
    found = as_engine_error(died, "segment1", 7, ending)
    assert isinstance(found, LearnerError)
    assert found.learner == "segment1"
    assert found.cause.startswith(cause)
    assert found.cause.endswith("(the newest checkpoint is whole; the same command goes on from it)")
    assert found.exit_code == 3


def test_out_of_memory() -> None:
    found = as_engine_error(OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."), "s", 7)
    assert "its process 7 was ended because its node ran out of memory; set numerics.recompute=blocks" in str(found)


def test_other_ends() -> None:
    lost = as_engine_error(NodeDiedError("gone"), "s", 7)
    assert "its process 7 is gone with its node, which has ended or cannot be reached (the newest" in str(lost)
    away = as_engine_error(ActorUnavailableError("Socket closed", None), "s", 7, node="10.0.0.3")
    assert isinstance(away, LearnerError)
    assert away.cause.startswith(
        "its process 7 died: nothing on node 10.0.0.3 answers for it: it or its node has ended"
    )
    assert "Socket closed" in away.details
    ended = as_engine_error(ActorUnavailableError("no answer", None), "s", 7, "signal SIGKILL")
    assert "its process 7 died: signal SIGKILL" in str(ended)


def test_a_lost_node_is_told_in_our_words_and_rays_own_are_kept() -> None:
    died = ActorDiedError()
    died.error_msg = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: LearnerActor\nThe actor died because "
        "its node has died. Node Id: 5b. \n\tthe actor's node was terminated unexpectedly: health check failed"
    )
    found = as_engine_error(died, "segment1", 7, node="10.0.0.3")
    assert isinstance(found, LearnerError)
    assert found.cause == (
        "its process 7 is gone with its node 10.0.0.3, which has ended or cannot be reached (the newest checkpoint is "
        "whole; the same command goes on from it)"
    )
    assert "health check failed" in found.details


def test_the_death_of_a_node_that_was_draining_is_a_preemption() -> None:
    died, told = ActorDiedError(), ActorDiedError()
    told._preempted = True
    for error, was_draining in ((died, True), (told, False), (NodeDiedError("gone"), True)):
        found = as_engine_error(error, "segment1", 7, "signal SIGKILL", was_draining)
        assert isinstance(found, LearnerPreempted)
        assert str(found).startswith("learner segment1: ")
    for error in (died, NodeDiedError("gone")):
        assert not isinstance(as_engine_error(error, "segment1", 7), LearnerPreempted)
    # Another node would have no more of it.
    full = as_engine_error(OutOfMemoryError("full"), "segment1", 7, None, was_draining=True)
    assert not isinstance(full, LearnerPreempted)


def test_errors_of_the_engine_are_handed_on() -> None:
    for error in (LearnerError("segment0", "cause"), PlanError("no GPU")):
        assert as_engine_error(error, "segment1") is error
        assert not is_death(error)


def test_the_first_error_of_a_chain_is_found() -> None:
    first = LearnerError("segment0", "cause", "details")
    chained: BaseException = first
    for _ in range(3):
        chained = RayTaskError("call", "traceback", chained)
    assert original_error(chained) is first
    assert original_error(first) is first


def test_only_what_ray_says_of_processes_is_a_death() -> None:
    assert is_death(ActorDiedError())
    assert is_death(OutOfMemoryError("full"))
    assert not is_death(RayTaskError("call", "traceback", ValueError("x")))
    assert not is_death(LostStep("gone"))


def test_errors_survive_the_way_between_processes() -> None:
    found = pickle.loads(pickle.dumps(LearnerError("segment0", "cause", "details")))
    assert (found.learner, found.cause, found.details) == ("segment0", "cause", "details")
    assert str(pickle.loads(pickle.dumps(LostStep("gone")))) == "gone"


def test_a_ray_that_is_gone_is_named_and_not_the_learner_that_went_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    culprits = Culprits({}, {"segment0": {"pid": 7, "actor": "1"}}, {}, lambda _: False)
    # What came first is the word of a learner that had waited for the other.
    monkeypatch.setattr(culprits, "_check", lambda: [("segment0", ActorDiedError())])
    waited = LostStep("learner segment1: the link to segment0 ended, which had failed or died")
    ray = SimpleNamespace(lost=None, take_hang=lambda: None, is_lost_at_once=True)
    monkeypatch.setattr("engine.runtimes.ray.waiting.current_private_ray", lambda: ray)
    assert "its process 7 died" in str(culprits.blame("segment1", waited))
    ray.lost = "Ray's gcs_server ended with signal SIGKILL"
    with pytest.raises(RayEnded, match="the private Ray is gone: Ray's gcs_server ended with signal SIGKILL"):
        culprits.blame("segment1", waited)


@pytest.mark.parametrize("at_once", [True, False])
def test_it_is_waited_longer_where_nobody_tells_of_the_end_of_ray(
    at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("engine.runtimes.ray.waiting.check_alive", waited.append)
    ray = SimpleNamespace(is_lost_at_once=at_once)
    monkeypatch.setattr("engine.runtimes.ray.waiting.current_private_ray", lambda: ray)
    assert check_after(ActorDiedError())
    assert waited == [0.25 if at_once else 2.0]


def test_a_ray_that_hung_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = ["Ray's raylet hangs: process 7 has been stopped since 14:31:05, for 61 s"]
    ray = SimpleNamespace(lost=None, take_hang=lambda: hangs.pop() if hangs else None)
    monkeypatch.setattr("engine.runtimes.ray.waiting.current_private_ray", lambda: ray)
    with pytest.raises(RayEnded, match="the private Ray is gone: Ray's raylet hangs: process 7 has been stopped"):
        check_alive()
    check_alive()


def test_a_ray_that_is_gone_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library would end this process."""
    private = SimpleNamespace(lost="Ray's raylet ended with signal SIGKILL", take_hang=lambda: None)
    monkeypatch.setattr("engine.runtimes.ray.waiting.current_private_ray", lambda: private)
    culprits = Culprits({"segment0": SimpleNamespace()}, {}, {}, lambda _: False)
    asking: list[Callable[[], object]] = [
        lambda: is_there(Given(object())),
        lambda: Fetching(culprits).settle([object()]),
        culprits.lost,
    ]
    for ask in asking:
        with pytest.raises(RayEnded, match="raylet ended with signal SIGKILL"):
            ask()
