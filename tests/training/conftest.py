"""What do the tests of training share: interruptions, comparisons of runs, places of mirrors, and a recipe."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

import engine
import engine.training.mirror
from engine.data import Source, open_source
from engine.data.remote.uris import Place
from engine.recipes import Recipe
from engine.runtimes.process import ProcessRuntime
from engine.tracking import Record, read_metrics
from tests.training.mirrored_runs import Bucket

# These tell how a run went on its machine; everything else follows from the recipe.
_MEASURED = ("images_per_second", "waiting_share", "memory_bytes")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Leave out curves.png, which takes longer than the training."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """A function: step of the run, from 1, and what happens while the batch of that step is being made."""

    def arrange(step: int, happen: Callable[[], None]) -> None:
        def opened(*arguments: Any, **named: Any) -> Source:
            source = open_source(*arguments, **named)
            make, steps = source.batch, source.steps_per_epoch()

            def batch(epoch: int, index: int) -> Any:
                if epoch * steps + index + 1 == step:
                    happen()
                return make(epoch, index)

            monkeypatch.setattr(source, "batch", batch)
            return source

        monkeypatch.setattr("engine.training.session.open_source", opened)

    return arrange


@pytest.fixture
def at_submitted(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Callable[[], None]]], None]:
    """A function: steps of the run, from 1, and what is done when each is submitted in process."""

    def plan_for(events: dict[int, Callable[[], None]]) -> None:
        submit, made = ProcessRuntime.submit, [0]

        def counted(runtime: ProcessRuntime, program: Any, batch: Any) -> None:
            if not program.name.startswith(("evaluation", "recalibration")):
                made[0] += 1
                events.get(made[0], lambda: None)()
            submit(runtime, program, batch)

        monkeypatch.setattr(ProcessRuntime, "submit", counted)

    return plan_for


@pytest.fixture
def interrupt_at(at_step: Callable[[int, Callable[[], None]], None]) -> Callable[[int], None]:
    """A function: step of the run, from 1, in which Ctrl-C is pressed; it is the last one that is finished."""
    return lambda step: at_step(step, lambda: signal.raise_signal(signal.SIGINT))


def _repeatable(records: list[Record]) -> list[tuple[Any, ...]]:
    return [
        (record.step, record.epoch, record.learner, record.split, record.name, record.value)
        for record in records
        if record.name not in _MEASURED
    ]


@pytest.fixture
def assert_same_run() -> Callable[[Path, Path], None]:
    """A function: two run folders, which must hold the same weights, optimizers, scores and metrics, bit for bit."""

    def check(first: Path, second: Path) -> None:
        runs = [engine.load(first), engine.load(second)]
        assert runs[0].checkpoint.step == runs[1].checkpoint.step
        assert runs[0].checkpoint.values == runs[1].checkpoint.values
        states = [run.checkpoint.states for run in runs]
        assert states[0].keys() == states[1].keys()
        for learner, state in states[0].items():
            other = states[1][learner]
            assert state.extra == other.extra
            assert state.tensors.keys() == other.tensors.keys()
            assert any(name.startswith("optimizer.") for name in state.tensors)
            for name, value in state.tensors.items():
                assert value.equal(other.tensors[name]), f"{learner} {name}"
            assert state.knowledge.keys() == other.knowledge.keys()
            for name, value in state.knowledge.items():
                assert value.equal(other.knowledge[name]), f"{learner}'s knowledge, {name}"
        metrics = [read_metrics(first), read_metrics(second)]
        assert _repeatable(metrics[0]) == _repeatable(metrics[1])
        for records in metrics:
            places = [(record.step, record.learner, record.split, record.name) for record in records]
            assert len(places) == len(set(places)), "a step was recorded twice"

    return check


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, under any URI."""
    made = Bucket()
    place = Place(pyarrow.fs.PyFileSystem(made), "bucket/run")
    monkeypatch.setattr(engine.training.mirror, "connect", lambda uri: place)
    return made


@pytest.fixture(params=["folder", "file", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of place that a mirror may be at."""
    if request.param == "bucket":
        request.getfixturevalue("bucket")
        return "s3://bucket/run"
    shared = tmp_path / "shared" / "run"
    return str(shared) if request.param == "folder" else shared.as_uri()


@pytest.fixture
def recipe_of(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """A function: the method, and the recipe of 16 steps that trains with it."""
    return lambda method, **changes: tiny_recipe(method=method, epochs=4, **changes)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
