"""Sessions: all that is opened is closed, and training goes on in another one, or in the same, after a failure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.data import Batch
from engine.recipes import Recipe
from engine.tasks import ACCURACY
from engine.tracking import open_console
from engine.training.environment import describe_environment
from engine.training.folder import RunFolder
from engine.training.loop import Training
from engine.training.run_record import RunRecord
from engine.training.session import Session
from engine.training.snapshots import Snapshots

TinyRecipe = Callable[..., Recipe]
SameRun = Callable[[Path, Path], None]
# 8 steps, 4 in an epoch: step 6 fails after the checkpoint of step 4 and the report of step 5.
PLAN = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)
FAILS_AT = 6


@contextlib.contextmanager
def recording(folder: Path, recipe: Recipe, plan: engine.Plan) -> Iterator[RunRecord]:
    environment = describe_environment(recipe)
    with contextlib.closing(RunFolder(folder, recipe, plan, environment)) as opened, open(os.devnull, "w") as nowhere:
        yield RunRecord(opened, open_console(nowhere, quiet=True), None, ACCURACY, time.monotonic())


def fail_once(session: Session) -> None:
    """Let one training step fail in its learners the first time: it gets labels of classes that there are not."""
    make, failed = session.source.batch, []

    def batch(epoch: int, step: int) -> Batch:
        made = make(epoch, step)
        if epoch * session.source.steps_per_epoch() + step + 1 != FAILS_AT or failed:
            return made
        failed.append(True)
        return dataclasses.replace(made, labels=made.labels + 1000)

    session.source.batch = batch  # type: ignore[method-assign]


@pytest.mark.parametrize("anew", ["another session", "the same session"])
def test_training_goes_on_after_a_learner_has_failed(
    anew: str, tmp_path: Path, tiny_recipe: TinyRecipe, assert_same_run: SameRun
) -> None:
    recipe = tiny_recipe()
    straight = engine.train(recipe, PLAN, tmp_path / "straight")
    with recording(tmp_path / "failed", recipe, PLAN) as record:
        with Session(recipe, PLAN) as session:
            fail_once(session)
            session.start()
            with pytest.raises(engine.LearnerError):
                Training(session, record, Snapshots(are_wanted=False)).run()
            assert engine.load(tmp_path / "failed").checkpoint.step == 4
            if anew == "the same session":
                session.start()
                result = Training(session, record, Snapshots(are_wanted=False)).run()
        if anew == "another session":
            with Session(recipe, PLAN) as session:
                session.start()
                result = Training(session, record, Snapshots(are_wanted=False)).run()
    assert (result.status, result.steps) == ("finished", 8)
    assert result.weights_sha256 == straight.weights_sha256
    assert result.metrics == straight.metrics
    assert_same_run(tmp_path / "straight", tmp_path / "failed")
    log = (tmp_path / "failed" / "log.txt").read_text()
    assert len(re.findall("failed: learner segment", log)) == 1
    assert len(re.findall(r"goes on from .*step-000004 \(step 4 of 8\)", log)) == 1


class _Opened:
    """Counts what is open of a source or a runtime."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.open = self.ever = 0
        original = getattr(engine.training.session, name)

        def opened(*arguments: Any, **named: Any) -> Any:
            found = original(*arguments, **named)
            close = found.close
            self.open += 1
            self.ever += 1

            def closed() -> None:
                self.open -= 1
                close()

            found.close = closed
            return found

        monkeypatch.setattr(f"engine.training.session.{name}", opened)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> tuple[_Opened, _Opened]:
    """What is open of sources and of runtimes."""
    return _Opened(monkeypatch, "open_source"), _Opened(monkeypatch, "open_runtime")


def test_all_that_was_opened_is_closed_after_an_error(tiny_recipe: TinyRecipe, opened: tuple[_Opened, _Opened]) -> None:
    sources, runtimes = opened
    with pytest.raises(ZeroDivisionError), Session(tiny_recipe(), PLAN) as session:
        assert (sources.open, runtimes.ever) == (1, 0)
        session.start()
        session.start()
        assert (sources.open, runtimes.open, runtimes.ever) == (1, 1, 2)
        raise ZeroDivisionError
    assert (sources.open, runtimes.open) == (0, 0)


def test_the_source_is_closed_where_there_can_be_no_learners(
    tiny_recipe: TinyRecipe, opened: tuple[_Opened, _Opened]
) -> None:
    sources, runtimes = opened
    recipe = tiny_recipe(method=engine.recipes.Greedy(num_segments=100))
    with pytest.raises(engine.RecipeError, match="num_segments=100"), Session(recipe, PLAN) as session:
        session.start()
    assert (sources.ever, sources.open, runtimes.ever) == (1, 0, 0)


@pytest.mark.parametrize("what", ["train", "evaluate", "preview", "count"])
def test_everything_closes_what_it_opened(
    what: str, tmp_path: Path, tiny_recipe: TinyRecipe, opened: tuple[_Opened, _Opened]
) -> None:
    from engine.comparison.cost import training_flops_per_image
    from engine.training.preview import preview

    recipe = tiny_recipe(epochs=1)
    if what == "preview":
        preview(recipe, tmp_path / "run")
    elif what == "count":
        assert training_flops_per_image(recipe)
    else:
        engine.train(recipe, PLAN, tmp_path / "run")
        if what == "evaluate":
            engine.evaluate(engine.load(tmp_path / "run"))
    assert opened[0].ever == (2 if what == "evaluate" else 1)
    assert [each.open for each in opened] == [0, 0]
    assert opened[1].ever == (0 if what == "preview" else opened[0].ever)


def test_two_threads_do_not_train_at_once(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    """They would draw from the same generators, and neither give the weights of its recipe."""
    recipe = tiny_recipe(epochs=1)

    def train_beside() -> None:
        engine.train(recipe, PLAN, tmp_path / "beside")

    with ThreadPoolExecutor(1) as beside:
        with Session(recipe, PLAN), Session(recipe, PLAN):
            told = str(beside.submit(train_beside).exception())
            assert told.startswith("another training, evaluation or preview runs in a thread of this process")
            assert not (tmp_path / "beside").exists()
        with pytest.raises(engine.DataError), Session(tiny_recipe(data={"name": "folder", "root": "/no"}), PLAN):
            pass
        beside.submit(train_beside).result()
    assert (tmp_path / "beside" / "summary.json").exists()
