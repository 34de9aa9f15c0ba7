"""Does an interrupted run end with the weights and metrics of one that was never interrupted, bit for bit?"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine
from engine.data import Batch
from engine.errors import LearnersAway
from engine.program import Program, is_evaluation
from engine.recipes import DML, SGD, AdamW, EndToEnd, InfoPro, Peer, Recipe, RMSProp
from engine.runtimes import ProcessRuntime
from engine.tracking import read_metrics
from engine.training.loop import Training

RAY_CPUS = 3

TinyRecipe = Callable[..., Recipe]
Interrupt = Callable[[int], None]
SameRun = Callable[[Path, Path], None]
Executor = Literal["ray", "process"]

METHODS: dict[str, dict[str, Any]] = {
    "end_to_end": {"method": EndToEnd()},
    "infopro": {"method": InfoPro(num_segments=3)},
    "infopro_contrastive": {"method": InfoPro(num_segments=3, head="contrastive", reconstruction_share=0.5)},
    "adamw": {"method": InfoPro(num_segments=3), "optimizer": AdamW(learning_rate=1e-3)},
    "rmsprop_momentum": {"method": EndToEnd(), "optimizer": RMSProp(learning_rate=1e-3, momentum=0.5)},
}
# 8 steps, 4 in an epoch: reports after steps 3, 4, 6 and 8.
IN_PROCESS = engine.Plan(executor="process", report_every_steps=3)


@pytest.mark.parametrize(
    ("method", "stops"),
    [
        *((method, (2, 4, 7)) for method in METHODS),
        # The first step, inside both epochs, just at a report, and at the end of an epoch.
        *(("infopro", stops) for stops in [(1,), (2, 5), (3,), (4,)]),
    ],
)
def test_interrupted_run_equals_straight_run(
    method: str,
    stops: tuple[int, ...],
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    recipe = tiny_recipe(**METHODS[method])
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    for stop in stops:
        interrupt_at(stop)
        result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
        assert (result.status, result.steps, result.epochs) == ("interrupted", stop, stop // 4)
    interrupt_at(0)
    result = engine.train(recipe, IN_PROCESS, tmp_path / "stopped")
    assert (result.status, result.steps) == ("finished", 8)
    assert result.weights_sha256 == straight.weights_sha256
    assert result.metrics == straight.metrics
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_interrupted_in_the_last_step_is_finished(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    interrupt_at(8)
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


@pytest.mark.parametrize("crash", [1, 6, 8])
def test_a_crash_goes_on_from_the_checkpoint_before_it(
    crash: int,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    at_step: Callable[[int, Callable[[], None]], None],
    assert_same_run: SameRun,
) -> None:
    plan = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)
    engine.train(tiny_recipe(), plan, tmp_path / "straight")

    def fail() -> None:
        raise OSError("the power went out")

    at_step(crash, fail)
    with pytest.raises(Exception, match="the power went out"):
        engine.train(tiny_recipe(), plan, tmp_path / "crashed")
    at_step(0, fail)
    engine.train(tiny_recipe(), plan, tmp_path / "crashed")
    assert_same_run(tmp_path / "straight", tmp_path / "crashed")


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_named(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    plan = engine.Plan(executor="process", checkpoint_every_steps=2, keep_checkpoints=3)
    engine.train(tiny_recipe(), plan, tmp_path / "straight")
    interrupt_at(7)
    engine.train(tiny_recipe(), plan, tmp_path / "damaged")
    for step in (6, 7):
        (tmp_path / "damaged" / "checkpoints" / f"step-{step:06d}" / "segment1.safetensors").write_bytes(b"torn")
    interrupt_at(0)
    engine.train(tiny_recipe(), plan, tmp_path / "damaged")
    log = (tmp_path / "damaged" / "log.txt").read_text()
    for step in (6, 7):
        assert f"step-{step:06d}: damaged, skipped: segment1.safetensors has 4 bytes" in log
    assert "step-000004 (step 4 of 8)" in log
    assert_same_run(tmp_path / "straight", tmp_path / "damaged")


def test_with_all_checkpoints_damaged_it_starts_anew(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt, assert_same_run: SameRun
) -> None:
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "straight")
    interrupt_at(3)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "damaged")
    (tmp_path / "damaged" / "checkpoints" / "step-000003" / "state.json").write_text("{}")
    interrupt_at(0)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "damaged")
    assert_same_run(tmp_path / "straight", tmp_path / "damaged")


def test_other_reports_and_checkpoints_do_not_change_the_weights(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt
) -> None:
    straight = engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "straight")
    interrupt_at(3)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "other")
    interrupt_at(0)
    other = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=1, keep_checkpoints=1)
    assert engine.train(tiny_recipe(), other, tmp_path / "other").weights_sha256 == straight.weights_sha256
    assert [path.name for path in (tmp_path / "other" / "checkpoints").iterdir()] == ["step-000008"]


def test_a_finished_run_without_summary_is_only_concluded(
    tmp_path: Path, tiny_recipe: TinyRecipe, at_step: Callable[[int, Callable[[], None]], None]
) -> None:
    first = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    (tmp_path / "summary.json").unlink()
    before = [(record.step, record.name, record.value) for record in read_metrics(tmp_path)]

    def fail() -> None:
        raise AssertionError("trained again")

    at_step(8, fail)
    again = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert (again.status, again.steps, again.weights_sha256) == ("finished", 8, first.weights_sha256)
    assert again.metrics == first.metrics
    assert [(record.step, record.name, record.value) for record in read_metrics(tmp_path)] == before


def test_memory_is_that_of_the_whole_run(tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Interrupt) -> None:
    """Only the last and smaller batch is left, which needs less memory than those before it."""
    straight = engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "straight")
    interrupt_at(7)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "stopped")
    interrupt_at(0)
    stopped = engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "stopped")
    assert stopped.peak_memory_bytes == straight.peak_memory_bytes


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("first", "second"), [("ray", "process"), ("process", "ray"), ("ray", "ray")])
def test_between_executors(
    first: Executor,
    second: Executor,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    interrupt_at: Interrupt,
    assert_same_run: SameRun,
) -> None:
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path / "straight")
    interrupt_at(3)
    plan = engine.Plan(executor=first, report_every_steps=3)
    assert engine.train(tiny_recipe(), plan, tmp_path / "stopped").steps == 3
    interrupt_at(0)
    plan = engine.Plan(executor=second, report_every_steps=3)
    assert engine.train(tiny_recipe(), plan, tmp_path / "stopped").status == "finished"
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.parametrize("evaluation", [1, 2], ids=["in the middle", "the last"])
def test_an_evaluation_that_was_not_waited_for_is_made_up_for(
    evaluation: int,
    tmp_path: Path,
    tiny_recipe: TinyRecipe,
    assert_same_run: SameRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where Ctrl-C comes while it waits for a learner that is away."""
    recipe = tiny_recipe()
    straight = engine.train(recipe, IN_PROCESS, tmp_path / "straight")
    submit, kinds = ProcessRuntime.submit, [False]

    def hurried(runtime: ProcessRuntime, program: Program, batch: Batch) -> None:
        begins = is_evaluation(program) and not kinds[-1]
        kinds.append(is_evaluation(program))
        if begins and sum(now and not before for before, now in itertools.pairwise(kinds)) == evaluation:
            signal.raise_signal(signal.SIGINT)
            raise LearnersAway("segment1: not built anew yet")
        submit(runtime, program, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ProcessRuntime, "submit", hurried)
        stopped = engine.train(recipe, IN_PROCESS, tmp_path / "resumed")
    assert (stopped.status, stopped.steps) == ("interrupted", 4 * evaluation)
    assert f"scores all after step {4 * evaluation}" in (tmp_path / "resumed" / "log.txt").read_text()
    # Of two crashes that come when all was scored, and before a checkpoint says so, each has scored anew.
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("engine.training.loop.save_checkpoint", _fail)
            with pytest.raises(engine.RunError, match="the power went out"):
                engine.train(recipe, IN_PROCESS, tmp_path / "resumed")
        assert any(each.step == 4 * evaluation and each.split == "test" for each in read_metrics(tmp_path / "resumed"))
    resumed = engine.train(recipe, IN_PROCESS, tmp_path / "resumed")
    assert (resumed.status, resumed.metrics) == ("finished", straight.metrics)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    shown = [EventAccumulator(str(tmp_path / name)).Reload() for name in ("straight", "resumed")]
    for tag in shown[0].Tags()["scalars"]:
        first, second = ([each.step for each in events.Scalars(tag)] for events in shown)
        assert first == second, tag


def _fail(*arguments: Any) -> None:
    raise OSError("the power went out")


def test_who_has_left_is_known_before_the_first_step_of_a_run_that_goes_on(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], interrupt_at: Callable[[int], None], monkeypatch: Any
) -> None:
    """A learner that is lost before the first answer must not leave only those that train nothing."""
    peers = (Peer(), Peer(optimizer=SGD(learning_rate=1e30)))
    recipe = tiny_recipe(method=DML(peers=peers), backbone=engine.Backbone(name="resnet8", widths=(4, 4, 4)))
    interrupt_at(5)
    engine.train(recipe, IN_PROCESS, tmp_path)
    interrupt_at(0)
    known: list[list[str]] = []
    steps = Training._steps

    def noted(training: Training, *arguments: Any) -> int:
        known.append(list(training.diverged))
        return steps(training, *arguments)

    monkeypatch.setattr(Training, "_steps", noted)
    engine.train(recipe, IN_PROCESS, tmp_path)
    assert known == [["peer1"]]
