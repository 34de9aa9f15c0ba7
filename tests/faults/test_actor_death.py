"""Does the death of any actor end the run within seconds with the learner and the cause, and is nothing lost?"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import ray

import engine
from engine.reading import read_json
from engine.recipes import Recipe, Recovery
from engine.runtimes import Runtime, open_runtime
from engine.runtimes.ray import ObjectStoreRuntime, StreamRuntime
from engine.runtimes.ray.processes import WatchedProcess
from engine.tasks import Metric
from engine.tracking import Record, read_metrics
from engine.training import Result

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 3

EPOCHS = 40
NOTICED_WITHIN_SECONDS = 30.0


@pytest.fixture(scope="module")
def kernel_tells() -> bool:
    """Whether this machine can tell how another process's child ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        watched = WatchedProcess(child.pid)
        child.wait()
        known = watched.ending() is not None
        watched.close()
    return known


def _plan(executor: Literal["ray", "process"] = "ray", max_failures: int = 0) -> engine.Plan:
    return engine.Plan(
        executor=executor,
        recovery=Recovery(max_failures=max_failures),
        checkpoint_every_steps=10,
        report_every_steps=5,
        evaluate_every_epochs=EPOCHS,
        keep_checkpoints=2,
    )


class Fate:
    """A console that lets an actor die as soon as it hears of step 20."""

    def __init__(self, learner: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.learner, self.cause = learner, cause
        self.runtime: Any = None
        self.process_id = 0
        self.died_at = 0.0

        def opened(*arguments: Any) -> Runtime:
            self.runtime = open_runtime(*arguments)
            return self.runtime

        monkeypatch.setattr("engine.training.session.open_runtime", opened)

    def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
        if step < 20 or self.died_at:
            return
        actor = self.runtime._actors[self.learner]
        self.process_id = int(re.search(r"actor (\d+)", self.runtime.describe()[self.learner])[1])  # type: ignore[index]
        self.died_at = time.monotonic()
        if self.cause == "ray.kill":
            ray.kill(actor)
        elif self.cause == "exit":
            actor.__ray_call__.remote(lambda _: os._exit(7))
        else:
            os.kill(self.process_id, signal.Signals[self.cause])

    def start(self, title: str, learners: Sequence[str], total_steps: int, first_step: int, _: Metric) -> None:
        assert total_steps == 4 * EPOCHS

    def message(self, text: str) -> None:
        pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"folder": tmp_path_factory.mktemp("undisturbed")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "cause", "goes_on_with"),
    [
        ("segment1", "SIGKILL", "ray"),
        ("segment0", "SIGTERM", "process"),
        ("segment2", "exit", "process"),
        ("segment1", "ray.kill", "ray"),
    ],
)
def test_death(
    learner: str,
    cause: str,
    goes_on_with: Literal["ray", "process"],
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    kernel_tells: bool,
    undisturbed: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    recipe = tiny_recipe(epochs=EPOCHS)
    if "result" not in undisturbed:
        undisturbed["result"] = engine.train(recipe, _plan("process"), undisturbed["folder"])
    fate = Fate(learner, cause, monkeypatch)
    with pytest.raises(engine.LearnerError) as caught:
        engine.train(recipe, _plan(), tmp_path, console=fate)  # type: ignore[arg-type]
    assert time.monotonic() - fate.died_at < NOTICED_WITHIN_SECONDS

    assert caught.value.learner == learner
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert message.startswith(f"learner {learner}: its process {fate.process_id} died: ")
    told = {"ray.kill": "it was ended by ray.kill"}
    if kernel_tells:
        told |= {"SIGKILL": "signal SIGKILL", "SIGTERM": "signal SIGTERM", "exit": "exit code 7"}
    assert told.get(cause, "its connection ended without a word") in message
    assert message.endswith("(the newest checkpoint is whole; the same command goes on from it)")
    assert message in (tmp_path / "log.txt").read_text()
    captured = capfd.readouterr()
    assert captured.out == "", "standard output is for results"
    assert "Unhandled error" not in captured.err

    checkpoint = engine.load(tmp_path).checkpoint
    assert checkpoint.step >= 10
    assert checkpoint.step % 10 == 0
    result = engine.train(recipe, _plan(goes_on_with), tmp_path)
    assert f"goes on from {checkpoint.path}" in (tmp_path / "log.txt").read_text()
    assert result.status == "finished"
    assert result.weights_sha256 == undisturbed["result"].weights_sha256
    assert result.metrics == undisturbed["result"].metrics
    assert _losses(tmp_path) == _losses(undisturbed["folder"])


def _losses(folder: Path) -> list[tuple[int, str | None, str, float]]:
    return [(r.step, r.learner, r.name, r.value) for r in read_metrics(folder) if r.name.startswith("loss")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "cause", "transport", "goes_on_from"),
    [
        ("segment0", "SIGKILL", "direct", "snapshot"),
        ("segment2", "exit", "direct", "checkpoint"),
    ],
)
def test_the_team_comes_back_by_itself(
    learner: str,
    cause: str,
    transport: Literal["object_store", "direct"],
    goes_on_from: Literal["checkpoint", "snapshot"],
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any],
) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    monkeypatch.setattr("engine.runtimes.ray.stream.bytes_kept_on_links", lambda *_: 0)  # nobody comes back alone
    recipe = tiny_recipe(epochs=EPOCHS)
    if "result" not in undisturbed:
        undisturbed["result"] = engine.train(recipe, _plan("process"), undisturbed["folder"])
    fate: Any = Fate(learner, cause, monkeypatch)
    plan = dataclasses.replace(_plan(max_failures=1), transport=transport)
    if goes_on_from == "snapshot":
        recovery = dataclasses.replace(plan.recovery, snapshot_every_steps=10)
        plan = dataclasses.replace(plan, recovery=recovery, checkpoint_every_steps=1000)
    result = engine.train(recipe, plan, tmp_path, console=fate)
    assert result.status == "finished"
    assert result.weights_sha256 == undisturbed["result"].weights_sha256
    assert result.metrics == undisturbed["result"].metrics
    assert _losses(tmp_path) == _losses(undisturbed["folder"])
    (fault,) = result.faults
    assert fault.cause.startswith(f"learner {learner}: its process {fate.process_id} died: ")
    assert "the same command" not in fault.cause
    assert fault.step >= 20 and fault.step % 5 == 0
    assert 0 <= fault.repeated_steps <= 10
    assert 0 < fault.seconds_lost < result.seconds
    assert Result.from_json(read_json(tmp_path / "summary.json", engine.RunError), tmp_path).faults == result.faults
    log = (tmp_path / "log.txt").read_text()
    assert f"{fault.cause}; the team is started again, from the {goes_on_from} of step " in log
    assert (log.count("goes on from a snapshot in memory") == 1) == (goes_on_from == "snapshot")
    assert "(failure 1 of at most 1, plan.recovery.max_failures)" in log


@pytest.mark.slow
def test_a_learner_that_dies_again_and_again_ends_the_run(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Always(Fate):
        deaths = 0

        def start(self, *_: Any) -> None:
            self.died_at = 0.0

        def update(self, step: int, epoch: int, records: Sequence[Record]) -> None:
            before = self.died_at
            super().update(step + 20, epoch, records)
            self.deaths += self.died_at != before

    monkeypatch.setattr("engine.runtimes.ray.stream.bytes_kept_on_links", lambda *_: 0)  # nobody comes back alone
    fate: Any = Always("segment1", "SIGKILL", monkeypatch)
    # Nothing is kept between.
    plan = dataclasses.replace(_plan(max_failures=2), checkpoint_every_steps=1000)
    with pytest.raises(engine.LearnerError, match="learner segment1: its process"):
        engine.train(tiny_recipe(epochs=EPOCHS), plan, tmp_path, console=fate)
    assert fate.deaths == 3
    log = (tmp_path / "log.txt").read_text()
    assert log.count("the team is started again, from the first step") == 2
    assert "(failure 2 of at most 2, plan.recovery.max_failures)" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "runtime_class"), [("object_store", ObjectStoreRuntime), ("direct", StreamRuntime)]
)
def test_a_failure_of_one_is_not_blamed_on_the_others(
    transport: Literal["object_store", "direct"],
    runtime_class: type[Any],
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The survivors miss messages of the dead one: that is no failure of theirs, and none of them goes on."""
    fate: Any = Fate("segment0", "SIGKILL", monkeypatch)
    seen: dict[str, str] = {}
    close = runtime_class.close

    def ask_survivors(runtime: Any) -> None:
        for name in ("segment1", "segment2"):
            try:
                ray.get(runtime._actors[name].check.remote(), timeout=30)
                seen[name] = "well"
            except ray.exceptions.RayTaskError as error:
                seen[name] = type(error.cause).__name__
        close(runtime)

    monkeypatch.setattr(runtime_class, "close", ask_survivors)
    plan = dataclasses.replace(_plan(), transport=transport)
    with pytest.raises(engine.LearnerError, match="learner segment0: its process"):
        engine.train(tiny_recipe(epochs=EPOCHS), plan, tmp_path, console=fate)
    assert seen == {"segment1": "LostStep", "segment2": "LostStep"}


OUT_OF_MEMORY = """
import os, sys
# Ray's monitor ends the newest worker when more than this share of the memory is used, which is always so.
os.environ["RAY_memory_usage_threshold"] = "0.0001"
os.environ["RAY_memory_monitor_refresh_ms"] = "200"
import engine
words = ["data.train_limit=44", "data.test_limit=20", "data.batch_size=12", "epochs=100000", "numerics.threads=1"]
words += ["plan.recovery.max_failures=0"]
recipe, plan = engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), words)
try:
    engine.train(recipe, plan, sys.argv[1])
except engine.LearnerError as error:
    print(f"{error.learner}|{error}")
"""


@pytest.mark.slow
def test_out_of_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    learner, _, message = done.stdout.strip().partition("|")
    assert learner in ("segment0", "segment1"), done.stderr
    assert message.startswith(f"learner {learner}: its process ")
    assert "was ended because its node ran out of memory; set numerics.recompute=blocks, with which" in message
