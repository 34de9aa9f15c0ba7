"""Does a team go on from a snapshot as if nothing had happened, knowledge stores and checkpoints among it?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine
from engine.checkpoints import Checkpoint, LearnerState
from engine.data import open_source
from engine.errors import LearnerLost
from engine.learners.memory import tensor_bytes
from engine.planning import estimate_team
from engine.reading import read_json
from engine.recipes import MKF, InfoPro, Recipe, Recovery, plan_cautions
from engine.runtimes.process import ProcessRuntime
from engine.tracking import format_seconds
from engine.training import recovery
from engine.training.result import Result
from engine.training.session import Session
from engine.training.snapshots import Snapshots

METHODS: dict[str, Any] = {
    "infopro": InfoPro(num_segments=3),
    "mkf": MKF(warmup_fraction=0.5, mixing_probability=0.9, recalibration_images=20),
    "mkf_two_stores": MKF(warmup_fraction=0.5, mixing_probability=0.9, recalibration_images=20, store_learners=2),
}
TOTAL = 16


def plan(checkpoint_every: int, snapshot_every: int = 3, max_failures: int = 3) -> engine.Plan:
    return engine.Plan(
        executor="process",
        report_every_steps=1,
        checkpoint_every_steps=checkpoint_every,
        recovery=Recovery(max_failures=max_failures, snapshot_every_steps=snapshot_every),
    )


@pytest.fixture
def lose_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: which of all steps that are made are lost with their learner; snapshots are taken in process, too."""

    def lose(*steps: int, before: Callable[[], None] = lambda: None) -> None:
        submit, made = ProcessRuntime.submit, [0]

        def counted(runtime: ProcessRuntime, program: Any, batch: Any) -> None:
            if not program.name.startswith(("evaluation", "recalibration")):
                made[0] += 1
                if made[0] in steps:
                    before()
                    raise LearnerLost("segment0", "its process 7 died: signal SIGKILL")
            submit(runtime, program, batch)

        monkeypatch.setattr(ProcessRuntime, "submit", counted)
        monkeypatch.setattr(recovery, "Snapshots", lambda every, are_wanted: Snapshots(every))

    return lose


def assert_equal(one: engine.Result, other: engine.Result) -> None:
    assert one.status == other.status == "finished"
    assert (one.weights_sha256, one.metrics) == (other.weights_sha256, other.metrics)
    first, second = (engine.load(result.run_dir).checkpoint.states for result in (one, other))
    assert first.keys() == second.keys()
    for name, state in first.items():
        assert state.knowledge.keys() == second[name].knowledge.keys()
        assert all(value.equal(second[name].knowledge[key]) for key, value in state.knowledge.items()), name


@pytest.mark.parametrize(("method", "checkpoint_every"), [("infopro", 100), ("mkf", 100), ("mkf_two_stores", 5)])
def test_a_snapshot_is_gone_on_from(
    method: str,
    checkpoint_every: int,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    assert_same_run: Callable[[Path, Path], None],
    lose_at: Callable[..., None],
) -> None:
    recipe: Recipe = tiny_recipe(method=METHODS[method], epochs=4)
    straight = engine.train(recipe, plan(5), tmp_path / "straight")
    # The second one comes when the team has gone on from the first one's snapshot and, at most, a checkpoint.
    lose_at(5, 11)
    lost = engine.train(recipe, plan(checkpoint_every), tmp_path / "lost")
    assert_equal(straight, lost)
    if method != "mkf_two_stores":  # whose servers hold no tensors but their rows
        assert_same_run(tmp_path / "straight", tmp_path / "lost")
    # Steps 1 to 4 are made, then 4 to 8: a checkpoint after step 5 comes in place of the snapshot after step 6.
    second = 6 if checkpoint_every == 100 else 8
    log = (tmp_path / "lost" / "log.txt").read_text()
    assert log.count("goes on from ") == 2
    assert f"goes on from a snapshot in memory (step 3 of {TOTAL})" in log
    assert f"goes on from a snapshot in memory (step {second} of {TOTAL})" in log
    assert f"the team is started again, from the snapshot of step {second} (failure 1 of at most 3" in log
    assert [(fault.step, fault.repeated_steps) for fault in lost.faults] == [(4, 1), (8, 8 - second)]


def test_faults_of_a_run_are_those_of_all_its_commands(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], lose_at: Callable[..., None]
) -> None:
    recipe: Recipe = tiny_recipe(method=METHODS["infopro"], epochs=4)
    lose_at(5, 13)
    interrupted = engine.train(recipe, plan(100), tmp_path, until_step=8)
    assert interrupted.status == "interrupted"
    assert [fault.step for fault in interrupted.faults] == [4]
    finished = engine.train(recipe, plan(100), tmp_path)
    assert finished.status == "finished"
    assert finished.faults[0] == interrupted.faults[0]
    assert [(fault.cause, fault.step) for fault in finished.faults[1:]] == [
        ("learner segment0: its process 7 died: signal SIGKILL", 10)
    ]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("team/train/faults")] == [1, 1, 2]
    text = events.Tensors("team/train/faults/text_summary")[-1].tensor_proto.string_val[0].decode()
    log = (tmp_path / "log.txt").read_text().splitlines()
    for line, fault in zip(text.splitlines(), finished.faults, strict=True):
        cost = f"({fault.repeated_steps} steps repeated, {format_seconds(fault.seconds_lost)} lost)"
        number = finished.faults.index(fault) + 1
        assert line == f"{number}. after step {fault.step}: {fault.cause} {cost}"
        assert log[-1 - len(finished.faults) + number].endswith(f" fault {line}")


def test_a_fault_of_the_first_start_is_one_of_the_run(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, failures = Session.start, [LearnerLost("segment0", "its process 7 died: signal SIGKILL")]
    monkeypatch.setattr(Session, "start", lambda session: _raise(failures.pop()) if failures else start(session))
    monkeypatch.setattr("time.sleep", lambda _: None)
    result = engine.train(tiny_recipe(epochs=1), engine.Plan(executor="process"), tmp_path)
    assert [(fault.cause, fault.step, fault.repeated_steps) for fault in result.faults] == [
        ("learner segment0: its process 7 died: signal SIGKILL", 0, 0)
    ]
    assert result.faults == Result.from_json(read_json(tmp_path / "summary.json", engine.RunError), tmp_path).faults


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("executor", "max_failures", "every", "why"),
    [
        ("process", 3, 5, "plan.executor=process, where all learners are one process"),
        ("ray", 0, 5, "plan.recovery.max_failures=0, where no team is started again"),
        ("ray", 3, 5, None),
        ("process", 3, None, None),
    ],
)
def test_a_field_that_does_nothing_is_said_to(
    executor: Any, max_failures: int, every: int | None, why: str | None
) -> None:
    recovery = Recovery(max_failures=max_failures, snapshot_every_steps=every)
    found = plan_cautions(engine.Plan(executor=executor, recovery=recovery))
    expected = f"plan.recovery.snapshot_every_steps=5 does nothing: there are no snapshots with {why}"
    assert found == ([] if why is None else [expected])


def test_a_size_that_no_private_ray_is_told_does_nothing() -> None:
    cautions = plan_cautions(engine.Plan(address="auto", object_store_bytes=10**9))
    assert [caution.partition(":")[0] for caution in cautions] == ["plan.object_store_bytes=1000000000 does nothing"]
    assert plan_cautions(engine.Plan(object_store_bytes=10**9)) == []


def test_a_checkpoint_that_is_damaged_meanwhile(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], lose_at: Callable[..., None]
) -> None:
    """What the store had changed before the damaged one is in it alone, so the snapshot cannot be used."""
    recipe: Recipe = tiny_recipe(method=METHODS["mkf"], epochs=4)
    straight = engine.train(recipe, plan(5), tmp_path / "straight")
    newest = tmp_path / "lost" / "checkpoints" / "step-000010"
    lose_at(13, before=lambda: (newest / "network.safetensors").write_bytes(b"damaged"))
    lost = engine.train(recipe, plan(5, snapshot_every=2), tmp_path / "lost")
    assert_equal(straight, lost)
    log = (tmp_path / "lost" / "log.txt").read_text()
    assert "goes on from a snapshot" not in log
    assert f"step-000005 (step 5 of {TOTAL})" in log


def state(step: int, rows: list[int] | None = None, follows: int | None = None) -> LearnerState:
    knowledge = {} if rows is None else {"rows": torch.tensor(rows), "values": torch.full((len(rows), 2), float(step))}
    return LearnerState({"body.w": torch.full((250_000,), float(step))}, {"knowledge_follows": follows}, knowledge)


def test_changes_are_kept_until_a_checkpoint_holds_them() -> None:
    snapshots = Snapshots()
    assert snapshots.after(None) is None
    snapshots.keep(3, {"a": state(3, [0, 1])}, {})
    snapshots.keep(6, {"a": state(6, [1, 2], follows=3)}, {"test/accuracy": 0.5})
    (kept,) = snapshots.states.values()
    assert kept.extra["knowledge_follows"] is None
    assert kept.knowledge["rows"].tolist() == [0, 1, 2]
    assert kept.knowledge["values"][:, 0].tolist() == [3.0, 6.0, 6.0]
    assert kept.tensors["body.w"][0] == 6.0
    snapshots.saved()
    snapshots.keep(9, {"a": state(9, [2, 3], follows=6)}, {})
    on_disk = Checkpoint(Path("step-000006"), 6, {"a": LearnerState({}, {}, kept.knowledge)}, {})
    whole = snapshots.after(on_disk)
    assert whole is not None
    assert whole["a"].knowledge["rows"].tolist() == [0, 1, 2, 3]
    assert whole["a"].knowledge["values"][:, 0].tolist() == [3.0, 6.0, 9.0, 9.0]
    assert "knowledge_follows" not in whole["a"].extra
    assert snapshots.after(None) is None
    assert snapshots.after(Checkpoint(Path("step-000009"), 9, {"a": state(9)}, {})) is None
    # What goes on from elsewhere has nothing to do with it.
    snapshots.begin(6)
    assert not snapshots.states


@pytest.mark.parametrize(
    ("every", "step_seconds", "due"),
    # A megabyte takes 2 ms, which are a hundredth of 0.2 s; never before two seconds.
    [(7, None, 7), (7, 1.0, 7), (None, 0.1, 20), (None, 1.0, 2), (None, 30.0, 1), (None, 1e-4, 20_000)],
)
def test_when_one_is_due(every: int | None, step_seconds: float | None, due: int) -> None:
    snapshots = Snapshots(every)
    snapshots.begin(100)
    snapshots.keep(100, {"a": state(100)}, {})
    assert [snapshots.is_due(100 + steps, step_seconds) for steps in (due - 1, due)] == [False, True]
    snapshots.asked(100 + due)
    assert not snapshots.is_due(100 + 2 * due - 1, step_seconds)
    assert not Snapshots(every, are_wanted=False).is_due(10**9, step_seconds)
    assert not Snapshots().is_due(10**9, None)


def test_large_states_are_copied_seldom() -> None:
    snapshots = Snapshots()
    states = {name: state(0) for name in map(str, range(100))}
    snapshots.keep(0, states, {})
    # 100 MB take 0.2 s.
    assert not snapshots.is_due(19, 1.0)
    assert snapshots.is_due(20, 1.0)


def test_the_field_and_the_estimate(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    _, read = engine.apply_overrides(tiny_recipe(), engine.Plan(), ["plan.recovery.snapshot_every_steps=50"])
    assert read.recovery.snapshot_every_steps == 50
    engine.train(tiny_recipe(), plan(100), tmp_path)
    loaded = engine.load(tmp_path)
    held = sum(tensor_bytes(each.tensors.values()) for each in loaded.checkpoint.states.values())
    facts = open_source(tiny_recipe().data, seed=0).facts
    assert estimate_team(tiny_recipe(), facts, engine.Plan()).snapshot_bytes == pytest.approx(2 * held, rel=0.05)
